"""The trainer: resumes to the bit, accumulates exactly, stops on validation. Run: pytest tests/test_train.py"""

import itertools
import math
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from kancourse.gpt import GPT, GPTConfig
from kancourse.lab.checkpoint import load_checkpoint
from kancourse.lab.corpus import Corpus
from kancourse.lab.schedule import SCHEDULES, learning_rate
from kancourse.lab.tokenizers import ByteTokenizer
from kancourse.lab.tokens import TokenArray
from kancourse.lab.train import BEST, LATEST, TrainConfig, train
from kancourse.zoo import build


def corpus(n_documents: int = 60, seed: int = 0) -> Corpus:
    """Short documents over a few letters, with something to learn: each letter is followed by the next or itself."""
    draw = np.random.default_rng(seed)
    tokenizer = ByteTokenizer()

    def documents() -> list[list[int]]:
        found = []
        for _ in range(n_documents):
            letter, text = int(draw.integers(6)), ""
            for _ in range(int(draw.integers(5, 30))):
                text += "abcdef"[letter]
                letter = (letter + int(draw.integers(2))) % 6
            found.append(tokenizer.encode(text))
        return found

    splits = [
        TokenArray.from_documents(documents(), eot_id=tokenizer.eot_id, vocab_size=tokenizer.vocab_size)
        for _ in range(2)
    ]
    return Corpus(
        name="letters",
        licence="ours",
        source={"seed": seed},
        note="",
        tokenizer=tokenizer,
        train=splits[0],
        val=splits[1],
    )


