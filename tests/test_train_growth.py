"""Growth inside a run: the function is kept, costs add up, it resumes. Run: pytest tests/test_train_growth.py"""

import math

import pytest
from test_train import FAST, comparable, corpus, model, same_weights

from kancourse.growth import GenerationAdamW
from kancourse.lab.checkpoint import load_checkpoint
from kancourse.lab.evaluate import evaluate
from kancourse.lab.experiment import Experiment, run_experiment
from kancourse.lab.meters import count_flops
from kancourse.lab.train import LATEST, TrainConfig, train

EVENTS = [{"step": 5, "n_layer": 3, "ffn_dim": 80}, {"step": 9, "n_head": 3, "lr_factors": [0.5]}]


@pytest.mark.parametrize("until", [4, 5, 6, 9, 10])
def test_a_grown_run_goes_on_to_the_same_bits(tmp_path, until):
    """Left off before, at and after each growth."""
    whole = model(dropout=0.1)
    want = train(whole, corpus(), TrainConfig(**FAST, growth=EVENTS))
    assert (whole.config.n_layer, whole.config.n_head, whole.config.n_embd) == (3, 3, 24)
    settings = TrainConfig(**FAST, growth=EVENTS, out_dir=str(tmp_path))
    train(model(dropout=0.1), corpus(), settings, until=until)
    parts = model(dropout=0.1, seed=7)
    got = train(parts, corpus(), settings)
    assert comparable(got.history) == comparable(want.history)
    assert same_weights(whole, parts)
    assert load_checkpoint(tmp_path / LATEST).model.config == whole.config


def test_growing_changes_no_loss_and_its_flops_are_of_parent_and_child():
    plain, grown = model(), model()
    config = FAST | {"eval_every": 4, "eval_batches": None}
    train(plain, corpus(), TrainConfig(**config), until=4)
    before = evaluate(plain, corpus().val).loss
    result = train(grown, corpus(), TrainConfig(**config, growth=[{"step": 4, "n_layer": 4}]), until=5)
    assert result.history[3]["val_loss"] == pytest.approx(before, abs=1e-6)
    small, large = (3.0 * 8 * count_flops(model(n_layer=n), 1, 16) for n in (2, 4))
    assert result.flops == 4 * small + large
    no_growth = train(model(), corpus(), TrainConfig(**config), until=5)
    assert result.history[4]["loss"] == pytest.approx(no_growth.history[4]["loss"], abs=1e-5)


def test_moments_are_kept_unless_told_otherwise(monkeypatch):
    counts = []
    step = GenerationAdamW.step

    def count(self, closure=None):
        counts.append({tuple(state["step"].flatten().tolist()) for state in self.state.values()})
        return step(self, closure)

    monkeypatch.setattr(GenerationAdamW, "step", count)
    train(model(), corpus(), TrainConfig(**FAST, growth=[{"step": 5, "n_layer": 3}]), until=6)
    assert counts[-1] == {(5.0,), (0.0, 0.0)}, "the old parameters have counted five steps, the new layer's none"
    train(model(), corpus(), TrainConfig(**FAST, growth=[{"step": 5, "n_layer": 3, "keep_state": False}]), until=6)
    assert counts[-1] == {(0.0, 0.0)}


@pytest.mark.parametrize(
    ("growth", "message"),
    [
        ([{"step": 0, "n_layer": 4}], r"every growth has a `step` between 1 and 11, in rising order; got \[0\]"),
        ([{"n_layer": 4}], "every growth has a `step`"),
        ([{"step": 6, "n_layer": 4}, {"step": 3, "n_layer": 5}], "in rising order"),
        ([{"step": 6, "n_layers": 4}], "a growth has no 'n_layers'; known: step, n_layer"),
    ],
)
def test_bad_growth_is_one_clear_error(growth, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**FAST, growth=growth)


def test_shrinking_is_refused():
    with pytest.raises(ValueError, match="can only grow: its n_layer is 2, got 1"):
        train(model(), corpus(), TrainConfig(**FAST, growth=[{"step": 3, "n_layer": 1}]))


def test_an_experiment_that_grows_records_the_grown_model(tmp_path, monkeypatch):
    monkeypatch.setenv("KANCOURSE_CACHE", str(tmp_path / "cache"))
    experiment = Experiment(
        model="llama-nano", n_layer=1, steps=4, batch_size=2, eval_every=2, eval_batches=1, n_judged=2, device="cpu",
        growth=[{"step": 2, "n_layer": 2}], out_dir=str(tmp_path / "out"), sample_tokens=3, block_size=32,
    )  # fmt: skip
    told = run_experiment(experiment)
    assert told["model"]["n_layer"] == 2
    assert math.isfinite(told["val_loss"]["mean"])
    from_scratch = run_experiment(
        Experiment(**({**experiment.__dict__} | {"growth": None, "n_layer": 2, "out_dir": None}))
    )
    assert told["parameters"] == from_scratch["parameters"]
    assert told["flops_per_token"] == from_scratch["flops_per_token"]
    assert told["runs"][0]["flops"] < from_scratch["runs"][0]["flops"]
