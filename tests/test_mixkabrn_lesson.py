"""Lesson 11: what its models cost, effects of a full design, and the checkpoint that comes with the course.

Run: pytest tests/test_mixkabrn_lesson.py
"""

import hashlib
from itertools import product

import pytest
import torch

from kancourse.lab.checkpoint_card import JUDGED, TRAINED, answers, card, checkpoint_path, quality
from kancourse.lab.factorial import effect, effects, predicted
from kancourse.lab.mixkabrn_costs import costs, grid_cells
from kancourse.lab.packed_file import load_packed
from kancourse.lab.probes import PROBES
from kancourse.lab.records import read_record
from kancourse.lab.run import plan
from kancourse.lab.sample import generate
from kancourse.lab.study import Study
from kancourse.packed import packed_bytes
from kancourse.paths import PACKAGE
from kancourse.zoo import build

RUNS = PACKAGE.parent / "notebooks" / "runs"
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


@pytest.mark.parametrize(
    "options",
    [
        {"ffn_options": EXPERTS},
        {"linear": "dense", "ffn": "swiglu", "ffn_options": {}},
        {"linear": "dense", "ffn": "swiglu", "ffn_options": {}, "mixer": "attention", "block_size": 8},
    ],
    ids=["packed", "by operators", "with a short context"],
)
def test_costs_are_measured_and_leave_the_model_as_it_was(options):
    model = build("mixkabrn-tiny", **SMALL | options).train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    told = PROBES["costs"](model, None, 0)
    assert PROBES["costs"] is costs
    assert set(told) == {"bytes", "tokens_per_second", "decoded"}
    assert told["bytes"] == sum(packed_bytes(model).values())
    if "linear" in options:
        assert told["bytes"] == 4 * sum(p.numel() for p in model.parameters())
    assert told["tokens_per_second"] > 0
    assert ("PyTorch" in told["decoded"]) == ("linear" in options)
    assert model.training
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


# --- the checkpoint ---


@pytest.fixture(scope="module")
def finished():
    return load_packed(checkpoint_path())[:2]


def test_the_checkpoint_writes_and_is_what_its_record_says(finished):
    model, tokenizer = finished
    trained, judged = read_record(TRAINED), read_record(JUDGED)
    assert hashlib.sha256(checkpoint_path().read_bytes()).hexdigest() == judged["sha256"]
    assert checkpoint_path().stat().st_size == judged["bytes"] < 1_000_000
    assert tokenizer.vocab_size == trained["corpus"]["tokenizer_vocab_size"] == model.config.vocab_size
    text = generate(model, "Tom found a", tokenizer=tokenizer, max_new_tokens=30, temperature=0.5)
    assert len(text.split()) > 5
    assert text == generate(model, "Tom found a", tokenizer=tokenizer, max_new_tokens=30, temperature=0.5)


def test_the_card_is_written_from_the_records():
    """Every figure in it: the card, made again, is the card that lies there."""
    told = checkpoint_path().with_suffix(".md").read_text(encoding="utf-8")
    assert told == card(read_record(TRAINED), read_record(JUDGED))


def test_judged_again_the_checkpoint_is_as_good_as_its_card_says(finished):
    """A tenth of the documents and of the questions; the thresholds are the course's own."""
    judged = read_record(JUDGED)
    told = quality(*finished, temperature=judged["best_temperature"], seed=7, n_documents=20)
    assert told["grammatical"] >= 0.9
    shares = answers(*finished, level=1, domains=("stories", "sums", "facts"), seed=7, n_questions=60)
    assert shares["model"] > shares["usual answer"] + 0.1


def test_quality_without_answers(finished):
    told = quality(*finished, temperature=0.0, seed=0, n_documents=1)
    assert told["grammatical"] > 0.5
    assert set(told) == {"grammatical", "consistent", "right"}


def test_a_prompt_with_a_word_it_does_not_have_is_refused(finished):
    model, tokenizer = finished
    with pytest.raises(ValueError, match="quantum"):
        generate(model, "The quantum ball", tokenizer=tokenizer, max_new_tokens=2)


# --- the run files ---


def test_the_run_files_are_well_formed():
    checkpoint = plan(RUNS / "mixkabrn_checkpoint.cpu.yaml").parameters
    assert read_record(TRAINED)["experiment"].items() >= checkpoint.items()
    scale = Study(**plan(RUNS / "mixkabrn_scale.cpu.yaml").parameters)
    assert scale.n_seeds >= 3
    assert scale.record == "mixkabrn_scale"
    kinds = {name.partition(",")[0] for name in scale.arms}
    assert kinds == {"plain", "mixkabrn"}
