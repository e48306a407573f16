"""A finished model as a folder that the Hugging Face Hub understands: weights, config, tokenizer and a model card.

Notable points:
- `config.json` says of every other file how long it is and what its SHA-256 is, and loading checks both: a download
  that was cut short, or files of two models mixed up, are refused in one sentence.
- Packed models go the same way; their ternary weights stay packed, in the folder and afterwards.
- Nothing in the folder can run code. A token for the Hub is taken from where `huggingface_hub` keeps it, never written.

Layout: `model.safetensors` (each shared tensor once), `config.json`, `tokenizer.json` (ours, not that of transformers),
`README.md`.
"""

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kancourse.bit_pack import PackedBitLinear
from kancourse.gpt import GPT
from kancourse.lab.meters import count_parameters
from kancourse.lab.tensor_file import misfit
from kancourse.lab.tokenizers import Tokenizer
from kancourse.packed import PackedGPT
from kancourse.zoo import ModelConfig, build

__all__ = ["Pretrained", "from_pretrained", "push_to_hub", "save_pretrained"]

FORMAT = 1
WEIGHTS, CONFIG, TOKENIZER, CARD = "model.safetensors", "config.json", "tokenizer.json", "README.md"
FIELDS = ("model_type", "format", "model", "ties", "files")  # of config.json
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class Pretrained(NamedTuple):
    """What a folder holds: the model, in eval mode on the CPU, and its tokenizer."""

    model: GPT | PackedGPT
    tokenizer: Tokenizer | None


def save_pretrained(
    model: GPT | PackedGPT,
    tokenizer: Tokenizer | None,
    folder: str | Path,
    *,
    title: str | None = None,
    about: str = "",
    license: str | None = None,
) -> Path:
    """Write a model as a folder; files of an earlier save are replaced, `config.json` last.

    Args:
        model: anything `zoo.build` makes, or a packed model; without adapters.
        tokenizer: the one it was trained with, or None.
        folder: where to; it is made.
        title, about: of the model card: its heading, and what a reader should know in Markdown (data, losses, limits).
        license: of the weights, as the Hub names licences ("cc0-1.0"); None: the card says nothing.

    Raises:
        ValueError: the model is not what its config describes, so that the folder could not be loaded.
        OSError: it could not be written.
    """
    folder, inner = Path(folder), model.model if isinstance(model, PackedGPT) else model
    state, config = inner.state_dict(), inner.config
    if odd := misfit(state, build(config, seed=0).state_dict()):
        raise ValueError(f"the model is not what its config describes, so it could not be loaded again: {odd}")
    first: dict[tuple[int, Any], str] = {}
    places = {name: (tensor.data_ptr(), tensor.shape) for name, tensor in state.items()}
    ties = {name: first[place] for name, place in places.items() if first.setdefault(place, name) != name}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items() if name not in ties}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial") as partial:
        made = Path(partial)
        try:
            save_file(tensors, made / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{folder / WEIGHTS} could not be written: {error}") from error
        if tokenizer is not None:
            (made / TOKENIZER).write_text(json.dumps(tokenizer.to_dict(), ensure_ascii=False), encoding="utf-8")
        told = {"model_type": "kancourse", "format": FORMAT, "model": config.to_dict(), "ties": ties}
        told["files"] = {path.name: _describe(path) for path in sorted(made.iterdir())}
        card = _card(inner, tokenizer, title=title or folder.resolve().name, about=about, license=license)
        (made / CARD).write_text(card, encoding="utf-8")
        (made / CONFIG).write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for name in (*told["files"], CARD, CONFIG):
            os.replace(made / name, folder / name)
        if tokenizer is None:
            (folder / TOKENIZER).unlink(missing_ok=True)
    return folder


def from_pretrained(source: str | Path, *, revision: str | None = None) -> Pretrained:
    """Load a model from a folder, or from the Hub.

    Args:
        source: a folder that `save_pretrained` wrote, or a repository id ("owner/name").
        revision: a branch, tag or commit of the repository.

    Raises:
        FileNotFoundError: no such folder, or one of its files is missing.
        ValueError: a file is cut short, altered or not one of ours, a field is unknown, or weights that do not fit.
        ConnectionError: the download fails.
    """
    folder = _folder(source, revision)
    told = _read_config(folder)
    _check_files(folder, told["files"])
    config = ModelConfig.from_dict(told["model"])
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is not a safetensors file ({error})") from error
    state = tensors | {name: tensors[twin] for name, twin in told["ties"].items() if twin in tensors}
    model = build(config, seed=0)
    if odd := misfit(state, model.state_dict()):
        raise ValueError(f"{folder / WEIGHTS} does not fit the model that {CONFIG} describes: {odd}")
    model.load_state_dict(state)
    tokenizer = None
    if TOKENIZER in told["files"]:
        tokenizer = Tokenizer.from_dict(json.loads((folder / TOKENIZER).read_text(encoding="utf-8")))
    if any(isinstance(module, PackedBitLinear) for module in model.modules()):
        return Pretrained(PackedGPT(model.requires_grad_(False)), tokenizer)
    return Pretrained(model.eval(), tokenizer)


def push_to_hub(
    folder: str | Path, repo_id: str, *, private: bool = False, message: str = "Upload a kancourse model"
) -> str:
    """Upload a folder that `save_pretrained` wrote; a repository that does not exist is made.

    Args:
        folder: what to upload; it is checked first, and nothing but its four files goes up.
        repo_id: "owner/name".
        private: if the repository is made, so that only its owner sees it.
        message: of the commit.

    Returns:
        The address of the repository.

    Raises:
        FileNotFoundError, ValueError: as `from_pretrained`, before anything is sent; or no "owner/name".
        ConnectionError: the Hub cannot be reached, or does not let us in.
    """
    from huggingface_hub import HfApi  # here, because it takes a while to import
    from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError

    if not REPOSITORY.fullmatch(repo_id):
        raise ValueError(f"a repository is named owner/name, got {repo_id!r}")
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    told = _read_config(folder)
    _check_files(folder, told["files"])
    api = HfApi()
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=message,
            allow_patterns=[*told["files"], CONFIG, CARD],
        )
    except (HTTPError, LocalTokenNotFoundError, OSError) as error:
        raise ConnectionError(
            f"{repo_id} could not be uploaded ({error}); log in with `hf auth login` or set HF_TOKEN, and see that you "
            "may write there"
        ) from error
    return str(address)