def model(**overrides):
    sizes = {"vocab_size": 257, "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16, "seed": 0}
    return build("gpt-nano", **(sizes | overrides))


FAST = {"steps": 12, "batch_size": 8, "warmup": 2, "eval_every": 4, "eval_batches": 2, "device": "cpu"}


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def comparable(history: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def test_it_learns_and_validation_comes_near_the_training_loss():
    m = model()
    result = train(m, corpus(), TrainConfig(**(FAST | {"steps": 150, "lr": 1e-2, "eval_every": 50})))
    assert result.history[0]["loss"] == pytest.approx(math.log(257), abs=0.1)
    assert result.val_loss < 1.5
    assert result.steps == 150
    assert result.tokens == 150 * 8 * 16
    assert not m.training


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [4, 7])
def test_a_run_that_died_resumes_to_the_same_bits(tmp_path, stop_at):
    """Dropout on, so random state matters; the crash falls on and between validations."""
    settings = FAST | {"checkpoint_minutes": 0.0}
    whole = model(dropout=0.2)
    want = train(whole, corpus(), TrainConfig(**settings, out_dir=str(tmp_path / "whole")))

    def die(row):
        if row["step"] == stop_at + 1:  # the checkpoint of step `stop_at` exists; this step's does not yet
            raise Stop

    folder = str(tmp_path / "parts")
    with pytest.raises(Stop):
        train(model(dropout=0.2), corpus(), TrainConfig(**settings, out_dir=folder), on_step=die)
    torch.manual_seed(12345)  # whatever the new session's random state is
    resumed = model(dropout=0.2, seed=99)
    got = train(resumed, corpus(), TrainConfig(**settings, out_dir=folder))
    assert same_weights(whole, resumed)
    assert comparable(got.history) == comparable(want.history)
    assert (got.best_val_loss, got.best_step) == (want.best_val_loss, want.best_step)
    best = [load_checkpoint(tmp_path / part / BEST).model for part in ("whole", "parts")]
    assert same_weights(*best)


def test_a_finished_run_is_not_run_again(tmp_path):
    settings = TrainConfig(**FAST, out_dir=str(tmp_path))
    first = train(model(), corpus(), settings)
    seen = []
    again = train(model(seed=5), corpus(), settings, on_step=seen.append)
    assert seen == []
    assert comparable(again.history) == comparable(first.history)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 1e-4}, "is of a run with lr 0.003, this one has 0.0001: choose another out_dir, or resume=False"),
        ({"steps": 13}, "is of a run with steps 12, this one has 13"),
    ],
)
def test_another_runs_checkpoint_is_refused(tmp_path, change, message):
    train(model(), corpus(), TrainConfig(**FAST, out_dir=str(tmp_path)))
    with pytest.raises(ValueError, match=message):
        train(model(), corpus(), TrainConfig(**(FAST | change), out_dir=str(tmp_path)))
    with pytest.raises(ValueError, match="n_layer 2, this one has 1"):
        train(model(n_layer=1), corpus(), TrainConfig(**FAST, out_dir=str(tmp_path)))
    with pytest.raises(ValueError, match="source"):
        train(model(), corpus(seed=1), TrainConfig(**FAST, out_dir=str(tmp_path)))
    fresh = train(model(), corpus(), TrainConfig(**(FAST | change), out_dir=str(tmp_path), resume=False))
    assert fresh.history[0]["step"] == 1


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_accumulated_gradients_equal_the_big_batch(micro_batch):
    runs = []
    for micro in (None, micro_batch):
        m = model().double()
        train(m, corpus(), TrainConfig(**FAST, micro_batch=micro))
        runs.append(m)
    for a, b in zip(runs[0].parameters(), runs[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_accumulation_in_float32_equals_the_big_batch_to_1e_6():
    from kancourse.lab.device import pick_device
    from kancourse.lab.optim import make_adamw
    from kancourse.lab.train import _Loss, _optimizer_step

    x, y = corpus().sampler(16, 8, seed=0).batch(0)
    y[0, 3:] = -100  # micro-batches with unequal numbers of targets, which a plain mean of means gets wrong
    gradients = []
    for micro in (None, 3):
        m = model()
        config = TrainConfig(**FAST, micro_batch=micro, grad_clip=0.0)
        optimizer = make_adamw(m, lr=1e-3, beta1=0.9, beta2=0.95, weight_decay=0.0)
        _optimizer_step(_Loss(m), optimizer, x, y, 1e-3, 0, config, pick_device("cpu"))
        gradients.append([p.grad.clone() for p in m.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_stops_on_validation_not_on_the_noise_of_a_batch():
    m = model()
    settings = FAST | {"steps": 400, "eval_every": 10, "patience": 3, "lr": 3e-2, "eval_batches": None}
    tiny = corpus(n_documents=4)  # so few documents that training longer means learning them by heart
    result = train(m, tiny, TrainConfig(**settings))
    assert result.stopped == "patience"
    assert result.steps == result.best_step + 30
    losses = [row["val_loss"] for row in result.history if "val_loss" in row]
    assert min(losses) == result.best_val_loss < losses[-1]


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train(model(dropout=0.1), corpus(), TrainConfig(**FAST))
    assert torch.equal(before, torch.get_rng_state())


def test_seeds_change_data_order_and_dropout():
    ends = [train(model(), corpus(), TrainConfig(**FAST, seed=seed)).val_loss for seed in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]


def test_a_loss_that_is_not_finite_stops_with_one_sentence():
    m = model()
    with pytest.raises(FloatingPointError, match=r"gradient norm .* at step \d+, .*: try a lower lr"):
        train(m, corpus(), TrainConfig(**(FAST | {"lr": 1e30, "grad_clip": 0.0, "warmup": 0})))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"micro_batch": 0}, "micro_batch must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"weight_decay_until": 1.5}, "weight_decay_until is a fraction of the steps, 0 to 1, got 1.5"),
        ({"schedule": "linear"}, "unknown schedule 'linear'; known: cosine, wsd, two_stage, constant"),
    ],
)
def test_bad_settings_are_one_clear_error(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


def test_a_vocabulary_that_does_not_fit_is_one_clear_error():
    with pytest.raises(ValueError, match="the tokenizer has 257 tokens, the model's vocab_size is 200"):
        train(model(vocab_size=200), corpus(), TrainConfig(**FAST))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_start_rise_and_end_where_they_say(schedule):
    config = TrainConfig(steps=100, warmup=10, lr=1.0, final_lr_ratio=0.1, schedule=schedule)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == 1.0
    assert max(rates) == 1.0
    assert rates[99] == pytest.approx({"constant": 1.0, "two_stage": 0.067}.get(schedule, 0.1))
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))


