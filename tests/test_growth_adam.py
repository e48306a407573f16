"""The optimiser goes along: old moments bit for bit, new numbers with a count and a rate of their own."""

import itertools

import pytest
import torch
from test_growth import KINDS, T, V, change, model_of, tokens

from kancourse.growth import GenerationAdamW, grow
from kancourse.lab.checkpoint import load_checkpoint, restore_optimizer, save_checkpoint
from kancourse.lab.optim import decay_groups, make_adamw

MOMENTS = ("exp_avg", "exp_avg_sq")
ALL = {"n_layer": 3, "n_head": 3, "head_dim": 16, "ffn_dim": 200, "vocab_size": 41}


def optimizer_of(model, **options) -> GenerationAdamW:
    return GenerationAdamW(decay_groups(model, 0.1), lr=1e-2, betas=(0.9, 0.95), **options)


def train(model, optimizer, n_steps: int, *, seed: int = 0) -> None:
    for step in range(n_steps):
        optimizer.zero_grad()
        model.loss(tokens(2, T, seed=seed + step), tokens(2, T, seed=seed + step + 50)).backward()
        optimizer.step()


def old_places(model, grown, name: str) -> tuple[torch.Tensor, ...]:
    """Where the numbers of `name` lie in the grown model, worked out here anew: an index for `grown[name][...]`."""
    old, H, D, h = dict(model.named_parameters())[name], grown.config.n_head, grown.config.head_dim, 2
    places = [torch.arange(size) for size in old.shape]
    d = torch.arange(8)
    inside = d * 2 if grown.config.position == "rope" else d  # D = 16: old pair j is pair 2j, and 8 + 2j for its twin
    if "c_attn" in name:
        grid = torch.arange(3 * H * D).reshape(3, H, D)
        places[0] = torch.cat([grid[i, :h][:, (inside, inside, d)[i]].flatten() for i in range(3)])
    elif name.endswith("mixer.c_proj.weight"):
        places[1] = torch.arange(H * D).reshape(H, D)[:h, :8].flatten()
    return torch.meshgrid(*places, indexing="ij")


@pytest.mark.parametrize("kind", KINDS[::5], ids=str)
def test_old_moments_are_carried_bit_for_bit_and_new_ones_start_at_zero(kind):
    model = model_of(kind, dtype=torch.float32)
    optimizer = optimizer_of(model)
    train(model, optimizer, 3)
    before = {n: {k: v.clone() for k, v in optimizer.state[p].items()} for n, p in model.named_parameters()}
    grown = grow(model, **ALL, optimizer=optimizer)
    after = {n: optimizer.state[p] for n, p in grown.named_parameters()}
    assert len(optimizer.state) == len(after)
    for name, state in before.items():
        place = old_places(model, grown, name)
        for moment in MOMENTS:
            assert torch.equal(after[name][moment][place], state[moment]), (name, moment)
            rest = after[name][moment].clone()
            rest[place] = 0
            assert rest.abs().max() == 0, (name, moment)
        if "generation" in after[name]:
            want = torch.ones_like(after[name]["generation"])
            want[place] = 0
            assert torch.equal(after[name]["generation"], want), name
            assert after[name]["step"].tolist() == [3, 0]
        else:
            assert after[name]["step"] == 3
            assert after[name][MOMENTS[0]].shape == before[name][MOMENTS[0]].shape
    for name in after.keys() - before.keys():
        assert name.startswith("blocks.2.")
        assert after[name]["generation"].unique().tolist() == [1]
        assert all(after[name][moment].abs().max() == 0 for moment in MOMENTS)


