"""A whole model on packed weights: every ternary layer replaced, and decoding by loops that do a whole part at a time.

Two ways to decode, with one contract (`step`) and one kind of state:

- **By modules.** `pack_linears` makes a twin of any model with a packed layer in the place of every `BitLinear` and
  `BitKAN`. All around them runs as it did, so the outputs equal the unpacked model's to the last bit.
- **By loops.** `PackedGPT` decodes single tokens with one call into machine code per mixer and feed-forward, sparing
  the dozens of small operators that a step otherwise consists of. Integer products, and what leads from an input to its
  codes, are the same to the last bit. The floats between them (heads, their norms, softmax, silu) are summed in another
  order, so that now and then a code falls to the other side of a half: logits differ as much as those of the unpacked
  model differ between reading a text token by token and in chunks. Parts without a loop run by modules, as prompts and
  batches do; `describe` says what runs how.

Papers: Ma et al. 2024, "The Era of 1-bit LLMs" [1]; Sun et al. 2023, "Retentive Network" [2].

Shapes: B batch, T tokens, C channels, H heads, D head dim, V vocabulary. Loops have B = T = 1.
"""

import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kancourse.attention import rope
from kancourse.bit_kan import BitKAN
from kancourse.bit_kernel import Turn
from kancourse.bit_kernel_choice import bit_kernel
from kancourse.bit_pack import PackedBitLinear
from kancourse.bitnet import BitLinear
from kancourse.gpt import GPT, DecodeState
from kancourse.packed_kan import PackedBitKAN
from kancourse.packed_loops import feed_forward_loop, mixer_loop
from kancourse.retention import MultiScaleRetention

PACKED_NAMES = {"bit": "packed", "binary": "packed", "bit_kan": "packed_bit_kan"}  # of parts in `zoo`

__all__ = ["PACKED_NAMES", "PackedGPT", "pack_linears", "packed_bytes"]


def pack_linears(model: nn.Module) -> nn.Module:
    """A twin of the model, in eval mode, with every `BitLinear` and `BitKAN` packed; the model itself stays as it is.

    A `config` that names such parts names the packed ones (`PACKED_NAMES`) in the twin, so `zoo.build` can rebuild it.

    Raises:
        ValueError: there is nothing to pack, or weights that are not finite.
    """
    twins = {id(m): PackedBitLinear.from_bit_linear(m) for m in model.modules() if isinstance(m, BitLinear)}
    twins |= {id(m): PackedBitKAN.from_bit_kan(m) for m in model.modules() if isinstance(m, BitKAN)}
    if not twins:
        raise ValueError(f"{type(model).__name__} has no BitLinear or BitKAN layers, so there is nothing to pack")
    twin = copy.deepcopy(model, twins).eval()  # a copy that takes the packed layers for copies of the others
    config = getattr(model, "config", None)
    if dataclasses.is_dataclass(config):
        seats = [seat for seat in ("linear", "head", "ffn") if getattr(config, seat, None) in PACKED_NAMES]
        changes: dict[str, Any] = {seat: PACKED_NAMES[getattr(config, seat)] for seat in seats}
        options = getattr(config, "ffn_options", {})
        if options.get("expert") in PACKED_NAMES:
            changes["ffn_options"] = options | {"expert": PACKED_NAMES[options["expert"]]}
        twin.config = dataclasses.replace(config, **changes)
    return twin


def packed_bytes(model: nn.Module, *, bits: float = 2) -> dict[str, int]:
    """Bytes of the weights once packed: `embedding`, `head` (0 when tied) and `body`; of a packed model or another.

    Ternary matrices count their packed form and four bytes for the scale, everything else as it is.
    """
    per_byte, total, seen = {2: 4, 1.6: 5}[bits], {"embedding": 0, "head": 0, "body": 0}, set()
    owners = dict(model.named_modules())
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        path, _, kind = name.rpartition(".")
        owner, size = owners[path], tensor.nbytes
        if isinstance(owner, BitLinear | BitKAN) and kind == "weight":  # a BitKAN has its scales besides
            size = _packed_size(tensor.flatten(1).shape, per_byte) + 4 * isinstance(owner, BitLinear)
        elif isinstance(owner, PackedBitLinear) and kind == "packed":
            size = _packed_size(owner.packed_shape, per_byte)
        seat = "embedding" if isinstance(owner, nn.Embedding) else "head" if path == "lm_head" else "body"
        total[seat] += size
    return total


