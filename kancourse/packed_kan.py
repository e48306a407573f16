"""A BitKAN for inference only: ternary coefficients at two bits each, functions by table, the same bits as in training.

Shapes: N tokens, I in_features, O out_features, F features of an input, R = I·F/4 rounded up.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kancourse.bit_codes import LARGEST_CODE, rms_gradient, rms_normalise
from kancourse.bit_kan import BitKAN
from kancourse.bit_kan_codes import check_sizes, kan_input_codes, kan_repr, kan_table, round_inside
from kancourse.bit_kernel import KANWeights, bit_kan_rows, compiled, float32_numbers
from kancourse.bit_kernel_choice import bit_kernel
from kancourse.bit_pack import FEW_TOKENS, PackedBitLinear, pack_ternary, scratch, unpack_ternary

__all__ = ["PackedBitKAN"]


class PackedBitKAN(PackedBitLinear):
    """A `BitKAN` for inference only: the same outputs to the last bit, from a sixteenth of the bytes.

    Made by `from_bit_kan`; made by itself, all its weights are zero, ready for `load_state_dict`.

    Args:
        in_features, out_features, bias, grid_size, order, reach, eps: as in `BitKAN`.
        device: where its buffers lie; "meta": nowhere, until a state is loaded with `assign=True`.

    Buffers: `packed` uint8 (R, O), `scale` float32 (O,), `norm_weight` (I,).

    Raises:
        ValueError: as `BitKAN`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        grid_size: int = 3,
        order: int = 2,
        reach: float = 3.0,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
    ) -> None:
        check_sizes("PackedBitKAN", in_features, out_features, bias, grid_size, order, reach)
        super().__init__(in_features * (1 + grid_size + order), out_features, eps=eps, device=device)
        self.in_features = in_features
        self.grid_size, self.order, self.reach = grid_size, order, float(reach)
        self.scale = torch.ones(out_features, device=device)
        self.norm_weight = torch.ones(in_features, device=device)

    @property
    def packed_shape(self) -> tuple[int, int]:
        """(O, I·F): the matrix of codes that is packed."""
        return self.out_features, self.in_features * (1 + self.grid_size + self.order)

    @classmethod
    def from_bit_kan(cls, layer: BitKAN) -> "PackedBitKAN":
        """The packed twin of a layer, on its device.

        Raises:
            TypeError: the layer is not a BitKAN.
            ValueError: its weights are not finite.
        """
        if not isinstance(layer, BitKAN):
            raise TypeError(f"only a BitKAN can be packed here, got a {type(layer).__name__}")
        scale = layer.output_scale()
        if not scale.isfinite().all():
            raise ValueError("weights hold NaN or infinity, which no ternary code can say")
        grid = {"grid_size": layer.grid_size, "order": layer.order, "reach": layer.reach}
        twin = cls(layer.in_features, layer.out_features, **grid, eps=layer.eps, device="meta")
        twin.packed, twin.scale = pack_ternary(layer.weight_codes()[0].flatten(1)), scale
        twin.norm_weight = layer.norm_weight.detach().clone()
        return twin.train(layer.training)

    @torch.no_grad()
    def _rows(self, x: Tensor) -> Tensor:
        """(N, I) → (N, O), float32."""
        if x.device.type == "cpu" and len(x) <= FEW_TOKENS and bit_kernel().name == "numba":
            y = x.new_empty(len(x), self.out_features)
            work = scratch(max(4 * len(self.packed), self.out_features))
            compiled(bit_kan_rows)(x.contiguous().numpy(), self.weights(), work, y.numpy())
            return y
        codes, finite = kan_input_codes(x, self.norm_weight, self.reach, self.eps)  # (N, I), (N, 1)
        features = self._table().to(x.device)[codes.int() + LARGEST_CODE].flatten(1)  # (N, I·F)
        matrix = unpack_ternary(self.packed, self.packed_shape)  # (O, I·F)
        if x.device.type != "cpu":
            with torch.autocast(x.device.type, enabled=False):
                sums = F.linear(features.float(), matrix.float())
        else:
            sums = torch._int_mm(features, matrix.T).float()
        return (sums * self.scale).masked_fill_(~finite, torch.nan)

    @torch.no_grad()
    def _input_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        """The gradient of the rows x (N, I), from that of what came of them, (N, O); both float32."""
        _, slopes, unit = kan_table(self.grid_size, self.order, self.reach)
        norm_weight = self.norm_weight.float()
        z, r = rms_normalise(x, norm_weight, self.eps)  # (N, I), (N, 1)
        codes, _ = round_inside(z, self.reach)
        matrix = unpack_ternary(self.packed, self.packed_shape).float()  # (O, I·F)
        grad_features = ((grad * (self.scale / unit)) @ matrix).unflatten(1, (self.in_features, -1))  # (N, I, F)
        grad_z = (grad_features * slopes.to(x.device)[codes.int() + LARGEST_CODE]).sum(-1)
        return rms_gradient(grad_z, x, r, norm_weight)

    def _table(self) -> Tensor:
        return kan_table(self.grid_size, self.order, self.reach).codes  # (255, F) int8

    def _bind(self) -> KANWeights:
        numbers = float32_numbers(1 / self.in_features, self.eps, 1, self.reach, LARGEST_CODE / self.reach)
        arrays = self.packed.contiguous(), self.norm_weight.float(), self.scale, self._table()
        return KANWeights(*(array.numpy() for array in arrays), *numbers)

    def extra_repr(self) -> str:
        return kan_repr(self)
