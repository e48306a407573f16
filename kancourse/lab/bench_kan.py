"""The KAN layers against the usual kind, `nn.Linear` and other people's layers: forward and backward, in float32.

- The usual kind, `UsualKANLinear`, is plain autograd through the recursion of Cox and de Boor, and a factor per spline.
- All contestants of a case run in turn, round after round, and a ratio is the median over rounds. Over cases ratios are
  averaged geometrically: twice as fast here and half as fast there is no difference.
- "compiled" is the kernel of that name for our layers (the first line says whether its sparse loops take part), and
  `torch.compile` of the whole layer for all others.
- Other people's layers take part when they can be imported: those of `PEERS`, and any more in the environment variable
  KANCOURSE_PEERS, as `module:Class`, or `module:Class,degree=7` with arguments after (in, out), separated by spaces.
"""

import ast
import importlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import geometric_mean, median

import torch
from torch import nn

from kancourse.kan import KANLinear, SharedKANLinear
from kancourse.kan_sparse import sparse_library
from kancourse.kernel_choice import kernel, missing_compiler, use_kernel
from kancourse.lab.meters import saved_tensor_bytes
from kancourse.lab.usual_kan import UsualKANLinear

__all__ = ["CASES", "PEERS", "Case", "bench_kan"]

MODES = ("eager", "compiled")
WANTED = {"eager": 3.5, "compiled": 5.5}  # times as fast as the usual kind
PEERS = {
    "FastKAN": ("fastkan:FastKANLayer", "https://github.com/ZiyaoLi/fast-kan"),
    "FasterKAN": ("fasterkan:FasterKANLayer", "https://github.com/AthanasiosDelis/faster-kan"),
    "ChebyKAN": ("ChebyKANLayer:ChebyKANLayer,degree=7", "https://github.com/SynodicMonth/ChebyKAN"),  # 8 functions
}

Make = Callable[[int, int], nn.Module]  # (in, out) -> layer


@dataclass(frozen=True)
class Case:
    """What a layer is timed on: x (tokens, inputs) → (tokens, outputs)."""

    tokens: int
    inputs: int
    outputs: int


CASES = tuple(Case(tokens, *shape) for tokens in (2048, 8192) for shape in ((128, 512), (512, 128), (384, 1536)))


@dataclass(frozen=True)
class Contestant:
    """A layer made by `make`, in one of the `MODES`; ours are compiled by their kernel."""

    name: str
    make: Make
    mode: str
    ours: bool

    def __str__(self) -> str:
        return self.name if self.mode == "eager" else f"{self.name} {self.mode}"


