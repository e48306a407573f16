"""The benchmark of retention measures what it says. Run: pytest tests/test_bench_retention.py"""

import pytest
import torch

from kancourse.lab.bench import BENCHES
from kancourse.lab.bench_retention import bench_retention, decode, seen_state, state_bytes, training_step
from kancourse.lab.timing import time_ratio
from kancourse.zoo import build


def test_a_state_made_up_for_timing_has_the_shape_and_place_of_a_real_one():
    for name in ("retnet-nano", "llama-nano"):
        model = build(name, vocab_size=30, block_size=64, seed=0).eval()
        made = seen_state(model, 40)
        with torch.no_grad():
            _, real = model.step(torch.zeros(1, 40, dtype=torch.long))
        assert made.length == real.length == 40
        assert [block.length for block in made.blocks] == [40] * 3
        assert state_bytes(made) == state_bytes(real)
        decode(model, made, 2)


def test_the_state_is_a_matrix_per_head_and_the_cache_two_vectors_per_token():
    sizes = {"vocab_size": 30, "block_size": 64, "seed": 0}
    retention, attention = build("retnet-nano", **sizes), build("llama-nano", **sizes)
    for n in (1, 64):
        assert state_bytes(seen_state(retention, n)) == 4 * 3 * 48 * 16  # layers, C, head_dim
        assert state_bytes(seen_state(attention, n)) == 4 * 3 * 2 * 48 * n


def test_a_training_step_has_gradients_for_every_parameter():
    model = build("retnet-nano", vocab_size=30, block_size=64, seed=0)
    training_step(model, torch.zeros(1, 64, dtype=torch.long))
    assert all(p.grad is not None for p in model.parameters())


def test_decoding_far_into_a_text_costs_what_it_costs_near_its_beginning():
    assert BENCHES["retention"] is bench_retention
    model = build("retnet-nano", vocab_size=30, block_size=64, seed=0).eval()
    near, far = (seen_state(model, n) for n in (128, 100_000))
    assert time_ratio(lambda: decode(model, far), lambda: decode(model, near), pairs=15) == pytest.approx(1.0, abs=0.5)