@pytest.mark.parametrize("kind", KINDS[::7], ids=str)
def test_every_parameter_is_in_exactly_one_group_and_decays_as_its_kind_does(kind):
    model = model_of(kind)
    optimizer = optimizer_of(model)
    grown = grow(grow(model, n_layer=3, n_head=3, optimizer=optimizer), **ALL | {"n_layer": 5}, optimizer=optimizer)
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(grown.parameters())
    wanted = decay_groups(grown, 0.1)
    for have, want in zip(optimizer.param_groups, wanted, strict=True):
        assert set(have["params"]) == set(want["params"])
    before = [p.clone() for p in grown.parameters()]
    train(grown, optimizer, 2)
    assert all(not torch.equal(a, b) for a, b in zip(before, grown.parameters(), strict=True))


def test_without_growth_it_is_pytorchs_adamw():
    models = [model_of(KINDS[0], dtype=torch.float32) for _ in "ab"]
    train(models[0], make_adamw(models[0], lr=1e-2, beta1=0.9, beta2=0.95, weight_decay=0.1), 5)
    train(models[1], optimizer_of(models[1], fused=True), 5)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_adopted_it_goes_on_as_pytorchs_adamw_would_have():
    models = [model_of(KINDS[0], dtype=torch.float32) for _ in "ab"]
    optimizers = [make_adamw(m, lr=1e-2, beta1=0.9, beta2=0.95, weight_decay=0.1) for m in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, 3)
    train(models[0], optimizers[0], 3, seed=9)
    train(models[1], GenerationAdamW.adopt(optimizers[1]), 3, seed=9)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


@pytest.mark.parametrize("factors", [(), (0.3,), (0.3, 2.0)])
def test_each_generation_is_stepped_as_by_an_optimiser_of_its_own(factors):
    """A matrix of two generations, against two matrices with an AdamW each, on the same gradients."""
    from kancourse.growth_place import Axis, grown_state

    generator = torch.Generator().manual_seed(0)
    options = {"betas": (0.9, 0.999), "weight_decay": 0.1}
    old = torch.nn.Parameter(torch.randn(3, 4, generator=generator))
    rates = [1e-2 * factor for factor in (*factors, 1.0, 1.0)]
    first = torch.optim.AdamW([old], lr=rates[0], **options)
    for _ in range(50):
        old.grad = torch.randn(3, 4, generator=generator)
        first.step()

    new = torch.nn.Parameter(torch.randn(5, 4, generator=generator))
    second = torch.optim.AdamW([new], lr=rates[1], **options)
    both = torch.nn.Parameter(torch.cat((old, new)).detach().clone())
    joint = GenerationAdamW([both], lr=1e-2, **options)
    joint.state[both] = grown_state(dict(first.state[old]), old, 0, Axis.longer(3, 8), 1)
    joint.set_lr_factors(*factors)
    for step in range(10):
        both.grad = torch.randn(8, 4, generator=generator)
        old.grad, new.grad = both.grad[:3].clone(), both.grad[3:].clone()
        before = new.detach().clone()
        for optimizer in (first, second, joint):
            optimizer.step()
        torch.testing.assert_close(both, torch.cat((old, new)), atol=1e-6, rtol=1e-5)
        if step == 0:  # with the old count the first step would be √10 times as large
            assert ((both[3:] - before * (1 - 0.1 * rates[1])).abs() / rates[1]).max() < 1.001