def bench_kan(cases: Iterable[Case] = CASES, *, seconds: float = 10.0) -> Iterator[str]:
    """Bytes kept for the backward pass, and speed, case by case and in the geometric mean.

    Args:
        cases: sizes.
        seconds: to spend on each case once everything is warm, or as many as three rounds take.

    Raises:
        ValueError: KANCOURSE_PEERS names what is no class.
    """
    cases, missing = tuple(cases), missing_compiler()
    modes = MODES[:1] if missing else MODES
    yield f"kernels: {' and '.join(modes)} ({missing or sparse_library()[1]})"
    ours: dict[str, Make] = {"KANLinear": KANLinear, "SharedKANLinear": SharedKANLinear}
    peers: dict[str, Make] = {}
    for name, (spec, address) in (PEERS | asked_for()).items():
        if importlib.util.find_spec(spec.partition(":")[0]) is None:
            yield f"{name}: not installed ({address})"
        else:
            peers[name] = load_peer(spec)

    for inputs, outputs in dict.fromkeys((case.inputs, case.outputs) for case in cases):
        usual = kept_bytes(UsualKANLinear, inputs, outputs)
        shares = [f"{name} 1/{usual / kept_bytes(make, inputs, outputs):.0f}" for name, make in (ours | peers).items()]
        yield f"kept for backward, {inputs}→{outputs}: {', '.join(shares)} of the usual kind's bytes  [wanted: 1/50]"

    contestants = [Contestant("the usual kind", UsualKANLinear, mode, False) for mode in modes]
    contestants += [Contestant("nn.Linear", nn.Linear, "eager", False)]
    for mode in modes:
        contestants += [Contestant(name, make, mode, True) for name, make in ours.items()]
        contestants += [Contestant(name, make, mode, False) for name, make in peers.items()]
    usual, linear, shared = contestants[0], contestants[len(modes)], Contestant(*ours.popitem(), modes[-1], True)
    speeds: dict[Contestant, list[float]] = {entry: [] for entry in contestants}  # as fast as the usual kind
    costs: list[float] = []  # of SharedKANLinear, in times nn.Linear
    for case in cases:
        rounds = time_in_turn(contestants, case, seconds)
        for entry in contestants:
            speeds[entry].append(median(times[usual] / times[entry] for times in rounds))
        costs.append(median(times[shared] / times[linear] for times in rounds))
        told = ", ".join(f"{entry} {values[-1]:.1f}x" for entry, values in speeds.items() if entry != usual)
        yield f"{case.tokens:,} tokens, {case.inputs}→{case.outputs}, {len(rounds)} rounds: {told}"

    yield "as fast as the usual kind, geometric mean over these:"
    for mode in modes:
        means = [f"{e.name} {geometric_mean(v):.2f}x" for e, v in speeds.items() if e.mode == mode and e != usual]
        ahead = "".join(f", ahead of {name}" for name in peers)
        yield f"  {mode}: {', '.join(means)}  [wanted: KANLinear {WANTED[mode]}x{ahead}]"
    wanted = "" if missing else "  [wanted: 2x at most]"
    yield f"{shared} takes {geometric_mean(costs):.2f}x as long as nn.Linear{wanted}"


def asked_for() -> dict[str, tuple[str, str]]:
    """What KANCOURSE_PEERS names, in the form of `PEERS`."""
    return {spec: (spec, "KANCOURSE_PEERS names it") for spec in os.environ.get("KANCOURSE_PEERS", "").split()}


def load_peer(spec: str) -> Make:
    """The factory that `module:Class,key=value…` describes.

    Raises:
        ValueError: another form, or the module has no such class.
    """
    place, *pairs = spec.split(",")
    module, _, name = place.partition(":")
    found = getattr(importlib.import_module(module), name, None) if name else None
    if not callable(found) or not all("=" in pair for pair in pairs):
        raise ValueError(f"a peer is named as module:Class or module:Class,key=value; {spec!r} leads to no class")
    return partial(found, **{key: ast.literal_eval(value) for key, _, value in (pair.partition("=") for pair in pairs)})


def kept_bytes(make: Make, inputs: int, outputs: int) -> int:
    """Bytes that autograd keeps for the backward pass of 1,024 tokens, parameters not counted."""
    layer, x = make(inputs, outputs), torch.randn(1024, inputs, requires_grad=True)
    return saved_tensor_bytes(lambda: layer(x), ignore=layer)


def time_in_turn(contestants: list[Contestant], case: Case, seconds: float) -> list[dict[Contestant, float]]:
    """Seconds for one forward and backward pass of each, round after round, after one to warm up."""
    x = torch.randn(case.tokens, case.inputs, requires_grad=True)
    direction = torch.randn(case.tokens, case.outputs)
    layers = {}
    for entry in contestants:
        layer = entry.make(case.inputs, case.outputs)
        layers[entry] = torch.compile(layer, dynamic=False) if entry.mode == "compiled" and not entry.ours else layer
    before, rounds, spent = kernel().name, [], 0.0
    try:
        while len(rounds) < 1 + 3 or spent < seconds:
            rounds.append({})
            for entry, layer in layers.items():
                use_kernel(entry.mode)
                wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
                start = time.perf_counter()
                torch.autograd.grad(layer(x), wanted, direction)
                rounds[-1][entry] = time.perf_counter() - start
            spent += sum(rounds[-1].values()) if len(rounds) > 1 else 0
    finally:
        use_kernel(before)
    return rounds[1:]
