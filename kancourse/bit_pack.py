"""Ternary weights at two bits each, or at five to a byte, and a layer that multiplies by them as they lie.

Notable points:
- Two bits hold one weight as its code plus one: 0, 1 or 2. A byte holds four weights of one output, and the bytes of
  all outputs lie side by side, so that one pass over a row of bytes adds four inputs to every output at once.
- Five weights are one number in base three, 3⁵ = 243 ≤ 256: 1.6 bits a weight, where log₂3 ≈ 1.585 is the least.
  That form is for files; what multiplies is the two-bit form.
- Sums of integers are exact in any order, and what comes before and after them has its order written down in
  `kancourse.bitnet`: `PackedBitLinear` gives the bits of the layer it was made from, whoever computes.
- Who computes is a choice made once and said (`bit_kernel`): Numba's compiled loops, where the extra `kancourse[fast]`
  is installed, or PyTorch's own operators.

Papers: Ma et al. 2024, "The Era of 1-bit LLMs" [1]; Wang et al. 2025, "Bitnet.cpp" (packed forms) [2].

Shapes: O outputs, I inputs, R rows of bytes (I/4 or I/5, rounded up), N tokens.
"""

import operator
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kancourse.bit_codes import LARGEST_CODE, LEAST, bit_input_codes, bit_product, rms_gradient, rms_normalise
from kancourse.bit_kernel import Weights, Work, bit_linear_rows, compiled, float32_numbers
from kancourse.bit_kernel_choice import bit_kernel

if TYPE_CHECKING:
    from kancourse.bitnet import BitLinear

__all__ = ["PackedBitLinear", "check_packed", "pack_ternary", "scratch", "unpack_ternary"]

FEW_TOKENS = 32  # up to here token by token; for more, the weights are unpacked to int8 once, for all of them
FORMS = {2: (4, 4), 1.6: (5, 3)}  # bits per weight -> weights in a byte, and the base of the number they make
ZEROS = 0b01010101  # four weights of zero

_scratch = threading.local()


def pack_ternary(codes: Tensor, *, bits: float = 2) -> Tensor:
    """Pack a matrix of −1, 0 and 1.

    Args:
        codes: (O, I), of any dtype.
        bits: 2 (four weights a byte) or 1.6 (five).

    Returns:
        uint8 (R, O). The first weight of a byte is its lowest digit; what I leaves unfilled is zeros.

    Raises:
        ValueError: codes other than −1, 0 and 1, another number of axes, or another number of bits.
    """
    count, base = _form(bits)
    if codes.ndim != 2:
        raise ValueError(f"codes must be a matrix (O, I), got shape {tuple(codes.shape)}")
    if not ((codes == -1) | (codes == 0) | (codes == 1)).all():
        raise ValueError("codes must be -1, 0 or 1; ternary_quantize makes such codes of real weights")
    digits = F.pad((codes.T.contiguous() + 1).to(torch.uint8), (0, 0, 0, -codes.size(1) % count), value=1)
    return sum(digits[position::count] * base**position for position in range(count))


def unpack_ternary(packed: Tensor, shape: Sequence[int], *, bits: float = 2) -> Tensor:
    """The inverse of `pack_ternary`.

    Args:
        packed: uint8 (R, O).
        shape: (O, I) of the codes.
        bits: the form they were packed in.

    Returns:
        int8 (O, I).

    Raises:
        ValueError: packed is not what codes of that shape make, or holds bytes that no codes make.
    """
    check_packed(packed, shape, bits=bits)
    return _unpack(packed, bits)[: shape[1]].T.contiguous()


