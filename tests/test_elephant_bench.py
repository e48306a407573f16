"""The benchmark of elephants measures what it says, at small sizes."""

import re

import pytest

from kancourse.lab import bench_elephant as module
from kancourse.lab.bench import BENCHES


def test_it_tells_time_and_bytes_against_swiglu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BENCHES["elephant"] is module.bench_elephant
    monkeypatch.setattr(module, "CASES", ((32, 12),))
    lines = list(module.bench_elephant(pairs=1))
    assert len(lines) == 4
    found = [
        re.fullmatch(r".+, 32 tokens of 12: [\d.]+x SwiGLU's training step, ([\d.]+)x the bytes kept", line)
        for line in lines
    ]
    assert float(found[0][1]) == 1.0
    assert float(found[3][1]) > 1.2
