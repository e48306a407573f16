"""Beside `grow`: a vocabulary that wakes up, what a model and its ancestors cost, grids that get finer."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_growth import T, V, change, load_twin, model_of, tokens

from kancourse.growth import (
    CurriculumHead,
    GenerationAdamW,
    Lineage,
    activate,
    activation_cost,
    flops_per_token,
    grow,
    refine_grids,
)
from kancourse.growth_vocabulary import naive_activation_cost
from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.corpus import load_corpus
from kancourse.lab.meters import count_flops
from kancourse.lab.optim import decay_groups
from kancourse.lab.sample import next_token_probabilities
from kancourse.lab.train import TrainConfig, train
from kancourse.zoo import ModelConfig, build

# --- a vocabulary that wakes up ---


def curriculum(n_active: int, **kind):
    return model_of({"head": "curriculum", "head_options": {"n_active": n_active}, "vocab_size": V} | kind)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.floats(0.1, 30), st.integers(0, 99))
def test_the_cost_of_waking_words_is_its_formula(n_positions, n_old, n_new, size, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = size * torch.randn(n_positions, n_old + n_new, generator=generator, dtype=torch.float64)
    targets = torch.randint(n_old, (n_positions,), generator=generator)
    want = naive_activation_cost(logits, targets, n_old)
    torch.testing.assert_close(activation_cost(logits, n_old), want, atol=1e-12, rtol=1e-9)
    by_hand = torch.log1p(logits[:, n_old:].exp().sum(1) / logits[:, :n_old].exp().sum(1)).mean()
    torch.testing.assert_close(activation_cost(logits, n_old), by_hand)
    assert activation_cost(logits, n_old + n_new) == 0


@pytest.mark.parametrize("tie", [True, False])
def test_the_loss_jumps_by_the_formula_when_words_wake(tie):
    model, idx, targets = curriculum(20, tie_head=tie), tokens(4, T, vocab_size=20), tokens(4, T, vocab_size=20, seed=1)
    before = model.loss(idx, targets).item()
    activate(model, 31)
    assert model.config.head_options == {"n_active": 31}
    jump = activation_cost(model(idx)[..., :31], 20).item()
    assert jump > 0.1
    assert model.loss(idx, targets).item() - before == pytest.approx(jump, abs=1e-12)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("new_rows", ["mean", "zero", "random"])
def test_so_it_does_when_the_vocabulary_grows(tie, new_rows):
    model, idx, targets = model_of({"tie_head": tie}), tokens(4, T), tokens(4, T, seed=1)
    grown = grow(model, vocab_size=50, new_rows=new_rows)
    jump = activation_cost(grown(idx), V).item()
    assert grown.loss(idx, targets).item() - model.loss(idx, targets).item() == pytest.approx(jump, abs=1e-12)
    if new_rows == "zero":  # Σ_new e^z is just how many they are
        by_hand = torch.log1p(13 / model(idx).exp().sum(-1)).mean().item()
        assert jump == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("tie", [True, False])
def test_sleeping_words_are_as_if_they_were_not_there(tie):
    model, idx, targets = curriculum(20, tie_head=tie), tokens(3, T, vocab_size=20), tokens(3, T, vocab_size=20, seed=1)
    small = build(ModelConfig(**model.config.to_dict() | {"vocab_size": 20, "head": "dense", "head_options": {}}))
    small = small.double().eval()
    state = {name: p[:20] if name in ("wte.weight", "lm_head.weight") else p for name, p in model.state_dict().items()}
    small.load_state_dict(state)
    logits = model(idx)
    torch.testing.assert_close(logits[..., :20], small(idx))
    assert torch.isneginf(logits[..., 20:]).all()
    assert next_token_probabilities(logits)[..., 20:].max() == 0
    loss = model.loss(idx, targets)
    torch.testing.assert_close(loss, small.loss(idx, targets))
    torch.testing.assert_close(model.loss(idx, targets, logit_budget=V * 5), loss)
    loss.backward()
    for p in model.parameters():
        assert p.grad.isfinite().all()
    assert model.lm_head.weight.grad[20:].abs().max() == 0
    assert flops_per_token(model) == flops_per_token(small) == count_flops(model, 1, T) / T


@pytest.mark.parametrize("n_active", [None, 20])
def test_a_model_whose_words_sleep_grows_too_and_new_words_sleep(n_active):
    model = model_of({"head": "curriculum", "head_options": {"n_active": n_active}})
    awake, idx = n_active or V, tokens(2, T, vocab_size=20)
    grown = grow(model, n_layer=3, n_head=3, vocab_size=50)
    assert torch.isneginf(grown(idx)[..., awake:]).all()
    torch.testing.assert_close(grown(idx)[..., :awake], model(idx)[..., :awake], atol=1e-12, rtol=0)
    assert torch.equal(load_twin(grown)(idx), grown(idx))


def test_rows_that_wake_count_their_own_steps(tmp_path):
    model = curriculum(20, tie_head=False).float()
    optimizer = GenerationAdamW(decay_groups(model, 0.0), lr=1e-2)
    idx, targets = tokens(2, T, vocab_size=20), tokens(2, T, vocab_size=20, seed=1)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(idx, targets).backward()
        optimizer.step()
    old = {key: value.clone() for key, value in optimizer.state[model.lm_head.weight].items()}
    activate(model, 30, optimizer=optimizer)
    for table in (model.wte.weight, model.lm_head.weight):
        state = optimizer.state[table]
        assert state["step"].tolist() == [3, 0]
        assert state["generation"].sum(1).tolist() == [0] * 20 + [16] * 10 + [0] * 7
    assert torch.equal(optimizer.state[model.lm_head.weight]["exp_avg"][:20], old["exp_avg"][:20])
    before = model.lm_head.weight.detach().clone()
    optimizer.zero_grad()
    model.loss(idx, tokens(2, T, vocab_size=30, seed=2)).backward()
    optimizer.step()
    moved = (model.lm_head.weight - before)[20:30].abs() / 1e-2
    assert moved.max() < 1.001  # a first step, not √10 of one
    loaded = load_checkpoint(save_checkpoint(tmp_path / "m.safetensors", model)).model
    assert loaded.lm_head.n_active == 30


def test_the_levels_of_microworld_are_such_a_curriculum():
    """One tokenizer from the start: the ids of a level are those of the next one's first words."""
    corpora = [load_corpus("microworld", level=level, tokenizer="words", n_documents=40) for level in (1, 2, 3)]
    vocabularies = [corpus.tokenizer.pieces for corpus in corpora]
    for small, large in itertools.pairwise(vocabularies):
        assert large[: len(small)] == small
        assert len(large) > 1.5 * len(small)
    sizes = [len(pieces) for pieces in vocabularies]
    config = {"vocab_size": sizes[-1], "block_size": 32, "n_layer": 1, "n_head": 2, "n_embd": 16}
    awake = build("gpt-nano", **config, head="curriculum", head_options={"n_active": sizes[0]}, seed=0)
    short = TrainConfig(steps=3, batch_size=2, eval_every=3, eval_batches=2, device="cpu")
    for corpus, size in zip(corpora, sizes, strict=True):
        activate(awake, size)
        result = train(awake, corpus, short)
        assert result.val_loss < 1.5 * torch.tensor(float(size)).log()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: CurriculumHead(4, 10, n_active=11), ValueError, "of 10 words 1 to 10 can be awake, got n_active=11"),
        (lambda: CurriculumHead(4, 10, n_active=0), ValueError, "of 10 words 1 to 10 can be awake, got n_active=0"),
        (lambda: activate(curriculum(20), 19), ValueError, "20 of 37 words are awake, and words only wake up; got"),
        (lambda: activate(curriculum(20), 38), ValueError, "20 of 37 words are awake, and words only wake up; got"),
        (lambda: activate(model_of({}), 30), TypeError, "with a CurriculumHead, this one's is a Linear"),
        (lambda: activation_cost(torch.zeros(2, 5), 6), ValueError, "of 5 words 1 to 5 were awake before, got n_old=6"),
    ],
)
def test_words_that_cannot_wake_are_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- what it cost ---


