"""Meters against counts made by hand. Run: pytest tests/test_meters.py"""

import pytest
import torch

from kancourse.lab.meters import count_flops, count_parameters, peak_memory, saved_tensor_bytes
from kancourse.zoo import build


@pytest.mark.parametrize(("preset", "ffn_matrices"), [("gpt-micro", 2 * 4), ("llama-micro", 3 * 8 / 3)])
@pytest.mark.parametrize("T", [16, 100])
def test_flops_are_those_of_the_matrix_products(preset, ffn_matrices, T):
    C, L, V = 96, 3, 50  # 8C/3 is whole
    model = build(preset, n_embd=C, n_layer=L, n_head=4, vocab_size=V, block_size=128)
    per_token = L * (4 + ffn_matrices) * 2 * C * C + 2 * C * V
    attention = L * 2 * 2 * T * T * C  # scores, and the weighted sum of values
    assert count_flops(model, 2, T) == 2 * (per_token * T + attention)


def test_parameters_add_up():
    tied, untied = (build("gpt-nano", vocab_size=100, tie_head=tie) for tie in (True, False))
    for model in (tied, untied):
        counts = count_parameters(model)
        assert counts["total"] == sum(p.numel() for p in model.parameters())
        assert counts["total"] == counts["embedding"] + counts["head"] + counts["body"]
    assert count_parameters(tied)["head"] == 0
    assert count_parameters(untied)["head"] == 100 * 48
    assert count_parameters(tied)["embedding"] == (100 + 128) * 48


def test_kept_bytes_of_a_linear_layer_are_its_input():
    layer, x = torch.nn.Linear(30, 70), torch.randn(11, 30, requires_grad=True)
    assert saved_tensor_bytes(lambda: layer(x), ignore=layer) == 11 * 30 * 4
    assert saved_tensor_bytes(lambda: layer(x)) == 11 * 30 * 4 + 30 * 70 * 4


def test_a_storage_kept_twice_counts_once():
    x = torch.randn(1000, requires_grad=True)
    assert saved_tensor_bytes(lambda: x * x + x[:500].sum() ** 2) == 4000 + 4


def test_peak_memory_sees_what_is_released_again():
    def work() -> None:
        big = torch.ones(1_000_000)
        del big
        torch.ones(250_000)

    assert 4_000_000 <= peak_memory(work) < 4_100_000
    with pytest.raises(ValueError, match="measured on cpu and cuda, not on mps"):
        peak_memory(work, "mps")