def _folder(source: str | Path, revision: str | None) -> Path:
    """The folder on this machine, downloaded if need be."""
    if Path(source).is_dir():
        return Path(source)
    if not REPOSITORY.fullmatch(str(source)):
        raise FileNotFoundError(f"no folder {source}, and a repository of the Hub is named owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        wanted = [WEIGHTS, CONFIG, TOKENIZER, CARD]
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=wanted))
    except (HTTPError, OSError) as error:  # its errors about files that are not there are OSErrors
        raise ConnectionError(
            f"{source} is no folder here and could not be downloaded from the Hub: {error}"
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    """`config.json`, its fields checked."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}: it is not a model that save_pretrained has written")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is cut short or not JSON ({error})") from error
    if not isinstance(told, dict) or told.get("model_type") != "kancourse":
        raise ValueError(f"{path} is not of a kancourse model (no model_type 'kancourse')")
    if told.get("format") != FORMAT:
        raise ValueError(f"{path} has format {told.get('format')}; this version reads {FORMAT}")
    for name in sorted(told.keys() ^ set(FIELDS)):
        known = ", ".join(FIELDS)
        raise ValueError(f"{path} {'has an unknown' if name in told else 'lacks the'} field {name!r}; known: {known}")
    return told


def _check_files(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """Raise unless the files are all there and what `config.json` says of them."""
    if WEIGHTS not in files or not files.keys() <= {WEIGHTS, TOKENIZER}:
        raise ValueError(f"{folder / CONFIG} names the files {sorted(files)}, expected {WEIGHTS} and {TOKENIZER}")
    for name, told in files.items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{folder} lacks {name}, which its {CONFIG} names")
        if path.stat().st_size != told["bytes"]:
            raise ValueError(f"{path} has {path.stat().st_size:,} bytes, {CONFIG} says {told['bytes']:,}: cut short?")
        if _describe(path) != told:
            raise ValueError(f"{path} is not the file that {CONFIG} describes: its SHA-256 differs")


def _describe(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _card(model: GPT, tokenizer: Tokenizer | None, *, title: str, about: str, license: str | None) -> str:
    """The model card: what the Hub sorts by, then what a reader wants to know. Numbers come from the model."""
    config = model.config
    front = {"library_name": "kancourse", "pipeline_tag": "text-generation", "tags": ["kancourse", config.mixer]}
    front |= {"license": license} if license else {}
    n_bytes = sum(tensor.nbytes for tensor in {t.data_ptr(): t for t in model.state_dict().values()}.values())
    rows = {
        "layers, width, heads": f"{config.n_layer}, {config.n_embd}, {config.n_head}",
        "mixer, feed-forward, matrices": f"{config.mixer}, {config.ffn}, {config.linear}",
        "trained on sequences of": f"{config.block_size} tokens",
        "vocabulary": f"{config.vocab_size:,}" + (f", {tokenizer.name}" if tokenizer else ""),
        "parameters (packed weights not counted)": f"{count_parameters(model)['total']:,}",
        "bytes of weights": f"{n_bytes:,}",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    use = 'from kancourse.lab.hub import from_pretrained\n\nmodel, tokenizer = from_pretrained("<this repository>")'
    parts = [f"# {title}", about.strip(), f"| | |\n|---|---|\n{table}", f"```python\n{use}\n```"]
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"
