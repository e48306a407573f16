"""Alignment: assignment, symmetries, twins put back. Run: pytest tests/test_lmc_align.py"""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lmc_models import KINDS, batches, model
from scipy.optimize import linear_sum_assignment

from kancourse.gpt import MLP
from kancourse.lmc import align, error_barrier, loss_path, match, permute, random_permutations
from kancourse.lmc_assignment import assign
from kancourse.lmc_states import as_vector
from kancourse.lmc_symmetry import symmetries

ALIGNED = KINDS | {
    "rope-kan": {"ffn": "kan", "position": "rope", "norm": "rms"},
    "bit": {"ffn": "swiglu", "linear": "bit", "bias": False},
    "moe": {"ffn": "moe", "ffn_options": {"n_expert": 3, "top_k": 2}},
    "retention": {"mixer": "retention"},
}


def made(kind: str, seed: int = 0, **overrides):
    return model(seed=seed, n_embd=16, n_head=4, **(ALIGNED[kind] | overrides))


# --- the assignment ---


@given(st.integers(0, 40), st.integers(0, 10_000), st.sampled_from(["normal", "integers", "ties", "huge"]))
def test_assignment_equals_scipys(n, seed, how):
    draw = torch.Generator().manual_seed(seed)
    score = {
        "normal": lambda: torch.randn(n, n, generator=draw),
        "integers": lambda: torch.randint(-50, 50, (n, n), generator=draw).float(),
        "ties": lambda: torch.randint(0, 3, (n, n), generator=draw),
        "huge": lambda: 1e6 + torch.rand(n, n, generator=draw, dtype=torch.float64),
    }[how]()
    found = assign(score)
    assert sorted(found.tolist()) == list(range(n))
    rows, columns = linear_sum_assignment(score.double().numpy(), maximize=True)
    best = float(score.double()[rows, columns].sum())
    assert float(score.double()[torch.arange(n), found].sum()) == pytest.approx(best, abs=1e-8, rel=1e-12)


def test_assignment_by_trying_everything():
    score = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    best = max(itertools.permutations(range(6)), key=lambda p: float(score[range(6), p].sum()))
    assert assign(score).tolist() == list(best)


def test_assignment_of_a_hard_large_case():
    n = 200
    score = -(torch.arange(1, n + 1).double()[:, None] * torch.arange(1, n + 1).double())  # the classic worst case
    assert assign(score).tolist() == list(range(n - 1, -1, -1))


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (torch.zeros(2, 3), r"wants a square of scores, got shape \(2, 3\)"),
        (torch.tensor([[0.0, float("nan")], [1.0, 2.0]]), "finite scores"),
    ],
)
def test_scores_that_cannot_be_assigned(score, message):
    with pytest.raises(ValueError, match=message):
        assign(score)


# --- the symmetries ---


def shuffled(network, seed: int = 0, residual: bool = False):
    orders = random_permutations(network, torch.Generator().manual_seed(seed), residual=residual)
    return permute(network, network.state_dict(), orders, residual=residual), orders


RESIDUAL = [kind for kind in ALIGNED if kind not in ("moe",)]


@pytest.mark.parametrize(
    ("kind", "residual"), [*((kind, False) for kind in ALIGNED), *((kind, True) for kind in RESIDUAL)]
)
def test_places_may_be_changed(kind, residual):
    """In float64, so that a wrong axis cannot hide behind rounding. Bit layers compute in float32."""
    network = made(kind) if kind == "bit" else made(kind).double()
    twin = made(kind, seed=1) if kind == "bit" else made(kind, seed=1).double()
    state, orders = shuffled(network, residual=residual)
    twin.load_state_dict(state)
    changed = [name for name in state if not torch.equal(state[name], network.state_dict()[name])]
    assert len(changed) >= 2 * len(orders)
    for x, _ in batches():
        torch.testing.assert_close(twin(x), network(x), atol=1e-4 if kind == "bit" else 1e-11, rtol=0)


@pytest.mark.parametrize(
    ("kind", "residual"), [*((kind, False) for kind in ALIGNED), *((kind, True) for kind in RESIDUAL)]
)
def test_a_shuffled_twin_is_put_back_exactly(kind, residual):
    network = made(kind)
    state = network.state_dict()
    for seed in range(3):
        twin, orders = shuffled(network, seed, residual)
        back = align(network, state, twin, residual=residual)
        assert all(torch.equal(back[name], state[name]) for name in state)
        found = match(network, state, twin, residual=residual)
        for name, order in orders.items():
            assert torch.equal(order[found[name]], torch.arange(len(order))), name


