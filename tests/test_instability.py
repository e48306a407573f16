"""Children of one parent, and the paths between them. Run: pytest tests/test_instability.py"""

import json

import pytest
import torch

from kancourse.lab import family
from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.experiment import Experiment
from kancourse.lab.instability import Instability, barrier_curve, run_instability
from kancourse.lab.train import LATEST, TrainConfig, train
from kancourse.zoo import build

TEXT = "the quick brown fox jumps over the lazy dog and the dog sleeps on; " * 40
SMALL = {
    "model": "gpt-nano",
    "n_layer": 1,
    "n_embd": 24,
    "block_size": 16,
    "tokenizer": "characters",
    "steps": 12,
    "batch_size": 4,
    "warmup": 2,
    "eval_every": 12,
    "device": "cpu",
    "n_alphas": 4,
    "path_batches": 2,
}


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_children_part_ways_and_the_record_tells_all(text, tmp_path):
    instability = Instability(
        corpus=text, spawn_at=(0, 6), fresh_at=(6,), same_noise_at=(6,), n_children=3, out_dir=str(tmp_path), **SMALL
    )
    seen = []
    record = run_instability(instability, on_pair=seen.append)
    assert seen == record["pairs"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    kinds = [(pair["spawn_at"], pair["schedule"], pair["noise"]) for pair in record["pairs"]]
    expected = [(0, "carried", "different")] * 3 + [(6, "carried", "different")] * 3
    assert kinds == [*expected, *[(6, "fresh", "different")] * 3, (6, "carried", "same")]
    assert [pair["children"] for pair in record["pairs"][:3]] == [[0, 1], [0, 2], [1, 2]]
    for pair in record["pairs"][:-1]:
        assert pair["distance"] > 0
        assert -1 <= pair["cosine"] <= 1
        assert pair["travelled"][0] != pair["travelled"][1]
        for split in ("train", "val"):
            assert pair[split]["alphas"] == [0, pytest.approx(1 / 3), 0.5, pytest.approx(2 / 3), 1]
            assert all(0 < loss < 4 for loss in pair[split]["loss"])
            for measure in ("loss", "error"):
                barrier = pair[split]["barrier"][measure]
                assert barrier["linear"] >= 0
                assert barrier["linear_band"][0] <= barrier["linear_band"][1]
    # The farther from the end they part, the farther apart they come.
    mean = [sum(pair["distance"] for pair in record["pairs"][i : i + 3]) for i in (0, 3)]
    assert mean[0] > mean[1]


def test_with_the_same_noise_the_barrier_is_exactly_nothing(text, tmp_path):
    settings = SMALL | {"dropout": 0.3}  # dropout is noise, too
    instability = Instability(corpus=text, spawn_at=(), same_noise_at=(0, 5), out_dir=str(tmp_path), **settings)
    for pair in run_instability(instability)["pairs"]:
        assert pair["distance"] == 0
        assert pair["cosine"] == pytest.approx(1)
        for split in ("train", "val"):
            for measure in ("loss", "error"):
                barrier = pair[split]["barrier"][measure]
                assert barrier["frankle"] == barrier["linear"] == barrier["dip"] == 0
                assert barrier["frankle_band"] == [0, 0]


def test_a_child_with_its_parents_noise_is_its_parent(text, tmp_path, monkeypatch):
    """So everything is inherited: weights, moments, the schedule, and the place in the data order."""
    monkeypatch.setattr(family, "child_seed", lambda seed, child: seed + child)
    settings = SMALL | {"dropout": 0.3}
    instability = Instability(corpus=text, spawn_at=(4, 7), out_dir=str(tmp_path / "family"), **settings)
    run_instability(instability)
    corpus, config = (
        instability.load_corpus(),
        Experiment(corpus=text, **{k: settings[k] for k in settings if k in vars(Experiment())}),
    )
    whole = build(config.model_config(corpus.tokenizer.vocab_size), seed=0)
    fields = {name: settings[name] for name in ("steps", "batch_size", "warmup", "eval_every", "device")}
    train(whole, corpus, TrainConfig(**fields))
    for k in (4, 7):
        child, other = (
            load_checkpoint(tmp_path / "family" / "seed-0" / f"{k}-carried-{i}" / LATEST).model.state_dict()
            for i in range(2)
        )
        assert same(child, whole.state_dict())
        assert not same(other, whole.state_dict())


def test_an_experiment_that_was_stopped_goes_on(text, tmp_path):
    instability = Instability(corpus=text, spawn_at=(0, 4), out_dir=str(tmp_path), **SMALL)

    class Stop(Exception):
        pass

    def stop(pair):
        raise Stop

    with pytest.raises(Stop):
        run_instability(instability, on_pair=stop)
    stopped = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("0-*/log.csv")}
    assert len(stopped) == 2
    again = run_instability(instability)
    assert again["pairs"] == run_instability(Instability(corpus=text, spawn_at=(0, 4), **SMALL))["pairs"]