@pytest.mark.parametrize("kind", [{}, {"position": "rope", "ffn": "swiglu", "norm": "rms", "tie_head": False}])
def test_flops_are_pytorchs_own_count(kind):
    model = model_of(kind)
    for sizes in ({}, {"n_layer": 4}, {"n_head": 5, "ffn_dim": 201, "vocab_size": 61}):
        grown = grow(model, **sizes)
        assert count_flops(grown, 2, T) == 2 * T * flops_per_token(grown)
        assert count_flops(grown, 1, 5) == 5 * flops_per_token(grown, 5)
    with pytest.raises(TypeError, match="flops_per_token knows dense GPTs; this model has a KANLinear"):
        flops_per_token(build("kan-gpt-nano"))


def test_a_lineage_counts_every_ancestor():
    small = model_of({})
    large = grow(small, n_layer=5, n_head=4)
    lineage = Lineage()
    assert lineage.flops == lineage.tokens == lineage.parameters == 0
    lineage.add(small, tokens=1000)
    lineage.add(large, tokens=300)
    assert lineage.parameters == sum(p.numel() for p in large.parameters())
    assert lineage.tokens == 1300
    assert lineage.flops == 3 * (1000 * flops_per_token(small) + 300 * flops_per_token(large))
    told = lineage.to_dict()
    assert told["flops"] == sum(stage["flops"] for stage in told["stages"])
    with pytest.raises(ValueError, match=r"models grow: after one of [\d,]+ parameters came one of [\d,]+"):
        lineage.add(small, tokens=1)
    with pytest.raises(ValueError, match="0 tokens or more, got -1"):
        lineage.add(large, tokens=-1)