@pytest.mark.parametrize("kind", ["gpt2", "llama", "kan-ffn"])
def test_a_shuffled_twin_has_a_barrier_that_alignment_removes(kind):
    network = made(kind)
    state = network.state_dict()
    twin, _ = shuffled(network)
    alphas = torch.linspace(0, 1, 5)
    data = batches((4, 12))
    naive = error_barrier(alphas, loss_path(network, state, twin, alphas, data))
    aligned = error_barrier(alphas, loss_path(network, state, align(network, state, twin), alphas, data))
    assert naive.linear > 0.01 or naive.dip < -0.01  # the way between is another function
    assert aligned.frankle == 0.0


@pytest.mark.parametrize("residual", [False, True])
def test_alignment_brings_strangers_nearer_and_changes_nothing_else(residual):
    first, second = made("gpt2").double(), made("gpt2", seed=1).double()
    a, b = first.state_dict(), second.state_dict()
    aligned = align(first, a, b, residual=residual)
    assert (as_vector(aligned) - as_vector(a)).norm() < (as_vector(b) - as_vector(a)).norm() - 1e-3
    assert as_vector(aligned).sort().values.equal(as_vector(b).sort().values)
    assert aligned["lm_head.weight"] is aligned["wte.weight"]
    probe = made("gpt2", seed=2).double()
    probe.load_state_dict(aligned)
    for x, _ in batches():
        torch.testing.assert_close(probe(x), second(x), atol=1e-11, rtol=0)


def test_alignment_is_worth_nothing_for_neighbours_and_does_no_harm():
    """Children of one initialisation: every unit is still most like itself."""
    network = made("gpt2")
    state = network.state_dict()
    near = {name: tensor + 1e-3 * torch.randn(tensor.shape) for name, tensor in state.items()}
    near["lm_head.weight"] = near["wte.weight"]
    for order in match(network, state, near).values():
        assert torch.equal(order, torch.arange(len(order)))


def test_an_elephants_widths_move_with_its_units():
    """A part of an ffn with a number per unit follows; one with a number for all stays."""

    class Scaled(MLP):
        def __init__(self, config, linear):
            super().__init__(config, linear)
            self.width = torch.nn.Parameter(torch.rand(self.c_proj.in_features))
            self.height = torch.nn.Parameter(torch.rand(()))

        def forward(self, x):
            return self.height * self.c_proj(torch.tanh(self.c_fc(x) * self.width))

    network = made("gpt2").double()
    for block in network.blocks:
        block.ffn = Scaled(network.config, torch.nn.Linear).double()
    state = network.state_dict()
    twin, _ = shuffled(network)
    assert not torch.equal(twin["blocks.0.ffn.width"], state["blocks.0.ffn.width"])
    x = batches()[0][0]
    before = network(x)
    network.load_state_dict(twin)
    torch.testing.assert_close(network(x), before, atol=1e-11, rtol=0)
    back = align(network, state, twin)
    assert all(torch.equal(back[name], state[name]) for name in state)
    network.blocks[0].ffn.width = torch.nn.Parameter(torch.rand(7))
    with pytest.raises(ValueError, match=r"blocks.0.ffn.width of shape \(7,\) is neither one per unit nor one for all"):
        symmetries(network)


def test_a_heads_order_is_no_matter_for_attention_and_is_for_retention():
    names = {kind: [group.name for group in symmetries(made(kind))] for kind in ("gpt2", "retention", "moe")}
    assert names["gpt2"] == ["blocks.0.mixer", "blocks.0.ffn", "blocks.1.mixer", "blocks.1.ffn"]
    assert names["retention"] == ["blocks.0.ffn", "blocks.1.ffn"]
    assert "blocks.0.ffn.experts.2" in names["moe"]


def test_bad_input_is_one_clear_error():
    network = made("gpt2")
    state = network.state_dict()
    with pytest.raises(ValueError, match=r"the model has no group 'blocks.9.ffn'; known: blocks.0.mixer, "):
        permute(network, state, {"blocks.9.ffn": torch.arange(4)})
    with pytest.raises(ValueError, match=r"the order of blocks.0.mixer must be a permutation of 0 to 3"):
        permute(network, state, {"blocks.0.mixer": torch.tensor([0, 1, 1, 3])})
    with pytest.raises(ValueError, match="how it meets the residual stream is not known here"):
        symmetries(made("moe"), residual=True)
    with pytest.raises(ValueError, match="A and B are of different architectures"):
        align(network, state, made("llama").state_dict())
    network.blocks[0].ffn.c_fc = torch.nn.Bilinear(2, 2, 2)
    with pytest.raises(ValueError, match=r"blocks.0.ffn.c_fc is a Bilinear, whose axes are not known here; known: Lin"):
        symmetries(network)
