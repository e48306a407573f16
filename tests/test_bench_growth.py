"""The benchmark of growth measures what it says, at small sizes."""

import re

import pytest

from kancourse.lab import bench_growth as module
from kancourse.lab.bench import BENCHES


def test_it_tells_the_cost_of_growing_of_the_optimiser_and_of_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BENCHES["growth"] is module.bench_growth
    monkeypatch.setattr(module, "SIZES", {"n_layer": 1, "vocab_size": 64, "block_size": 128})
    monkeypatch.setattr(module, "GROWTHS", {"depth": {"n_layer": 2}, "words": {"vocab_size": 70}})
    monkeypatch.setattr(module, "CASES", ((64, 16, 32),))
    lines = list(module.bench_growth(batch_size=1, pairs=1))
    assert len(lines) == 4
    assert re.fullmatch(r"depth: growing takes as long as [\d.]+ steps of training \(128 tokens\) before it", lines[0])
    assert re.fullmatch(r"the optimiser after a growth in width: [\d.]+x .* the whole step, [\d.]+x", lines[2])
    assert re.match(r"GrowableLinear 16→32, three generations, 64 tokens: [\d.]+x as long as nn.Linear", lines[3])