CHILD = """
    import sys
    sys.path.insert(0, {tests!r})
    from test_train import FAST, TrainConfig, corpus, model, train

    def tell(row):
        print(row["step"], flush=True)

    settings = FAST | {{"steps": 100_000, "eval_every": 1000}}
    train(model(), corpus(), TrainConfig(**settings, out_dir={out!r}), on_step=tell)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_first(tmp_path, number):
    code = textwrap.dedent(CHILD).format(tests=os.path.dirname(__file__), out=str(tmp_path))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        for _ in range(5):
            child.stdout.readline()
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == (-2 if number == signal.SIGINT else 143), errors
    saved = load_checkpoint(tmp_path / LATEST).train_state["result"]
    assert saved["steps"] >= 5
    assert saved["stopped"] == ""


def test_two_stages_fall_straight_and_step_down_half_way():
    config = TrainConfig(steps=101, warmup=0, lr=1.0, final_lr_ratio=0.0, schedule="two_stage", stage_ratio=0.5)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[:50] == pytest.approx([1 - step / 100 for step in range(50)])
    assert rates[50:] == pytest.approx([0.5 * (1 - step / 100) for step in range(50, 101)])


def test_weights_decay_until_they_are_told_to_stop():
    """With a vanishing gradient (every target ignored but one token's) decay alone would shrink the unused rows."""

    def norm_after(until):
        m = model(tie_head=False)
        train(m, corpus(), TrainConfig(**FAST, lr=0.01, weight_decay=1.0, weight_decay_until=until))
        return m.wte.weight[200:250].norm().item()  # bytes that never occur: no gradient, so only decay moves them

    start = model(tie_head=False).wte.weight[200:250].norm().item()
    assert norm_after(0.0) == start
    assert norm_after(1.0) < norm_after(0.5) < start


class Counting(torch.nn.Module):
    """A feed-forward with an auxiliary loss and something to do after each step."""

    def __init__(self, config, linear):
        super().__init__()
        self.c_proj = linear(config.n_embd, config.n_embd, bias=config.bias)
        self.pull = torch.nn.Parameter(torch.ones(()))
        self.steps = 0

    def forward(self, x):
        return self.c_proj(x)

    def auxiliary_loss(self):
        return 10.0 * self.pull**2 if self.training else None

    def after_step(self):
        self.steps += 1


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_auxiliary_losses_train_but_are_not_reported(micro_batch):
    m, plain = (
        GPT(GPTConfig(vocab_size=257, block_size=16, n_layer=2, n_head=2, n_embd=16), ffn=Counting) for _ in range(2)
    )
    plain.load_state_dict(m.state_dict())
    for block in plain.blocks:
        block.ffn.auxiliary_loss = lambda: None
    settings = TrainConfig(**FAST, micro_batch=micro_batch, weight_decay=0.0, grad_clip=0.0)
    result, without = train(m, corpus(), settings), train(plain, corpus(), settings)
    assert [block.ffn.steps for block in m.blocks] == [12, 12]
    assert all(block.ffn.pull < 0.99 for block in m.blocks)
    assert all(block.ffn.pull == 1.0 for block in plain.blocks)
    assert [row["loss"] for row in result.history] == [row["loss"] for row in without.history]


def test_a_run_left_off_on_purpose_goes_on_to_the_same_bits(tmp_path):
    whole, parts = model(dropout=0.2), model(dropout=0.2)
    want = train(whole, corpus(), TrainConfig(**FAST))
    settings = TrainConfig(**FAST, out_dir=str(tmp_path))
    for until in (5, 5, 9):  # again where it stands: nothing happens
        got = train(parts, corpus(), settings, until=until)
        assert (got.steps, got.stopped) == (until, "")
        assert len(load_checkpoint(tmp_path / LATEST).train_state["result"]["history"]) == until
    got = train(model(seed=5, dropout=0.2), corpus(), settings)
    assert got.stopped == "finished"
    assert comparable(got.history) == comparable(want.history)
    resumed = load_checkpoint(tmp_path / LATEST).model
    assert same_weights(whole, resumed)
