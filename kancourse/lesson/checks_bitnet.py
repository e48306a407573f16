"""Exercises of lesson 05: codes of an input, codes of a matrix, the straight-through gradient, five trits in a byte,
and a hunt for four bugs.

Shapes: N tokens, I in_features, O out_features.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from kancourse.lesson.exercises import TODO, exercise


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _token_codes(x: Tensor, largest: Tensor, *, top: int = 127) -> tuple[Tensor, Tensor]:
    return (x * (top / largest)).round(), largest / top


def _upside_down(codes: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return codes, 1 / scale


@exercise(
    reference="kancourse.bit_codes.absmax_quantize",
    cases=lambda: [(_randn(3, 5),), (10 * _randn(2, 8, seed=1),)],
    mutants=(
        lambda x: _token_codes(x, x.abs().amax()),  # one scale for all tokens
        lambda x: _token_codes(x, x.amax(-1, keepdim=True)),  # the largest, not the largest in size
        lambda x: _upside_down(*_token_codes(x, x.abs().amax(-1, keepdim=True))),  # the scale to divide by
        lambda x: _token_codes(x, x.abs().amax(-1, keepdim=True), top=128),  # 128 does not fit in eight bits
    ),
)
def absmax_codes(x):
    return TODO


def _matrix_codes(w: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return (w / scale).round().clamp(-1, 1), scale


@exercise(
    reference="kancourse.bit_codes.ternary_quantize",
    cases=lambda: [(_randn(4, 6),), (0.1 * _randn(3, 9, seed=2),)],
    mutants=(
        lambda w: (w.sign(), w.abs().mean()),  # the binary step: no zeros
        lambda w: ((w / w.abs().mean()).round(), w.abs().mean()),  # not clipped
        lambda w: _matrix_codes(w, w.abs().amax()),  # nearly everything becomes zero
        lambda w: _upside_down(*_matrix_codes(w, w.abs().mean())),  # the scale to divide by
    ),
)
def ternary_codes(w):
    return TODO


def _gradient_cases() -> Iterator[tuple]:
    x, grad, w = _randn(5, 4, seed=3), _randn(5, 3, seed=4), _randn(3, 4, seed=5)
    yield grad, x, w
    yield _randn(2, 6, seed=6), _randn(2, 2, seed=7), torch.tensor([[3.0, 0.01]] * 6)


def _rounded(w: Tensor) -> Tensor:
    codes, scale = _matrix_codes(w, w.abs().mean())
    return codes * scale


@exercise(
    reference="kancourse.lesson.answers.straight_through",
    cases=_gradient_cases,
    mutants=(
        lambda grad, x, w: (grad @ w, grad.T @ x),  # as if the matrix had never been rounded
        lambda grad, x, w: (grad @ _rounded(w), (grad.T @ x) * (_rounded(w) != 0)),  # zeroed weights never come back
        lambda grad, x, w: (grad @ _rounded(w), torch.zeros_like(w)),  # the true derivative of rounding
    ),
)
def straight_through(grad, x, w):
    return TODO


def _trit_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(8)
    yield (torch.tensor([[1, 0, -1, 1, 1]]),)
    yield (torch.randint(-1, 2, (6, 5), generator=generator),)


def _in_base(codes: Tensor, base: int) -> Tensor:
    return ((codes + 1) * base ** torch.arange(5)).sum(-1)


@exercise(
    reference="kancourse.lesson.answers.pack_trits",
    cases=_trit_cases,
    mutants=(
        lambda codes: _in_base(codes, 2),  # two different codes, one number
        lambda codes: _in_base(codes, 4),  # does not fit in a byte
        lambda codes: (codes * 3 ** torch.arange(5)).sum(-1),  # negative bytes
        lambda codes: _in_base(codes.flip(-1), 3),  # read from the other end
    ),
)
def pack_trits(codes):
    return TODO


def _hunt_cases() -> Iterator[tuple]:
    yield _randn(4, 6, seed=9), _randn(3, 6, seed=10)
    louder = _randn(4, 6, seed=11)
    louder[2] *= 30
    yield louder, 0.1 * _randn(5, 6, seed=12) + 0.05


def _hunted(
    x: Tensor, w: Tensor, *, together: bool = False, normed: bool = True, binary: bool = False, upside: bool = False
) -> Tensor:
    z = x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() if normed else x
    codes, scale = _token_codes(z, z.abs().amax() if together else z.abs().amax(-1, keepdim=True))
    w_codes, w_scale = (w.sign(), w.abs().mean()) if binary else _matrix_codes(w, w.abs().mean())
    return (codes @ w_codes.T) * scale * (1 / w_scale if upside else w_scale)


@exercise(
    reference="kancourse.lesson.answers.repaired_bit_linear",
    cases=_hunt_cases,
    mutants=(
        lambda x, w: _hunted(x, w, together=True, normed=False, binary=True, upside=True),  # as it was found
        lambda x, w: _hunted(x, w, together=True),
        lambda x, w: _hunted(x, w, normed=False),
        lambda x, w: _hunted(x, w, binary=True),
        lambda x, w: _hunted(x, w, upside=True),
    ),
)
def repaired_bit_linear(x, w):
    return TODO