class PackedGPT(nn.Module):
    """A packed GPT that decodes by loops where it can: `step`, `forward` and states as `GPT` has them, no training.

    Args:
        model: a GPT; packed here (as a twin) unless it is already.

    Raises:
        ValueError: a model without ternary layers.
    """

    def __init__(self, model: GPT) -> None:
        super().__init__()
        is_packed = any(isinstance(module, PackedBitLinear) for module in model.modules())
        self.model = model.eval() if is_packed else pack_linears(model)
        self.eval()
        self._loops = [(mixer_loop(block.mixer), feed_forward_loop(block.ffn)) for block in self.model.blocks]
        self._norms = [(_norm(block.ln_1), _norm(block.ln_2)) for block in self.model.blocks]
        self._keeps = any(isinstance(block.mixer, MultiScaleRetention) for block in self.model.blocks)
        self._turns = (range(0), [])  # positions, and the cosines and sines of each

    def __deepcopy__(self, memo: dict[int, Any]) -> "PackedGPT":
        return PackedGPT(copy.deepcopy(self.model, memo))

    config = property(lambda self: self.model.config)
    wte = property(lambda self: self.model.wte)
    context_limit = property(lambda self: self.model.context_limit)

    def train(self, mode: bool = True) -> "PackedGPT":
        """Always in eval mode.

        Raises:
            RuntimeError: training was asked for.
        """
        if mode:
            raise RuntimeError("packed weights cannot be trained: train the model they were packed from")
        return super().train(False)

    @torch.no_grad()
    def forward(self, idx: Tensor) -> Tensor:
        """Logits (B, T, V) of ids (B, T), by modules: bitwise those of the unpacked model."""
        return self.model(idx)

    def empty_state(self, batch_size: int = 1) -> DecodeState:
        """As `GPT.empty_state`."""
        return self.model.empty_state(batch_size)

    @torch.no_grad()
    def step(self, idx: Tensor, state: DecodeState | None = None) -> tuple[Tensor, DecodeState]:
        """As `GPT.step`: a single token goes by loops, anything else by modules.

        Raises:
            ValueError: as there, or a value that is not finite came up in a model whose state would keep it for ever.
        """
        if idx.shape != (1, 1) or state is None or self._why_not():
            return self.model.step(idx, state)
        limit = self.context_limit
        if limit is not None and state.length >= limit:
            raise ValueError(f"{state.length} tokens seen and 1 new do not fit the context of {limit}")
        x, turn, states = self.model._embed(idx, start=state.length), self._turn(state.length), []  # (1, 1, C)
        parts = zip(self.model.blocks, self._loops, self._norms, state.blocks, strict=True)
        for block, (mixer, ffn), (norm_1, norm_2), before in parts:
            h = norm_1(x) if norm_1 else x
            y, after = mixer(h, before, turn) if mixer else block.mixer.step(h, before)
            x = x + y
            x = x + (ffn or block.ffn)(norm_2(x) if norm_2 else x)
            states.append(after)
        if self._keeps and not math.isfinite(float(x.sum())):
            raise ValueError("a value that is not finite came up, which the state of retention would keep for ever")
        return self.model.lm_head(self.model.ln_f(x)), DecodeState(state.length + 1, states)

    def describe(self) -> str:
        """What decodes by loops, what by modules, and why."""
        if why := self._why_not():
            return f"by modules: {why}"
        counts: dict[str, Counter[str]] = {"by loops": Counter(), "by modules": Counter()}
        for block, loops_of in zip(self.model.blocks, self._loops, strict=True):
            for part, loop in zip((block.mixer, block.ffn), loops_of, strict=True):
                counts["by loops" if loop else "by modules"][type(part).__name__] += 1
        texts = {how: ", ".join(f"{n} × {name}" for name, n in count.items()) for how, count in counts.items()}
        return "; ".join(f"{how}: {text}" for how, text in texts.items() if text)

    def _why_not(self) -> str:
        """Why no loops can be used; "" when they can."""
        weight = self.wte.weight
        if bit_kernel().name != "numba":
            return f"the bit kernel is {bit_kernel().name} ({bit_kernel().reason})"
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            return f"loops are for float32 on a CPU, the model is {weight.dtype} on {weight.device.type}"
        return ""

    def _turn(self, position: int) -> Turn:
        """Cosines and sines of a position, from a stretch of positions computed at once."""
        positions, turns = self._turns
        if position not in positions:
            positions, half = range(position, position + 64), max(1, self.config.head_dim // 2)
            pairs = torch.cat((torch.ones(half), torch.zeros(half)))  # (1, 0), which is turned into (cos, sin)
            turned = rope(pairs.expand(1, 1, len(positions), -1), torch.tensor(positions))[0, 0]
            turns = [(row[:half], row[half:]) for row in turned.numpy()]
            self._turns = positions, turns
        return turns[position - positions.start]


def _packed_size(shape: Sequence[int], per_byte: int) -> int:
    return -(-shape[1] // per_byte) * shape[0]


def _norm(norm: nn.Module) -> nn.Module | None:
    return None if isinstance(norm, nn.Identity) else norm
