"""The path between two checkpoints, on a corpus and from the command line. Run: pytest tests/test_connectivity.py"""

import json

import pytest
import torch

from kancourse.__main__ import main
from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.connectivity import alpha_grid, load_pair, measure_path, path_batches, path_table, write_along
from kancourse.lab.evaluate import evaluate
from kancourse.lab.experiment import Experiment
from kancourse.lab.sample import generate
from kancourse.lmc import permute, random_permutations
from kancourse.zoo import build

TEXT = "the quick brown fox jumps over the lazy dog and the dog sleeps on; " * 40


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


@pytest.fixture
def corpus(text):
    return Experiment(corpus=text, tokenizer="characters").load_corpus()


def network(corpus, seed: int = 0, **changes):
    sizes = {"vocab_size": corpus.tokenizer.vocab_size, "block_size": 16, "n_layer": 1, "seed": seed}
    made = build("gpt-nano", **(sizes | changes)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)  # so that they disagree
    return made


def saved(path, corpus, seed: int = 0, tokenizer="corpus", **changes) -> str:
    tokenizer = corpus.tokenizer if tokenizer == "corpus" else tokenizer
    return str(save_checkpoint(path, network(corpus, seed, **changes), tokenizer=tokenizer))


def test_thirty_points_and_the_middle():
    assert len(alpha_grid(30)) == 31
    assert len(alpha_grid(31)) == 31
    for n in (2, 5, 30):
        grid = alpha_grid(n)
        assert {0.0, 0.5, 1.0} <= set(grid.tolist())
        assert bool((grid.diff() > 0).all())
    with pytest.raises(ValueError, match="a path needs at least its 2 ends, got n_alphas 1"):
        alpha_grid(1)


def test_ends_of_a_path_are_what_evaluate_says(corpus):
    a, b = network(corpus), network(corpus, seed=1)
    told = measure_path(a, a.state_dict(), b.state_dict(), path_batches(corpus, 16), alpha_grid(3))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["val"]["n_tokens"] == len(corpus.val)
    for index, end in ((0, a), (2, b)):
        assert told["val"]["loss"][index] == pytest.approx(evaluate(end, corpus.val).loss, rel=1e-6)
    few = path_batches(corpus, 16, batch_size=2, max_batches=1)
    assert [len(list(batches)) for batches in few.values()] == [1, 1]
    lines = path_table(told).splitlines()
    assert len(lines) == 1 + 3 + 4
    assert lines[0].split() == ["alpha", "train", "loss", "train", "error", "val", "loss", "val", "error"]
    assert f"{told['train']['loss'][1]:.4f}" in lines[2]
    assert "nats per token over the mean of the ends (95% band over rows" in lines[4]


def test_what_models_on_the_path_write(corpus):
    a, b = network(corpus), network(corpus, seed=1)
    options = {"tokenizer": corpus.tokenizer, "max_new_tokens": 20, "temperature": 1.0}
    texts = write_along(a, a.state_dict(), b.state_dict(), [0, 0.5, 1], prompt="the ", seed=3, **options)
    for index, end in ((0, a), (2, b)):
        draw = torch.Generator().manual_seed(3)
        assert texts[index] == "the " + generate(end, "the ", stop_at_end=False, generator=draw, **options)
    assert len(set(texts)) == 3


# --- from the command line ---


def test_interpolate_from_the_command_line(text, corpus, tmp_path, capsys):
    a, b = saved(tmp_path / "a.safetensors", corpus), saved(tmp_path / "b.safetensors", corpus, 1, dropout=0.1)
    out, middle = tmp_path / "path.json", tmp_path / "middle.safetensors"
    flags = ["--corpus", text, "--n_alphas", "4", "--device", "cpu", "--out", str(out), "--middle", str(middle)]
    main(["interpolate", a, b, *flags, "--sample_tokens", "10", "--prompt", "the "])
    said = capsys.readouterr().out
    told = json.loads(out.read_text())
    assert path_table(told["path"]) in said
    assert told["path"]["val"]["alphas"][2] == 0.5
    assert len(told["texts"]) == 5
    assert f"alpha 1.000: {told['texts'][-1]}" in said
    kept = load_checkpoint(middle)
    assert evaluate(kept.model, corpus.val).loss == pytest.approx(told["path"]["val"]["loss"][2], rel=1e-6)
    assert kept.tokenizer.to_dict() == corpus.tokenizer.to_dict()


def test_aligned_a_shuffled_twin_has_no_barrier(text, corpus, tmp_path, capsys):
    a = saved(tmp_path / "a.safetensors", corpus)
    twin = network(corpus)
    orders = random_permutations(twin, torch.Generator().manual_seed(0), residual=True)
    twin.load_state_dict(permute(twin, twin.state_dict(), orders))
    b = str(save_checkpoint(tmp_path / "b.safetensors", twin, tokenizer=corpus.tokenizer))
    flags = ["--corpus", text, "--n_alphas", "3", "--device", "cpu", "--max_batches", "1"]
    heights = {}
    for name, more in {"naive": [], "aligned": ["--residual"]}.items():
        main(["interpolate", a, b, *flags, *more, "--out", str(tmp_path / "path.json")])
        told = json.loads((tmp_path / "path.json").read_text())["path"]
        barrier = told["val"]["barrier"]["loss"]
        heights[name] = max(barrier["frankle"], -barrier["dip"])
    capsys.readouterr()
    assert heights["aligned"] == 0
    assert heights["naive"] > 0.01  # the way between is another function, here one that is less sure of itself


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 2, "n_head": 4}, "are of different architectures: n_layer 1 and 2, n_head 3 and 4"),
        ({"vocab_size": 60}, "are of different architectures: vocab_size 29 and 60"),
        ({"ffn": "swiglu"}, "are of different architectures: ffn 'mlp' and 'swiglu'"),
        ({"tokenizer": None}, "b.safetensors carries no tokenizer, so it cannot read text"),
        ({"tokenizer": "other"}, "have different vocabularies: characters, characters"),
    ],
)
def test_two_that_have_no_line_between_them(text, corpus, tmp_path, capsys, changes, message):
    if changes.get("tokenizer") == "other":
        other = tmp_path / "other.txt"
        other.write_text(TEXT.upper())
        changes = {"tokenizer": Experiment(corpus=str(other), tokenizer="characters").load_corpus().tokenizer}
    a, b = saved(tmp_path / "a.safetensors", corpus), saved(tmp_path / "b.safetensors", corpus, **changes)
    with pytest.raises(ValueError, match=message):
        load_pair(a, b)
    with pytest.raises(SystemExit) as end:
        main(["interpolate", a, b, "--corpus", text])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
