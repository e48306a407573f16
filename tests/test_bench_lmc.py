"""The benchmark of mode connectivity measures what it says. Run: pytest tests/test_bench_lmc.py"""

import re

import pytest

from kancourse.lab.bench import BENCHES
from kancourse.lab.bench_lmc import bench_lmc, break_even


def test_every_line_has_its_ratio():
    assert BENCHES["lmc"] is bench_lmc
    lines = list(bench_lmc(names=("gpt-nano",), rows_of=(1, 2)))
    assert len(lines) == 4
    sizes = re.findall(r"(\d+): (\d+\.\d\d)x", lines[0])
    assert [int(tokens) for tokens, _ in sizes] == [32, 64]
    assert all(float(ratio) > 0 for _, ratio in sizes)
    assert float(sizes[0][1]) > 1  # on the smallest batch it pays, on any machine
    assert "break-even" in lines[1]
    assert re.search(r"aligning gpt-nano: \d+\.\d\dx", lines[3])


@pytest.mark.parametrize(
    ("ratios", "where"),
    [
        ([0.9, 0.5, 0.4], "below 32 tokens"),
        ([2.0, 0.5, 0.4], "at about 64 tokens"),  # half-way on logarithmic scales between 32 and 128
        ([4.0, 2.0, 0.5], "at about 256 tokens"),
        ([4.0, 2.0, 1.0], "at about 512 tokens"),
        ([4.0, 3.0, 2.0], "beyond 512 tokens"),
    ],
)
def test_where_it_breaks_even(ratios, where):
    assert break_even([32, 128, 512], ratios) == where
