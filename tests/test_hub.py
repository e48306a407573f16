"""Models as folders and repositories; the Hub is a stub, nothing goes over the network.

Run: pytest tests/test_hub.py
"""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError
from safetensors.torch import load_file
from torch import nn

from kancourse import bit_kernel_choice
from kancourse.__main__ import main
from kancourse.bit_kernel_choice import use_bit_kernel
from kancourse.lab.checkpoint import save_checkpoint
from kancourse.lab.hub import CARD, CONFIG, TOKENIZER, WEIGHTS, from_pretrained, push_to_hub, save_pretrained
from kancourse.lab.tokenizers import ByteTokenizer, CharTokenizer
from kancourse.lora import add_lora
from kancourse.packed import PackedGPT
from kancourse.zoo import build

SMALL = {"n_layer": 1, "n_head": 2, "n_embd": 16, "ffn_dim": 20, "vocab_size": 257, "block_size": 32}
MODELS = {
    "tied": ("gpt-nano", {}),
    "untied": ("llama-nano", {"tie_head": False}),
    "ternary": ("bit-llama-nano", {}),
    "shared gains": ("bit-llama-nano", {"ffn": "one_norm_swiglu"}),
    "packed": ("bit-llama-nano", {}),
    "packed retention": ("retnet-nano", {"linear": "bit", "block_norm": "none"}),
}


@pytest.fixture(autouse=True)
def _the_kernel_that_needs_no_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bit_kernel_choice, "_chosen", None)
    use_bit_kernel("eager")


def model_of(name: str) -> nn.Module:
    preset, settings = MODELS[name]
    model = build(preset, seed=0, **SMALL | settings).eval()
    return PackedGPT(model) if name.startswith("packed") else model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_pretrained(model_of("ternary"), ByteTokenizer(), tmp_path / "model")


IDX = torch.arange(64).view(2, 32)


# --- folders ---


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_gives_back_model_and_tokenizer_to_the_last_bit(name: str, tmp_path: Path) -> None:
    model, tokenizer = model_of(name), CharTokenizer("ab ü日")
    folder = save_pretrained(model, tokenizer, tmp_path / "deep" / "model")
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, CONFIG, TOKENIZER, CARD}
    before = torch.random.get_rng_state()
    loaded = from_pretrained(folder)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert type(loaded.model) is type(model)
    assert loaded.model.config == model.config
    assert not loaded.model.training
    assert torch.equal(loaded.model(IDX), model(IDX))
    assert loaded.tokenizer.to_dict() == tokenizer.to_dict()
    again = save_pretrained(*loaded, tmp_path / "again" / "model")
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())


def test_what_is_shared_is_written_once_and_shared_again(folder: Path) -> None:
    tied = save_pretrained(model_of("shared gains"), None, folder)
    assert {path.name for path in tied.iterdir()} == {WEIGHTS, CONFIG, CARD}  # the tokenizer of before is gone
    names = load_file(tied / WEIGHTS).keys()
    assert "wte.weight" in names
    assert not {"lm_head.weight", "blocks.0.ffn.c_fc.norm_weight"} & names
    model, tokenizer = from_pretrained(tied)
    assert tokenizer is None
    assert model.lm_head.weight is model.wte.weight
    assert model.blocks[0].ffn.c_fc.norm_weight is model.blocks[0].ffn.c_gate.norm_weight


def test_the_card_says_what_the_model_is(tmp_path: Path) -> None:
    model = model_of("packed")
    told = {"title": "A small model", "about": "Trained on *nothing*.", "license": "cc0-1.0"}
    _, front, text = (save_pretrained(model, ByteTokenizer(), tmp_path, **told) / CARD).read_text().split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "cc0-1.0"
    assert yaml.safe_load(front)["library_name"] == "kancourse"
    assert text.startswith("\n# A small model\n\nTrained on *nothing*.\n")
    for row in (
        "layers, width, heads | 1, 16, 2",
        "mixer, feed-forward, matrices | attention, swiglu, packed",
        "257, by",
    ):
        assert row in text
    n_bytes = sum(tensor.nbytes for tensor in load_file(tmp_path / WEIGHTS).values())
    assert f"| bytes of weights | {n_bytes:,} |" in text


def test_a_model_that_its_config_does_not_describe_is_refused(tmp_path: Path) -> None:
    model = model_of("ternary")
    add_lora(model, rank=2)
    with pytest.raises(ValueError, match=r"not what its config describes.*blocks\.0\.mixer\.c_attn\.weight is missing"):
        save_pretrained(model, None, tmp_path / "model")
    assert not (tmp_path / "model").exists()


# --- what may be wrong with a folder ---


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    for name in (TOKENIZER, WEIGHTS, CONFIG):
        (folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=rf"model (lacks {name}, which its|has no {name}: it is not)"):
            from_pretrained(folder)
    for source in (tmp_path / "nothing", "./a/b/c", "nothing"):
        with pytest.raises(FileNotFoundError, match=r"no folder .*, and a repository of the Hub is named owner/name"):
            from_pretrained(source)


