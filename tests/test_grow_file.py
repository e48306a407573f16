"""A checkpoint becomes a larger one of the same function, or a clear error, and then nothing is written."""

from pathlib import Path

import pytest
import torch

from kancourse.__main__ import main
from kancourse.lab import grow_file as module
from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.grow_file import GrowSizes, compare_logits, grow_file
from kancourse.lab.tokenizers import ByteTokenizer
from kancourse.zoo import build

SIZES = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": 257, "block_size": 12}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    model = build("llama-nano", **SIZES, seed=0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return save_checkpoint(tmp_path / "small.safetensors", model, tokenizer=ByteTokenizer())


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_layer": 3},
        {"n_head": 4},
        {"head_dim": 16},
        {"ffn_dim": 100},
        {"vocab_size": 300, "new_rows": "random"},
        {"n_layer": 2, "n_head": 3, "head_dim": 24, "ffn_dim": 90, "vocab_size": 260, "seed": 5},
    ],
    ids=str,
)
def test_a_file_grows_into_a_larger_one_of_the_same_function(small, tmp_path, sizes):
    before = small.read_bytes()
    told = grow_file(small, tmp_path / "large.safetensors", GrowSizes(**sizes))
    assert small.read_bytes() == before
    old, new = load_checkpoint(small), load_checkpoint(tmp_path / "large.safetensors")
    assert told.parameters == tuple(sum(p.numel() for p in c.model.parameters()) for c in (old, new))
    assert told.parameters[1] > told.parameters[0]
    change, largest = compare_logits(old.model, new.model, torch.Generator().manual_seed(9))
    assert change <= 1e-5
    assert largest > 0.5
    assert told.change <= 1e-5
    assert new.tokenizer.to_dict() == old.tokenizer.to_dict()
    for name in ("n_layer", "n_head", "head_dim", "ffn_dim", "vocab_size"):
        if name in sizes:
            assert getattr(new.model.config, name) == sizes[name]


def test_new_weights_are_those_of_the_seed(small, tmp_path):
    files = []
    for number, seed in enumerate((1, 1, 2)):
        grow_file(small, tmp_path / f"{number}.safetensors", GrowSizes(n_head=3, seed=seed))
        files.append(load_checkpoint(tmp_path / f"{number}.safetensors").model.blocks[0].mixer.c_attn.weight)
    assert torch.equal(files[0], files[1])
    assert not torch.equal(files[0], files[2])


def test_a_kan_grows_by_its_grids_and_in_no_other_way(tmp_path):
    model = build("kan-gpt-nano", **SIZES, seed=0)
    kan = save_checkpoint(tmp_path / "kan.safetensors", model)
    told = grow_file(kan, tmp_path / "fine.safetensors", GrowSizes(grid_size=10))
    assert told.parameters[1] > told.parameters[0]
    assert told.change <= 1e-5
    assert load_checkpoint(tmp_path / "fine.safetensors").model.config.linear_options["grid_size"] == 10
    with pytest.raises(ValueError, match=r"kan.safetensors cannot grow: grow knows .* is a KAN"):
        grow_file(kan, tmp_path / "deep.safetensors", GrowSizes(n_layer=2))
    assert not (tmp_path / "deep.safetensors").exists()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({}, "nothing is asked to grow: give one or more of n_layer, n_head, head_dim, ffn_dim, vocab_size, grid_size"),
        ({"n_head": 1}, "a model can only grow: its n_head is 2, got 1"),
        ({"n_layer": 0}, "a model can only grow: its n_layer is 1, got 0"),
        ({"head_dim": 12}, "wider by a whole factor: head_dim is 8, so 16 or 24 would do, 12 does not"),
        ({"grid_size": 10}, "there is no KAN layer in this model"),
        ({"n_layer": 2, "new_rows": "ones"}, "unknown new_rows 'ones'; known: mean, zero, random"),
    ],
)
def test_what_cannot_be_is_one_clear_error_and_nothing_is_written(small, tmp_path, sizes, message):
    with pytest.raises(ValueError, match=message):
        grow_file(small, tmp_path / "large.safetensors", GrowSizes(**sizes))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.safetensors"]


def test_the_source_is_not_written_over_and_must_be_there(small, tmp_path):
    with pytest.raises(ValueError, match="is the model that grows: choose another file"):
        grow_file(small, tmp_path / "sub" / ".." / "small.safetensors", GrowSizes(n_layer=2))
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        grow_file(tmp_path / "gone.safetensors", tmp_path / "large.safetensors", GrowSizes(n_layer=2))


def test_another_function_is_never_written(small, tmp_path, monkeypatch):
    def careless(model, **sizes):
        return build(model.config, seed=1)

    monkeypatch.setattr(module, "grow", careless)
    with pytest.raises(ValueError, match="would become another function: a logit changes by"):
        grow_file(small, tmp_path / "large.safetensors", GrowSizes(n_layer=2))
    assert not (tmp_path / "large.safetensors").exists()


def test_the_command_grows_a_file_and_says_what_is_wrong(small, tmp_path, capsys):
    files = [str(small), str(tmp_path / "large.safetensors")]
    main(["grow", *files, "--n_layer", "2", "--n_head", "4"])
    assert "parameters before" in capsys.readouterr().out
    assert load_checkpoint(files[1]).model.config.n_embd == 32
    with pytest.raises(SystemExit) as stopped:
        main(["grow", *files, "--n_head", "1"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.strip() == "error: a model can only grow: its n_head is 2, got 1"
