"""The loss along a path: batched equals the loop. Run: pytest tests/test_lmc_path.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lmc_models import KINDS, batches, model

from kancourse.gpt import IGNORE
from kancourse.lab.meters import peak_memory
from kancourse.lmc import loss_path, naive_loss_path, score_path, score_points, soup
from kancourse.zoo import build

ALPHAS = [0.0, 0.2, 0.5, 0.55, 1.0]
BATCHED = ("gpt2", "llama", "untied")
OTHERS = {
    "bit": {"linear": "bit", "bias": False},
    "retention": {"mixer": "retention"},
    "moe": {"ffn": "moe", "ffn_options": {"n_expert": 4, "top_k": 2}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_loop(kind):
    a, b = model(kind).state_dict(), model(kind, seed=1).state_dict()
    want = naive_loss_path(model(kind, seed=2), a, b, ALPHAS, batches())
    for chunk_size in (1, 2, 3, 5, 99) if kind in BATCHED else (1, None):
        got = loss_path(model(kind, seed=3), a, b, ALPHAS, batches(), chunk_size=chunk_size)
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, want, atol=2e-6, rtol=1e-6)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 12), st.integers(1, 9))
def test_equals_the_loop_at_awkward_sizes(n_alphas, rows, tokens, chunk_size):
    a, b = model().state_dict(), model(seed=1).state_dict()
    alphas = torch.rand(n_alphas, generator=torch.Generator().manual_seed(rows), dtype=torch.float64)
    data = [*batches((rows, tokens), (1, 3)), *batches((2, 12), seed=4)]
    want = naive_loss_path(model(), a, b, alphas, data)
    got = loss_path(model(), a, b, alphas, data, chunk_size=chunk_size)
    torch.testing.assert_close(got, want, atol=2e-6, rtol=1e-6)


def test_in_float64_batched_and_loop_agree_to_the_last_digits():
    a, b = model().double().state_dict(), model(seed=1).double().state_dict()
    want = naive_loss_path(model().double(), a, b, ALPHAS, batches())
    # cross-entropies are summed in float32, as everywhere; the weights and logits are not the difference
    torch.testing.assert_close(loss_path(model().double(), a, b, ALPHAS, batches()), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", OTHERS)
def test_parts_that_cannot_be_batched_are_taken_one_at_a_time(name):
    a, b = (build("gpt-nano", vocab_size=17, block_size=12, seed=seed, **OTHERS[name]) for seed in range(2))
    probe = build(a.config, seed=2)
    want = naive_loss_path(probe, a.state_dict(), b.state_dict(), ALPHAS, batches())
    got = loss_path(probe, a.state_dict(), b.state_dict(), ALPHAS, batches())
    torch.testing.assert_close(got, want, atol=2e-6, rtol=1e-6)
    with pytest.raises(ValueError, match=r"chunk_size 2: a model with \w+ layers is evaluated one point at a time"):
        loss_path(probe, a.state_dict(), b.state_dict(), ALPHAS, batches(), chunk_size=2)


@torch.no_grad()
def test_ends_are_the_models_and_the_error_counts_wrong_tokens():
    first, second = model(), model(seed=1)
    scores = score_path(model(seed=5), first.state_dict(), second.state_dict(), [0, 0.5, 1], batches())
    for index, end in ((0, first), (2, second)):
        wrong, targets, total = 0, 0, 0.0
        for x, y in batches():
            logits, real = end(x), y != IGNORE
            wrong += int((logits.argmax(-1)[real] != y[real]).sum())
            targets += int(real.sum())
            total += float(end.loss(x, y)) * int(real.sum())
        assert scores.error[index] == pytest.approx(wrong / targets)
        assert scores.loss[index] == pytest.approx(total / targets, rel=1e-6)
    assert scores.row_targets.sum() == targets
    assert torch.equal(scores.alphas, torch.tensor([0, 0.5, 1], dtype=torch.float64))


def test_the_model_that_lends_its_architecture_is_left_as_it_was():
    probe = model(seed=7).train()
    before = {name: tensor.clone() for name, tensor in probe.state_dict().items()}
    loss_path(probe, model().state_dict(), model(seed=1).state_dict(), ALPHAS, batches(), chunk_size=2)
    assert probe.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in probe.state_dict().items())
    assert probe.lm_head.weight is probe.wte.weight


def test_dropout_is_off():
    a, b = model().state_dict(), model(seed=1).state_dict()
    noisy = model(dropout=0.5).train()
    want = loss_path(model(), a, b, ALPHAS, batches())
    assert torch.equal(loss_path(noisy, a, b, ALPHAS, batches()), want)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 7])
def test_a_model_with_itself_has_one_loss_to_the_last_bit(chunk_size):
    state = model().state_dict()
    twin = {name: tensor.clone() for name, tensor in state.items()}
    losses = loss_path(model(), state, twin, torch.linspace(0, 1, 7), batches(), chunk_size=chunk_size)
    assert len(set(losses.tolist())) == 1


def test_a_buffer_that_both_share_keeps_its_infinities():
    first, second, probe = model(), model(seed=1), model(seed=2)
    want = loss_path(probe, first.state_dict(), second.state_dict(), ALPHAS, batches())
    for made in (first, second, probe):
        made.register_buffer("mask", torch.full((3,), -torch.inf))
        made.register_buffer("seen", torch.tensor(5))
    got = loss_path(probe, first.state_dict(), second.state_dict(), ALPHAS, batches(), chunk_size=3)
    torch.testing.assert_close(got, want, atol=2e-6, rtol=0)


def test_rows_without_a_target_do_not_count():
    x, y = batches()[0]
    y[1:] = IGNORE
    a, b = model().state_dict(), model(seed=1).state_dict()
    scores = score_path(model(), a, b, ALPHAS, [(x, y)])
    assert scores.row_loss.shape == (5, 1)
    torch.testing.assert_close(scores.loss, loss_path(model(), a, b, ALPHAS, [(x[:1], y[:1])]), atol=2e-6, rtol=0)


def test_any_weighted_mean_can_be_scored():
    states = [model(seed=seed).state_dict() for seed in range(3)]
    weights = torch.tensor([[1.0, 0, 0], [0.2, 0.3, 0.5], [-0.5, 1.0, 0.5]])
    scores = score_points(model(), states, weights, batches(), chunk_size=3)
    blend = model()
    blend.load_state_dict(soup(states, [0.2, 0.3, 0.5]))
    for index, point in ((0, model()), (1, blend)):
        want = loss_path(model(), point.state_dict(), point.state_dict(), [0.0], batches())
        torch.testing.assert_close(scores.loss[index], want[0], atol=2e-6, rtol=0)


def test_memory_is_bounded():
    """The same call with a hundred points takes no more than with a few; the bound is an estimate, kept within 1.5."""
    sizes = {"vocab_size": 211, "block_size": 32, "n_embd": 48}
    probe, (a, b) = model(**sizes), (model(seed=seed, **sizes).state_dict() for seed in range(2))
    data, allowed = batches((8, 32), vocab_size=211), 3_000_000

    def peak(n_alphas: int, **options: int) -> int:
        return peak_memory(lambda: loss_path(probe, a, b, torch.linspace(0, 1, n_alphas), data, **options))

    everything = peak(101, chunk_size=101, memory=10**12)
    assert everything > 20 * allowed
    for n_alphas in (5, 101):
        assert peak(n_alphas, memory=allowed) < 1.5 * allowed
    split = loss_path(probe, a, b, ALPHAS, data, memory=1)  # a row and a point at a time
    torch.testing.assert_close(split, loss_path(probe, a, b, ALPHAS, data), atol=2e-6, rtol=0)


def test_bad_input_is_one_clear_error():
    a, b = model().state_dict(), model(seed=1).state_dict()
    nothing = [(torch.zeros(1, 3, dtype=torch.long), torch.full((1, 3), IGNORE))]
    for empty in ([], nothing):
        with pytest.raises(ValueError, match="the evaluation set is empty: no batch holds a target"):
            loss_path(model(), a, b, ALPHAS, empty)
    with pytest.raises(ValueError, match=r"alpha 1.5 lies outside \[0, 1\]"):
        loss_path(model(), a, b, [0.0, 1.5], batches())
    assert len(loss_path(model(), a, b, [0.0, 1.5], batches(), within=(0, 2))) == 2
    with pytest.raises(ValueError, match=r"2 models need weights of shape \(points, 2\), got \(0, 2\)"):
        loss_path(model(), a, b, [], batches())
    with pytest.raises(ValueError, match="chunk_size 0: it is at least 1"):
        loss_path(model(), a, b, ALPHAS, batches(), chunk_size=0)
    with pytest.raises(ValueError, match=r"state B is not of this model's architecture: it lacks blocks.1"):
        loss_path(model(), a, model(n_layer=1).state_dict(), ALPHAS, batches())
    with pytest.raises(ValueError, match=r"state A is not of this model's architecture: it also has blocks.1"):
        loss_path(model(n_layer=1), a, b, ALPHAS, batches())
    with pytest.raises(
        ValueError, match=r"state A is of another size than the model: wte.weight is \(17, 8\) in A, \(19"
    ):
        loss_path(model(vocab_size=19), a, b, ALPHAS, batches())
    untied = [model("untied", seed=seed).state_dict() for seed in range(2)]
    with pytest.raises(ValueError, match=r"lm_head.weight and wte.weight are one tensor, but A has two different ones"):
        loss_path(model(), *untied, ALPHAS, batches())