def test_files_that_are_cut_or_altered_are_refused(folder: Path) -> None:
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in (WEIGHTS, TOKENIZER):
        (folder / name).write_bytes(whole[name][:-1])
        with pytest.raises(ValueError, match=rf"{name} has [\d,]+ bytes, config\.json says [\d,]+: cut short\?"):
            from_pretrained(folder)
        (folder / name).write_bytes(whole[name][:-1] + bytes([whole[name][-1] ^ 1]))
        with pytest.raises(ValueError, match=f"{name} is not the file that config.json describes: its SHA-256 differs"):
            from_pretrained(folder)
        (folder / name).write_bytes(whole[name])
    (folder / CONFIG).write_bytes(whole[CONFIG][:-9])
    with pytest.raises(ValueError, match=r"config\.json is cut short or not JSON"):
        from_pretrained(folder)


def change(folder: Path, **fields: Any) -> None:
    told = json.loads((folder / CONFIG).read_text())
    for name, value in fields.items():
        told |= {name: {**told[name], **value} if isinstance(told.get(name), dict) else value}
    (folder / CONFIG).write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model": {"n_layers": 3}}, "ModelConfig has no field 'n_layers'; did you mean 'n_layer'?"),
        (
            {"model": {"n_layer": 2}},
            r"does not fit the model that config\.json describes: blocks\.1\.\S+ is missing, exp",
        ),
        ({"model": {"ffn": "magic"}}, "unknown ffn 'magic'; known: mlp"),
        ({"colour": "blue"}, "has an unknown field 'colour'; known: model_type, format, model, ties, files"),
        ({"model_type": "llama"}, r"config\.json is not of a kancourse model"),
        ({"format": 2}, "has format 2; this version reads 1"),
        ({"files": {"evil.py": {}}}, "names the files .*evil"),
    ],
)
def test_fields_that_are_unknown_or_wrong_are_refused(fields: dict, sentence: str, folder: Path) -> None:
    change(folder, **fields)
    with pytest.raises(ValueError, match=sentence):
        from_pretrained(folder)


def test_a_lacking_field_is_named(folder: Path) -> None:
    told = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({name: value for name, value in told.items() if name != "ties"}))
    with pytest.raises(ValueError, match="lacks the field 'ties'"):
        from_pretrained(folder)


# --- the Hub ---


class StubHub:
    """What `push_to_hub` and `from_pretrained` need of the Hub, in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls, self.fails = root, [], None

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
        if self.fails:
            raise self.fails
        self.calls.append((repo_id, private, exist_ok))
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        return f"https://hub.example/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str, allow_patterns: list[str]) -> None:
        self.calls.append(commit_message)
        for name in allow_patterns:
            shutil.copy(folder_path / name, self.root / repo_id / name)

    def download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if not (self.root / repo_id).is_dir():
            raise HTTPError("404 Not Found")
        self.calls.append((revision, set(allow_patterns)))
        return str(self.root / repo_id)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubHub:
    stub = StubHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: stub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stub.download)
    return stub


def test_a_model_goes_to_the_hub_and_comes_back(folder: Path, hub: StubHub) -> None:
    (folder / "diary.txt").write_text("not for others")
    assert push_to_hub(folder, "me/model", private=True, message="First") == "https://hub.example/me/model"
    assert hub.calls == [("me/model", True, True), "First"]
    assert {path.name for path in (hub.root / "me/model").iterdir()} == {WEIGHTS, CONFIG, TOKENIZER, CARD}
    loaded = from_pretrained("me/model", revision="v1")
    assert hub.calls[-1] == ("v1", {WEIGHTS, CONFIG, TOKENIZER, CARD})
    assert torch.equal(loaded.model(IDX), model_of("ternary")(IDX))


def test_the_command_exports_a_folder_and_uploads_it(
    tmp_path: Path, hub: StubHub, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_checkpoint(tmp_path / "c.safetensors", model_of("ternary"), tokenizer=ByteTokenizer())
    told = ["--push", "me/model", "--title", "Mine", "--license", "cc0-1.0"]
    main(["export", str(path), str(tmp_path / "folder"), *told])
    printed = capsys.readouterr().out
    assert printed.endswith("https://hub.example/me/model\n")
    assert f"{WEIGHTS}: {(tmp_path / 'folder' / WEIGHTS).stat().st_size:,} bytes" in printed
    assert "# Mine" in (hub.root / "me/model" / CARD).read_text()
    assert torch.equal(from_pretrained("me/model").model(IDX), model_of("ternary")(IDX))


def test_a_damaged_folder_or_a_bad_name_is_refused_before_anything_is_sent(folder: Path, hub: StubHub) -> None:
    with pytest.raises(ValueError, match="a repository is named owner/name, got 'model'"):
        push_to_hub(folder, "model")
    with pytest.raises(FileNotFoundError, match="no folder"):
        push_to_hub(folder / "nothing", "me/model")
    (folder / WEIGHTS).write_bytes(b"")
    with pytest.raises(ValueError, match="cut short"):
        push_to_hub(folder, "me/model")
    assert hub.calls == []


def test_a_hub_that_cannot_be_reached_or_does_not_let_us_in_is_one_clear_error(folder: Path, hub: StubHub) -> None:
    with pytest.raises(
        ConnectionError, match="me/other is no folder here and could not be downloaded from the Hub: 404"
    ):
        from_pretrained("me/other")
    for error in (HTTPError("401 Unauthorized"), LocalTokenNotFoundError("no token"), OSError("no route")):
        hub.fails = error
        with pytest.raises(
            ConnectionError, match=r"me/model could not be uploaded \(.*\); log in with `hf auth login`"
        ):
            push_to_hub(folder, "me/model")