def check_packed(packed: Tensor, shape: Sequence[int], *, bits: float = 2) -> None:
    """Raise ValueError unless packed is what `pack_ternary` could make of codes of that shape (O, I)."""
    count, base = _form(bits)
    outputs, inputs = shape
    expected = (-(-inputs // count), outputs)
    if packed.dtype != torch.uint8 or packed.shape != expected:
        found = f"{str(packed.dtype).removeprefix('torch.')} {tuple(packed.shape)}"
        raise ValueError(
            f"{outputs} × {inputs} weights at {bits} bits are uint8 {expected}, got {found}: "
            "cut short, or packed from another shape"
        )
    wrong = (packed & packed >> 1 & ZEROS) > 0 if base == 4 else packed >= base**count
    if wrong.any():
        raise ValueError(f"{int(wrong.sum())} bytes are not weights at {bits} bits: damaged, or packed in another form")


def _form(bits: float) -> tuple[int, int]:
    if bits not in FORMS:
        raise ValueError(f"ternary weights are packed at {' or '.join(map(str, FORMS))} bits, not at {bits}")
    return FORMS[bits]


def _unpack(packed: Tensor, bits: float = 2) -> Tensor:
    """(R, O) → int8 (R · weights per byte, O)."""
    count, base = FORMS[bits]
    if base == 4:
        digits = [packed >> 2 * position & 3 for position in range(count)]
    else:
        digits = [packed // base**position % base for position in range(count)]
    return torch.stack(digits, dim=1).flatten(0, 1).to(torch.int8).sub_(1)


class PackedBitLinear(nn.Module):
    """A `BitLinear` whose weights are fixed: the same outputs to the last bit, from a sixteenth of the bytes.

    Its weights cannot be trained; what stands before it can, as gradients pass to its input as `BitLinear` passes them.
    Made by `from_bit_linear`; made by itself, all its weights are zero, ready for `load_state_dict`.

    Args:
        in_features, out_features, bias, eps: as in `BitLinear`.
        device: where its buffers lie; "meta": nowhere, until a state is loaded with `assign=True`.

    Buffers: `packed` uint8 (I/4 rounded up, O), `scale` float32 (), `norm_weight` (I,).

    Raises:
        ValueError: as `BitLinear`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if bias:
            raise ValueError("PackedBitLinear has no bias; build it, or the model, with bias=False")
        if min(in_features, out_features) < 1:
            raise ValueError(f"PackedBitLinear needs sizes of at least 1, got {in_features} → {out_features}")
        self.in_features, self.out_features, self.eps = in_features, out_features, eps
        shape = -(-in_features // 4), out_features
        self.register_buffer("packed", torch.full(shape, ZEROS, dtype=torch.uint8, device=device))
        self.register_buffer("scale", torch.ones((), device=device))
        self.register_buffer("norm_weight", torch.ones(in_features, device=device))
        self._bound: tuple[tuple[Tensor, ...], Weights] | None = None

    @property
    def packed_shape(self) -> tuple[int, int]:
        """(O, I): the matrix of codes that is packed."""
        return self.out_features, self.in_features

    @classmethod
    def from_bit_linear(cls, layer: "BitLinear") -> "PackedBitLinear":
        """The packed twin of a layer, on its device.

        Raises:
            TypeError: the layer is not a BitLinear.
            ValueError: its weights are not finite.
        """
        from kancourse.bitnet import BitLinear  # which hands on the names of this module

        if not isinstance(layer, BitLinear):
            raise TypeError(f"only a BitLinear can be packed, got a {type(layer).__name__}")
        codes, scale = layer.weight_codes()
        if not scale.isfinite():
            raise ValueError("weights hold NaN or infinity, which no ternary code can say")
        twin = cls(layer.in_features, layer.out_features, eps=layer.eps, device="meta")
        twin.packed, twin.scale = pack_ternary(codes), scale.clone()
        twin.norm_weight = layer.norm_weight.detach().clone()
        return twin.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) → (..., O), as `BitLinear` in value and in the gradient of x.

        Raises:
            ValueError: another number of features.
            TypeError: x is not of a floating dtype.
        """
        if x.shape[-1:] != (self.in_features,):
            name = type(self).__name__
            raise ValueError(f"{name} takes {self.in_features} features on the last axis, got {(*x.shape,)}")
        if not x.is_floating_point():
            raise TypeError(f"{type(self).__name__} takes floating-point numbers, got {x.dtype}")
        rows = x.reshape(-1, self.in_features).float()
        y = _PackedProduct.apply(rows, self) if torch.is_grad_enabled() and x.requires_grad else self._rows(rows)
        return y.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    @torch.no_grad()
    def _rows(self, x: Tensor) -> Tensor:
        """(N, I) → (N, O), float32."""
        if x.device.type == "cpu" and len(x) <= FEW_TOKENS and bit_kernel().name == "numba":
            y = x.new_empty(len(x), self.out_features)
            work = scratch(max(4 * len(self.packed), self.out_features))
            compiled(bit_linear_rows)(x.contiguous().numpy(), self.weights(), work, y.numpy())
            return y
        codes, scale = bit_input_codes(x, self.norm_weight, self.eps)  # (N, I), (N, 1)
        matrix = _unpack(self.packed)  # (4R, O)
        codes = F.pad(codes, (0, len(matrix) - self.in_features))
        if x.device.type != "cpu":
            with torch.autocast(x.device.type, enabled=False):
                return bit_product(codes, scale, matrix.T, self.scale)
        return torch._int_mm(codes, matrix).float() * (scale * self.scale)

    @torch.no_grad()
    def _input_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        """The gradient of the rows x (N, I), from that of what came of them, (N, O); both float32."""
        matrix, norm_weight = _unpack(self.packed)[: self.in_features].float(), self.norm_weight.float()  # (I, O)
        r = rms_normalise(x, norm_weight, self.eps)[1]  # (N, 1)
        return rms_gradient((grad * self.scale) @ matrix.T, x, r, norm_weight)

    def weights(self) -> Weights:
        """What Numba's loops take: views of the buffers, made once for as long as these are the same tensors."""
        buffers = tuple(self._buffers.values())
        if self._bound is None or any(map(operator.is_not, buffers, self._bound[0])):
            self._bound = buffers, self._bind()
        return self._bound[1]

    def _bind(self) -> Weights:
        numbers = float32_numbers(1 / self.in_features, self.eps, 1, LARGEST_CODE, 1 / LARGEST_CODE, LEAST)
        arrays = self.packed.contiguous(), self.norm_weight.float(), self.scale.view(1)
        return Weights(*(array.numpy() for array in arrays), *numbers)

    @torch.no_grad()
    def scale_output_(self, factor: float) -> None:
        """Multiply the output."""
        self.scale.mul_(factor)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, eps={self.eps:g}"

    def _apply(self, fn: Any, recurse: bool = True) -> "PackedBitLinear":
        scale = self.scale
        super()._apply(fn, recurse)
        if not scale.is_meta:
            self.scale = scale.to(self.packed.device)  # a cast of the model would round it; it stays float32
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bound": None}  # a copy has buffers of its own


class _PackedProduct(torch.autograd.Function):
    """The rows of a packed layer; backward to the input alone, as if nothing had been rounded on the way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedBitLinear) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer = layer
        return layer._rows(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,), layer = ctx.saved_tensors, ctx.layer
        with torch.autocast(grad.device.type, enabled=False):
            return layer._input_gradient(x, grad), None


def scratch(size: int) -> Work:
    """This thread's scratch space, for layers of up to so many inputs and outputs."""
    if getattr(_scratch, "size", 0) < size:
        kinds = {"codes": torch.int16, "partial": torch.int16, "sums": torch.int32}
        arrays = {name: torch.empty(size, dtype=kinds.get(name, torch.float32)).numpy() for name in Work._fields}
        _scratch.size, _scratch.work = size, Work(**arrays)
    return _scratch.work
