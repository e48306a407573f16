"""Pauses: where they go, what is predicted where, what they cost. Run: pytest tests/test_pause.py"""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train import FAST, corpus

from kancourse.gpt import IGNORE
from kancourse.lab.meters import count_flops
from kancourse.lab.train import TrainConfig, train
from kancourse.pause import PausingGPT, insert_pauses, pause_positions
from kancourse.zoo import build

V = 17


def pausing(*, block_size: int = 8, every: int = 1, n: int = 1, vocab_size: int = V, **overrides) -> PausingGPT:
    inside = block_size + n * (block_size // every)
    sizes = {"vocab_size": vocab_size + 1, "block_size": inside, "n_layer": 2, "seed": 0}
    return PausingGPT(build("llama-nano", **sizes | overrides), block_size=block_size, every=every, n=n)


def text(n: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(V, (3, n + 1), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


def test_by_hand():
    idx, targets = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[2, 3, 4, 5, 6]])
    assert [t.tolist() for t in insert_pauses(idx, targets, 9)] == [
        [[1, 9, 2, 9, 3, 9, 4, 9, 5, 9]],
        [[-100, 2, -100, 3, -100, 4, -100, 5, -100, 6]],
    ]
    assert [t.tolist() for t in insert_pauses(idx, targets, 9, every=2, n=2)] == [
        [[1, 2, 9, 9, 3, 4, 9, 9, 5]],
        [[2, -100, -100, 3, 4, -100, -100, 5, 6]],
    ]
    assert [t.tolist() for t in insert_pauses(idx, targets, 9, n=0)] == [idx.tolist(), targets.tolist()]


@settings(max_examples=40)
@given(n_tokens=st.integers(1, 12), every=st.integers(1, 14), n=st.integers(0, 3), seed=st.integers(0, 9))
def test_nothing_is_lost_and_no_pause_is_ever_wanted(n_tokens, every, n, seed):
    idx = torch.randint(V, (2, n_tokens), generator=torch.Generator().manual_seed(seed))
    targets = idx.roll(-1, 1)
    paused, wanted = insert_pauses(idx, targets, V, every=every, n=n)
    assert paused.shape == wanted.shape == (2, n_tokens + n * (n_tokens // every))
    assert torch.equal(paused[paused != V], idx.flatten())
    assert torch.equal(wanted[wanted != IGNORE], targets.flatten())
    assert not (wanted == V).any()
    place, answer = pause_positions(n_tokens, every=every, n=n)
    assert torch.equal(paused[:, place], idx)
    assert ((answer - place == n) | (answer == place)).all()
    for row in range(2):  # a target is what the next token says, wherever the text is interrupted
        following = [*[int(t) for t in paused[row] if t != V][1:], int(targets[row, -1])]
        assert [int(t) for t in wanted[row] if t != IGNORE] == following


def test_padding_stays_padding():
    idx, targets = torch.tensor([[1, 2, 3]]), torch.tensor([[2, IGNORE, IGNORE]])
    _, wanted = insert_pauses(idx, targets, 9)
    assert wanted.tolist() == [[IGNORE, 2, IGNORE, IGNORE, IGNORE, IGNORE]]


@pytest.mark.parametrize(("every", "n"), [(1, 1), (3, 2), (100, 1)])
def test_loss_is_the_cross_entropy_of_forward(every, n):
    model, (x, y) = pausing(every=every, n=n), text()
    y = y.masked_fill(y == 3, IGNORE)
    torch.testing.assert_close(model.loss(x, y), F.cross_entropy(model(x).flatten(0, 1), y.flatten()))


def test_no_pauses_is_the_model_itself_and_pauses_are_causal():
    plain, (x, _) = pausing(n=0), text()
    torch.testing.assert_close(plain(x), plain.model(x))
    model, late = pausing(), x.clone()
    late[:, 5:] = (late[:, 5:] + 1) % V
    torch.testing.assert_close(model(late)[:, :5], model(x)[:, :5])
    assert not torch.allclose(model(late)[:, 5:], model(x)[:, 5:])


def test_the_trainer_trains_it_and_the_work_is_counted():
    data = corpus()
    model = pausing(block_size=16, vocab_size=data.tokenizer.vocab_size)
    plain = build("llama-nano", vocab_size=data.tokenizer.vocab_size + 1, block_size=16, n_layer=2, seed=0)
    assert count_flops(model, 1, 16) > 1.5 * count_flops(plain, 1, 16)  # the head's work is not doubled
    result = train(model, data, TrainConfig(**FAST | {"steps": 30, "eval_every": 15}))
    assert result.best_val_loss < result.history[0]["loss"]
    assert model.model.wte.weight.grad[model.pause_id].abs().max() > 0


def test_what_cannot_be_is_one_clear_error():
    with pytest.raises(
        ValueError, match="8 tokens and their pauses are 16 positions, more than the model's block_size 9"
    ):
        PausingGPT(build("llama-nano", block_size=9), block_size=8)
    with pytest.raises(ValueError, match="0 or more at a time; got every=0, n=1"):
        insert_pauses(*text(), V, every=0)