def test_a_borrowed_count_makes_the_first_step_too_long():
    """What own counts are for: √10 learning rates instead of one, with Adam's usual betas and a long past."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=1.0, betas=(0.9, 0.999), weight_decay=0.0)
    empty = {name: torch.zeros(1) for name in MOMENTS}
    optimizer.state[parameter] = {"step": torch.tensor(20_000.0), **empty}
    parameter.grad = torch.ones(1)
    optimizer.step()
    assert -parameter.item() == pytest.approx(10**0.5, rel=1e-3)


def test_generations_add_up_and_have_rates_of_their_own():
    model = model_of({}, dtype=torch.float32)
    optimizer = optimizer_of(model)
    assert optimizer.n_generations == 1
    train(model, optimizer, 2)
    model = grow(model, n_head=3, optimizer=optimizer)
    train(model, optimizer, 3)
    model = grow(model, n_head=4, n_layer=3, optimizer=optimizer)
    assert optimizer.n_generations == 3
    assert optimizer.state[model.wte.weight]["step"].tolist() == [2 + 3, 3, 0]
    assert optimizer.state[model.blocks[2].ln_1.weight]["step"].tolist() == [0, 0, 0]

    optimizer.set_lr_factors(0.0, 0.0, 1.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, optimizer, 2)
    for name, p in model.named_parameters():
        is_last = optimizer.state[p]["generation"] == 2
        assert torch.equal(p[~is_last], before[name][~is_last]), name  # no rate, no decay either
    assert not torch.equal(model.wte.weight[:, 24:], before["wte.weight"][:, 24:])
    with pytest.raises(ValueError, match=r"3 generations take as many factors, none below 0; got \(1, 1, 1, 1\)"):
        optimizer.set_lr_factors(1, 1, 1, 1)
    with pytest.raises(ValueError, match="none below 0"):
        optimizer.set_lr_factors(-1)


@pytest.mark.parametrize("sizes", [{"n_layer": 3}, {"n_head": 3}, {"vocab_size": 50, "n_layer": 4}], ids=str)
def test_what_did_not_grow_itself_has_the_rate_of_its_generation(sizes):
    """Growing in depth leaves old blocks to PyTorch's AdamW; they are of the first generation all the same."""
    model = model_of({}, dtype=torch.float32)
    optimizer = optimizer_of(model)
    train(model, optimizer, 2)
    grown = grow(model, **sizes, optimizer=optimizer)
    optimizer.set_lr_factors(0.0, 1.0)
    before = {name: p.detach().clone() for name, p in grown.named_parameters()}
    rates = [group["lr"] for group in optimizer.param_groups]
    train(grown, optimizer, 2)
    assert [group["lr"] for group in optimizer.param_groups] == rates
    moved = 0
    for name, p in grown.named_parameters():
        is_old = optimizer.state[p].get("generation", torch.zeros_like(p)) == 0
        assert torch.equal(p[is_old], before[name][is_old]), name
        moved += int((p != before[name]).sum())
    assert moved > 0


def test_a_factor_halves_the_step_of_what_never_grew():
    model = model_of({}, dtype=torch.float32)
    steps = []
    for factor in (1.0, 0.5):
        optimizer = optimizer_of(model)
        grown = grow(model, n_layer=3, optimizer=optimizer)
        optimizer.set_lr_factors(factor, 1.0)
        before = grown.blocks[0].ffn.c_fc.weight.detach().clone()
        train(grown, optimizer, 1)
        steps.append(grown.blocks[0].ffn.c_fc.weight.detach() - before)
    torch.testing.assert_close(steps[1], 0.5 * steps[0], atol=1e-6, rtol=1e-4)


def test_growing_before_the_first_step():
    model = model_of({}, dtype=torch.float32)
    optimizer = optimizer_of(model)
    model = grow(model, **ALL, optimizer=optimizer)
    assert optimizer.state[model.wte.weight]["step"].tolist() == [0, 0]
    train(model, optimizer, 1)
    assert all(optimizer.state[p]["step"].max() == 1 for p in model.parameters())


def test_a_checkpoint_keeps_generations(tmp_path):
    """Saved, loaded and trained on, weights are what they are without the break."""
    model = model_of({}, dtype=torch.float32)
    optimizer = optimizer_of(model)
    train(model, optimizer, 2)
    model = grow(model, **ALL, optimizer=optimizer)
    train(model, optimizer, 2)
    checkpoint = load_checkpoint(save_checkpoint(tmp_path / "m.safetensors", model, optimizer=optimizer))
    again = optimizer_of(checkpoint.model)
    restore_optimizer(again, checkpoint.model, checkpoint.optimizer_state)
    assert again.n_generations == 2
    train(model, optimizer, 3, seed=7)
    train(checkpoint.model, again, 3, seed=7)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), checkpoint.model.parameters(), strict=True))