def test_strangers_aligned_and_not_and_their_soups(text):
    settings = SMALL | {"spawn_at": (0, 6), "n_children": 3, "n_seeds": 3, "strangers": True}
    settings |= {"path_tokens": 5, "prompt": "the "}
    record = run_instability(Instability(corpus=text, aligned=("units", "residual"), **settings))
    strangers = [pair for pair in record["pairs"] if pair["noise"] == "strangers"]
    assert [(p["aligned"], p["seeds"]) for p in strangers] == [
        (aligned, seeds) for aligned in (None, "units", "residual") for seeds in ([0, 1], [0, 2], [1, 2])
    ]
    naive, units, residual = (strangers[i : i + 3] for i in (0, 3, 6))
    for pair, nearer, nearest in zip(naive, units, residual, strict=True):
        assert pair["distance"] > nearer["distance"] > nearest["distance"]
        assert (pair["cosine"], pair["travelled"]) == (None, None)
        for split in ("train", "val"):  # the same functions, in another order
            assert nearest[split]["loss"][::4] == pytest.approx(pair[split]["loss"][::4], abs=1e-5)
    children = [(p["spawn_at"], p["aligned"]) for p in record["pairs"] if p["seeds"] == [0, 0]]
    assert children == [(0, None)] * 3 + [(0, "units")] * 3 + [(0, "residual")] * 3 + [(6, None)] * 3
    assert [len(soup["seeds"]) for soup in record["soups"]] == [3] * 15  # 3 families × (3 ways at 0, 1 at 6), strangers
    writers = [p for p in record["pairs"] if "texts" in p]
    assert [(p["children"], p["aligned"]) for p in writers] == [([0, 1], None)] * 6 + [([0, 0], None)]
    assert all(len(p["texts"]) == 5 and all(text.startswith("the ") for text in p["texts"]) for p in writers)
    soup = next(s for s in record["soups"] if s["noise"] == "strangers" and s["aligned"] == "units")
    assert soup["seeds"] == [0, 1, 2]
    assert soup["val"]["members"][:2] == pytest.approx([units[0]["val"]["loss"][i] for i in (0, -1)], abs=1e-5)
    (parts,) = (s for s in record["soups"] if s["seeds"] == [2] * 3 and s["spawn_at"] == 6)
    assert parts["train"]["soup"] < max(parts["train"]["members"]) + 0.1


def test_the_curve_over_k(text):
    record = run_instability(Instability(corpus=text, spawn_at=(0, 6), fresh_at=(6,), n_seeds=2, **SMALL))
    curve = barrier_curve(record)
    assert list(curve) == [0, 6]
    assert {point["n"] for point in curve.values()} == {2}
    assert [p["seeds"] for p in record["pairs"] if p["spawn_at"] == 0] == [[0, 0], [1, 1]]
    for k, point in curve.items():
        heights = [
            pair["train"]["barrier"]["loss"]["linear"]
            for pair in record["pairs"]
            if pair["spawn_at"] == k and pair["schedule"] == "carried"
        ]
        assert (point["min"], point["max"]) == (min(heights), max(heights))
    control = barrier_curve(record, split="val", measure="error", definition="frankle", schedule="fresh")
    assert list(control) == [6]


def test_from_a_checkpoint_instead_of_fresh_weights(text, tmp_path):
    fresh = Instability(corpus=text, spawn_at=(0,), **SMALL)
    corpus = fresh.load_corpus()
    pretrained = build(
        "llama-nano", vocab_size=corpus.tokenizer.vocab_size, block_size=16, n_layer=1, n_embd=24, seed=5
    )
    path = save_checkpoint(tmp_path / "pretrained.safetensors", pretrained, tokenizer=corpus.tokenizer)
    record = run_instability(Instability(corpus=text, spawn_at=(0,), start=str(path), **SMALL))
    assert record["model"]["ffn"] == "swiglu"
    (pair,) = record["pairs"]
    assert pair["distance"] > 0
    save_checkpoint(path, pretrained, tokenizer=Experiment(corpus=text, tokenizer="bytes").load_corpus().tokenizer)
    with pytest.raises(ValueError, match=r"pretrained.safetensors and text.txt have different vocabularies: leave"):
        run_instability(Instability(corpus=text, spawn_at=(0,), start=str(path), **SMALL))


def test_who_grows_after_parting_grows_alike_in_size_only(text):
    settings = SMALL | {"model": "llama-nano", "spawn_at": (0, 3, 7), "same_noise_at": (3,)}
    record = run_instability(Instability(corpus=text, growth=[{"step": 5, "n_layer": 2, "ffn_dim": 80}], **settings))
    assert (record["model"]["n_layer"], record["model"]["ffn_dim"]) == (2, 80)
    early, late = (next(p for p in record["pairs"] if p["spawn_at"] == k) for k in (3, 7))
    assert early["distance"] > late["distance"] > 0
    assert early["cosine"] is None  # it has no length in weights that were not there yet
    assert late["cosine"] > 0
    assert record["pairs"][-1]["distance"] == 0  # with the same noise it grows the same numbers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_children": 1}, "a pair needs two children, got n_children 1"),
        ({"spawn_at": (12,)}, "spawn_at must lie between 0 and the last step, 11, got 12"),
        ({"fresh_at": (-1,)}, "fresh_at must lie between 0"),
        ({"spawn_at": ()}, "nothing to spawn"),
        ({"n_alphas": 1}, "a path needs at least its 2 ends, got n_alphas 1"),
        (
            {"strangers": True},
            "strangers are children of step 0 of different seeds: spawn_at must hold 0, n_seeds >= 2",
        ),
        ({"strangers": True, "n_seeds": 2, "spawn_at": (3,)}, "strangers are children of step 0"),
        ({"growth": [{"step": 3, "n_layer": 2}], "fresh_at": (4,)}, "a model that has grown would have to grow again"),
        ({"aligned": ("heads",)}, "unknown alignment 'heads'; known: units, residual"),
    ],
)
def test_bad_settings_are_one_clear_error(changes, message):
    with pytest.raises(ValueError, match=message):
        Instability(**(SMALL | {"spawn_at": (0,)} | changes))