def test_a_lineages_flops_are_what_the_trainer_counts():
    corpus = load_corpus("microworld", tokenizer="words", n_documents=40)
    model = build("gpt-nano", vocab_size=corpus.tokenizer.vocab_size, block_size=16, n_layer=1, seed=0)
    lineage, total, config = (
        Lineage(),
        0.0,
        TrainConfig(steps=2, batch_size=2, eval_every=2, eval_batches=1, device="cpu"),
    )
    for sizes in ({}, {"n_layer": 2}):
        model = grow(model, **sizes)
        result = train(model, corpus, config)
        total += result.flops
        lineage.add(model, tokens=result.tokens)
    assert lineage.flops == total


# --- finer grids ---


@pytest.mark.parametrize(
    "seats",
    [
        {"ffn": "kan", "bias": True},
        {"ffn": "kan", "linear": "kan", "bias": False},
        {"head": "kan", "tie_head": False},
        {"ffn": "mlp", "linear": "shared_kan", "bias": False},
    ],
)
def test_finer_grids_are_the_same_function(seats, tmp_path):
    config = {"n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": V, "block_size": T, "ffn_dim": 6}
    model = build(ModelConfig(**config | seats), seed=0).double().eval()
    idx = tokens(2, T)
    fine = refine_grids(model, 15)
    assert change(model, fine, idx) <= 1e-12
    assert change(model, refine_grids(fine, 30), idx) <= 1e-12
    assert torch.equal(load_twin(fine)(idx), fine(idx))
    assert not any(key.endswith("_options") and value for key, value in model.config.to_dict().items())
    loaded = load_checkpoint(save_checkpoint(tmp_path / "m.safetensors", fine.float())).model
    assert change(model.float(), loaded, idx) <= 1e-5
    assert loaded.config == fine.config


def test_the_optimiser_goes_along_to_finer_grids():
    model = build("kan-gpt-nano", vocab_size=V, block_size=T, n_layer=1, ffn_dim=6, seed=0)
    optimizer = GenerationAdamW(decay_groups(model, 0.1), lr=1e-2)
    idx, told = tokens(2, T), []

    def step(model) -> None:
        optimizer.zero_grad()
        loss = model.loss(idx, idx)
        loss.backward()
        optimizer.step()
        told.append(loss.item())

    for _ in range(3):
        step(model)
    kept = optimizer.state[model.wte.weight]["exp_avg"]
    fine = refine_grids(model, 10, optimizer=optimizer)
    assert torch.equal(optimizer.state[fine.wte.weight]["exp_avg"], kept)
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(fine.parameters())
    for name, p in fine.named_parameters():
        is_spline = name.endswith("spline_weight")
        assert ("generation" in optimizer.state[p]) == is_spline
        assert optimizer.state[p]["step"].tolist() == ([0, 0] if is_spline else 3)
    for _ in range(3):
        step(fine)
    assert told == sorted(told, reverse=True)


def test_grids_that_cannot_be_refined_are_one_clear_error():
    with pytest.raises(ValueError, match="no KAN layer in this model, so no grid to refine"):
        refine_grids(model_of({}), 10)
    with pytest.raises(ValueError, match="multiple"):
        refine_grids(build("kan-gpt-nano", vocab_size=V, block_size=T, n_layer=1), 7)