def test_its_own_state_dict_round_trips():
    model = model_of({}, dtype=torch.float32)
    optimizer = optimizer_of(model)
    model = grow(model, n_layer=3, n_head=3, optimizer=optimizer)
    train(model, optimizer, 2)
    optimizer.set_lr_factors(0.5)
    again = optimizer_of(model)
    again.load_state_dict(optimizer.state_dict())
    for p in model.parameters():
        assert again.state[p].keys() == optimizer.state[p].keys()
        assert all(torch.equal(again.state[p][key], value) for key, value in optimizer.state[p].items())
        assert "generation" not in again.state[p] or again.state[p]["generation"].dtype == torch.uint8
    assert again.param_groups[0]["lr_factors"] == [0.5]


def test_a_failed_growth_changes_nothing():
    model = model_of({}, dtype=torch.float32)
    optimizer = optimizer_of(model)
    train(model, optimizer, 1)
    listed, states = [list(g["params"]) for g in optimizer.param_groups], dict(optimizer.state)
    with pytest.raises(ValueError, match="can only grow"):
        grow(model, n_layer=3, n_head=1, optimizer=optimizer)
    assert [[id(p) for p in g["params"]] for g in optimizer.param_groups] == [[id(p) for p in ps] for ps in listed]
    assert dict(optimizer.state) == states
    train(model, optimizer, 1)


def test_the_loss_goes_on_where_it_was():
    """Growing in the midst of training costs nothing, and afterwards the loss falls as before."""
    model = model_of({}, dtype=torch.float32, size=0.02)
    optimizer, idx, targets = optimizer_of(model), tokens(4, T), tokens(4, T, seed=1)

    def losses(model, n_steps: int) -> list[float]:
        told = []
        for _ in range(n_steps):
            optimizer.zero_grad()
            loss = model.loss(idx, targets)
            loss.backward()
            optimizer.step()
            told.append(loss.item())
        return told

    first = losses(model, 15)
    grown = grow(model, n_layer=4, n_head=4, optimizer=optimizer, generator=torch.Generator().manual_seed(0))
    assert change(model, grown, idx) < 1e-5
    second = losses(grown, 15)
    assert second[0] < first[-1]
    assert second[-1] < second[0] - 0.1
    assert max(b - a for a, b in itertools.pairwise(second)) < 0.05


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m: torch.optim.AdamW(m.parameters()), TypeError, "GenerationAdamW, not AdamW; GenerationAdamW.adopt"),
        (lambda m: torch.optim.SGD(m.parameters()), TypeError, "GenerationAdamW, not SGD"),
        (lambda m: GenerationAdamW([m.wte.weight]), ValueError, "of the model's parameters are in none of its groups"),
        (lambda m: optimizer_of(model_of({})), ValueError, "are not the model's"),
    ],
)
def test_another_optimiser_is_one_clear_error(make, error, message):
    model = model_of({})
    with pytest.raises(error, match=message):
        grow(model, n_layer=3, optimizer=make(model))


def test_what_cannot_be_adopted_is_one_clear_error():
    weight = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(TypeError, match=r"only a torch.optim.AdamW can be adopted, got SGD"):
        GenerationAdamW.adopt(torch.optim.SGD([weight]))
    with pytest.raises(ValueError, match="an AdamW with amsgrad=True cannot be adopted; False can"):
        GenerationAdamW.adopt(torch.optim.AdamW([weight], amsgrad=True))


def test_a_closure_is_evaluated_once():
    model = model_of({}, dtype=torch.float32)
    optimizer, calls = optimizer_of(model), []
    model = grow(model, n_head=3, optimizer=optimizer)

    def closure() -> torch.Tensor:
        calls.append(1)
        optimizer.zero_grad()
        loss = model.loss(tokens(2, T), tokens(2, T, vocab_size=V, seed=1))
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > 0
    assert len(calls) == 1
