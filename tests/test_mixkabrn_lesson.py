"""Lesson 11: what its models cost, effects of a full design, and the checkpoint that comes with the course.

Run: pytest tests/test_mixkabrn_lesson.py
"""

from itertools import product

import pytest
import torch

from kancourse.lab.factorial import effect, effects, predicted
from kancourse.lab.mixkabrn_costs import IDEAS, active_parameters, costs, grid_cells, ideas_of, stored_bytes
from kancourse.lab.probes import PROBES
from kancourse.zoo import PRESETS, build

SMALL = {"vocab_size": 50, "n_embd": 16, "n_head": 2, "n_layer": 2, "block_size": 32, "seed": 0}
EXPERTS = {"expert": "bit_kan", "expert_dim": 4, "n_expert": 4, "top_k": 2, "n_shared": 1}


# --- effects ---


def test_effects_are_differences_of_means():
    cells = torch.arange(16.0).view(2, 2, 2, 2)
    assert effect(cells, [0]) == 8
    assert effect(cells, [3]) == 1
    assert effect(cells, [0, 1]) == 0  # a sum of effects has no interactions
    cells[1, 1] += 4
    assert effect(cells, [0, 1]) == 2  # half of 4 − 0
    assert effect(cells, [0]) == 8 + 2


def test_all_effects_give_back_every_cell():
    cells = torch.randn(2, 2, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(predicted(cells, most=3), cells)
    assert not torch.allclose(predicted(cells, most=1), cells)
    told = effects(cells, ("a", "b", "c"), most=3)
    assert list(told) == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")]
    assert told["b",].shape == (3,)
    by_hand = (cells[:, 1] - cells[:, 0]).mean((0, 1))
    assert torch.allclose(told["b",], by_hand)


@pytest.mark.parametrize("ideas", [[], [0, 0], [2], [-1]])
def test_an_effect_is_of_different_ideas(ideas):
    with pytest.raises(ValueError, match="different ideas among 0 to 1"):
        effect(torch.zeros(2, 2), ideas)


def test_a_design_has_every_combination():
    values = {ideas: [float(sum(ideas)), 1.0] for ideas in product((False, True), repeat=2)}
    assert grid_cells(values)[1, 1].tolist() == [2, 1]
    del values[True, False]
    with pytest.raises(ValueError, match="has 4 combinations of as many seeds each, got 3"):
        grid_cells(values)
    with pytest.raises(ValueError, match="an axis of two per idea in front"):
        effect(torch.zeros(3, 2), [0])
    with pytest.raises(ValueError, match="1 names for 2 ideas"):
        effects(torch.zeros(2, 2), ["a"])


# --- costs ---


def test_which_ideas_a_model_has():
    assert IDEAS == ("bit", "retention", "experts", "KAN")
    told = {name: ideas_of(PRESETS[name]) for name in ("llama-nano", "bit-llama-nano", "retnet-nano", "moe-nano")}
    assert told == {
        "llama-nano": (False, False, False, False),
        "bit-llama-nano": (True, False, False, False),
        "retnet-nano": (False, True, False, False),
        "moe-nano": (False, False, True, False),
    }
    assert ideas_of(PRESETS["mixkabrn-tiny"]) == (True, True, True, True)
    assert ideas_of(PRESETS["kan-gpt-nano"]) == (False, False, False, True)


def test_active_parameters_by_hand():
    model = build("mixkabrn-tiny", **SMALL, ffn_options=EXPERTS)
    expert = sum(p.numel() for p in model.blocks[0].ffn.experts[0].parameters())
    total = sum(p.numel() for p in model.parameters())
    assert active_parameters(model) == total - 2 * 2 * expert  # two layers, two experts of four visited
    dense = build("llama-nano", **SMALL)
    assert active_parameters(dense) == sum(p.numel() for p in dense.parameters())


def test_stored_bytes_by_hand():
    dense = build("llama-nano", **SMALL)
    assert stored_bytes(dense) == 2 * active_parameters(dense)
    ternary = build("bit-llama-nano", **SMALL)
    matrices = [p for name, p in ternary.named_parameters() if p.dim() == 2 and name.startswith("blocks")]
    weights = sum(p.numel() for p in matrices)
    assert stored_bytes(ternary) == -(-weights // 4) + 2 * (active_parameters(ternary) - weights)


@pytest.mark.parametrize(
    "options",
    [{"ffn_options": EXPERTS}, {"linear": "dense", "ffn": "swiglu", "ffn_options": {}}],
    ids=["packed", "by operators"],
)
def test_costs_are_measured_and_leave_the_model_as_it_was(options):
    model = build("mixkabrn-tiny", **SMALL, **options).train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    told = PROBES["costs"](model, None, 0)
    assert PROBES["costs"] is costs
    assert set(told) == {"active_parameters", "stored_bytes", "tokens_per_second", "decoded"}
    assert told["tokens_per_second"] > 0
    assert ("PyTorch" in told["decoded"]) == ("linear" in options)
    assert model.training
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
