"""The two memory laws, held against what a training step really takes. Run: pytest tests/test_memory.py"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kancourse.kan import KANLinear
from kancourse.lab.memory import (
    LOGIT_COPIES,
    SOURCE,
    SOURCE_BATCH,
    SOURCE_COPIES,
    USUAL_KEPT,
    lean_memory,
    measure_lean,
    measure_naive_swap,
    naive_swap,
    naive_swap_memory,
    naive_swap_parameters,
)
from kancourse.lab.meters import saved_tensor_bytes
from kancourse.lab.usual_kan import UsualKANLinear
from kancourse.zoo import ModelConfig, build, configure

TOLERANCE = 0.15  # how far a law may lie from the measurement, relative to it


def sizes(vocab_size: int, block_size: int, n_embd: int, n_head: int, n_layer: int) -> ModelConfig:
    return configure(
        "kan-gpt-nano",
        vocab_size=vocab_size,
        block_size=block_size,
        n_embd=n_embd,
        n_head=n_head,
        n_layer=n_layer,
    )


@pytest.mark.parametrize(
    ("batch_size", "config"),
    [
        (4, sizes(500, 32, 24, 3, 2)),  # the layers' activations dominate
        (4, sizes(200, 64, 48, 6, 3)),
        (2, sizes(10_000, 64, 16, 2, 1)),  # the logits
        (2, sizes(4000, 128, 24, 3, 2)),  # activations, weights and logits alike
        (4, sizes(50, 256, 8, 8, 2)),  # the squares of attention
    ],
)
def test_the_law_of_the_naive_swap(batch_size, config):
    config = replace(config, dropout=0.1)  # as in minGPT
    measured = measure_naive_swap(config, batch_size)
    assert naive_swap_memory(config, batch_size).total == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("batch_size", "config", "logit_budget"),
    [
        (16, sizes(4000, 128, 24, 3, 2), 2**18),  # scratch and activations
        (16, sizes(5000, 128, 48, 3, 3), 2**24),  # all logits at once
        (8, sizes(20_000, 128, 48, 3, 1), 2**22),  # logits in chunks, and the weights
        (16, sizes(100, 64, 96, 4, 2), 2**24),
        (32, sizes(2000, 64, 48, 3, 3), 2**18),
    ],
)
def test_the_law_of_ours(batch_size, config, logit_budget):
    measured = measure_lean(config, batch_size, logit_budget=logit_budget)
    assert lean_memory(config, batch_size, logit_budget=logit_budget).total == pytest.approx(measured, rel=TOLERANCE)


@settings(max_examples=8)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 40), st.sampled_from([0, 1]))
def test_what_the_blocks_keep_is_what_the_law_says(n_head, n_layer, block_size, more):
    config = sizes(50, block_size, 16 * n_head, n_head, n_layer)
    model, idx = build(config, seed=0), torch.zeros(1 + more, block_size, dtype=torch.long)
    kept = saved_tensor_bytes(lambda: model.hidden(idx), ignore=model)
    grids = 2 * 4 * n_layer * 7 * config.n_embd  # the ends of every input's grid, whatever the number of tokens
    per_token = n_layer * (12 * config.n_embd + n_head + 4) + config.n_embd + 2  # and of the last norm
    ids = 2 * idx.numel() + 2 * block_size  # numbers of 8 bytes
    assert kept <= 4 * (idx.numel() * per_token + ids) + grids
    assert kept >= 4 * idx.numel() * per_token


def test_the_usual_layer_keeps_what_the_law_says_and_computes_what_ours_does():
    torch.manual_seed(0)
    layer, x = UsualKANLinear(32, 8, grid_range=(-1.0, 1.0)), (2 * torch.rand(50, 32) - 1).requires_grad_()
    kept = saved_tensor_bytes(lambda: layer(x), ignore=layer) / x.numel()
    assert kept == pytest.approx(USUAL_KEPT, rel=0.02)
    ours = KANLinear(32, 8, grid_range=(-1.0, 1.0))
    with torch.no_grad():
        ours.base_weight.copy_(layer.base_weight)
        ours.spline_weight.copy_(layer.spline_weight * layer.spline_scale[..., None])
    torch.testing.assert_close(ours(x), layer(x), atol=1e-5, rtol=1e-4)
    before = layer(x)
    layer.scale_output_(0.5)
    torch.testing.assert_close(layer(x), before / 2)


@pytest.mark.parametrize(
    ("name", "without_head", "with_head"),
    [("nano 128", 3.25, 27.37), ("micro 128", 14.32, 78.64), ("mini 128", 36.22, 132.71)],
)
def test_parameters_are_those_the_source_printed_and_those_it_left_out(name, without_head, with_head):
    counts = naive_swap_parameters(SOURCE[name][0])
    assert (counts["total"] - counts["head"]) / 1e6 == pytest.approx(without_head, abs=0.005)
    assert counts["total"] / 1e6 == pytest.approx(with_head, abs=0.005)


def test_parameters_by_arithmetic_are_those_of_the_model():
    for config, _ in SOURCE.values():
        with torch.device("meta"):
            model = naive_swap(config)
        assert naive_swap_parameters(config)["total"] == sum(p.numel() for p in model.parameters())


def test_the_six_configurations_fit_the_source_and_ours_take_less_than_a_sixth():
    assert len(SOURCE) == 6
    for name, (config, reported) in SOURCE.items():
        if reported is not None:
            on_a_gpu = naive_swap_memory(config, SOURCE_BATCH, logit_copies=SOURCE_COPIES)
            assert on_a_gpu.gigabytes == pytest.approx(reported, rel=0.12), name
        naive = naive_swap_memory(config, SOURCE_BATCH, logit_copies=LOGIT_COPIES)
        assert lean_memory(config, SOURCE_BATCH).total < naive.total / 6, name


def test_twice_the_block_takes_twice_the_activations():
    short, long = (naive_swap_memory(SOURCE[f"nano {n}"][0], SOURCE_BATCH) for n in (128, 256))
    assert (long.activations, long.logits) == (2 * short.activations, 2 * short.logits)
    assert long.attention == 4 * short.attention
