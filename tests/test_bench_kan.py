"""The benchmark of the KAN layers, on sizes that only show that it works. Run: pytest tests/test_bench_kan.py"""

import re

import pytest
import torch

from kancourse import kernel_choice
from kancourse.kan import KANLinear, kernel, naive_kan_linear
from kancourse.lab import bench_kan as module
from kancourse.lab.bench import BENCHES
from kancourse.lab.bench_kan import CASES, PEERS, Case, bench_kan
from kancourse.lab.usual_kan import UsualKANLinear

TINY = (Case(40, 3, 5), Case(50, 3, 5))


@pytest.fixture(autouse=True)
def _eager_only_and_no_peers(monkeypatch):
    monkeypatch.setattr(module, "missing_compiler", lambda: "there is no compiler today")
    monkeypatch.setattr(kernel_choice, "_chosen", kernel_choice.Kernel("eager", "a test"))
    monkeypatch.setattr(module, "PEERS", {"Nobody": ("no_such_module:Layer", "https://example.org")})
    monkeypatch.delenv("KANCOURSE_PEERS", raising=False)


@pytest.mark.parametrize("options", [{}, {"grid_size": 2, "order": 1, "grid_range": (-1.0, 2.0)}])
def test_the_usual_kind_is_the_same_layer_inside_the_grid(options):
    torch.manual_seed(0)
    usual, layer = UsualKANLinear(4, 3, **options), KANLinear(4, 3, **options)
    layer.base_weight.data = usual.base_weight.data
    layer.spline_weight.data = usual.spline_weight.data * usual.spline_scale.data[..., None]
    low, high = layer.grid_range
    x = low + (high - low) * torch.rand(60, 4)
    torch.testing.assert_close(usual(x), layer(x))
    torch.testing.assert_close(usual(x), naive_kan_linear(x, layer))
    assert torch.equal(usual.basis(torch.full((1, 4), 99.0)), torch.zeros(1, 4, layer.spline_weight.size(2)))


def test_it_says_what_it_keeps_how_fast_it_is_and_who_is_missing():
    lines = list(bench_kan(TINY, seconds=0.0))
    assert lines[0] == "kernels: eager (there is no compiler today)"
    assert lines[1] == "Nobody: not installed (https://example.org)"
    (kept,) = [line for line in lines if line.startswith("kept for backward, 3→5: KANLinear 1/")]
    assert int(re.search(r"KANLinear 1/(\d+)", kept)[1]) >= 50
    assert [line.split(":")[0] for line in lines if " tokens, " in line] == [
        "40 tokens, 3→5, 3 rounds",
        "50 tokens, 3→5, 3 rounds",
    ]
    assert re.fullmatch(
        r"  eager: nn.Linear \S+x, KANLinear \S+x, SharedKANLinear \S+x  \[wanted: KANLinear 3.5x\]", lines[-2]
    )
    assert re.fullmatch(r"SharedKANLinear takes \S+x as long as nn.Linear", lines[-1])
    assert kernel().name == "eager"


def test_ratios_are_medians_over_rounds_and_geometric_means_over_cases(monkeypatch):
    def rounds(contestants, case, seconds):
        slow = {40: (4.0, 4.0, 99.0), 50: (16.0, 0.1, 16.0)}[case.tokens]
        return [{entry: usual if entry.name == "the usual kind" else 2.0 for entry in contestants} for usual in slow]

    monkeypatch.setattr(module, "time_in_turn", rounds)
    assert "KANLinear 4.00x" in list(bench_kan(TINY))[-2]  # √(2 · 8)


def test_other_peoples_layers_take_part_when_they_can_be_imported(monkeypatch, tmp_path):
    (tmp_path / "a_peer.py").write_text("from torch.nn import Linear\nnothing = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("KANCOURSE_PEERS", "a_peer:Linear,bias=False")
    lines = list(bench_kan(TINY[:1], seconds=0.0))
    assert "a_peer:Linear,bias=False" in lines[-2]
    assert lines[-2].endswith("[wanted: KANLinear 3.5x, ahead of a_peer:Linear,bias=False]")
    for spec in ("a_peer", "a_peer:nothing", "a_peer:Missing", "a_peer:Linear,bias"):
        monkeypatch.setenv("KANCOURSE_PEERS", spec)
        with pytest.raises(ValueError, match=rf"named as module:Class.*{spec!r} leads to no class"):
            list(bench_kan(TINY[:1], seconds=0.0))


def test_the_sizes_and_the_peers_are_those_of_the_comparison():
    assert {(case.inputs, case.outputs) for case in CASES} == {(128, 512), (512, 128), (384, 1536)}
    assert {case.tokens for case in CASES} == {2048, 8192}
    assert list(PEERS) == ["FastKAN", "FasterKAN", "ChebyKAN"]
    assert BENCHES["kan"] is bench_kan
