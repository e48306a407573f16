"""A packed model in one file: weights that are used as they lie in it, with all it takes to rebuild the model and talk.

Notable points:
- Loading maps the ternary weights into memory: none is read before it is used, and several processes share one copy.
- With `bits=1.6` the ternary weights take a fifth less on disk; they are turned into the two-bit form while loading, so
  they are read and not mapped.
- Nothing in a file can run code; one that is cut short, damaged in its header or of another model is refused.

Layout: safetensors, each shared tensor once; a header field `kancourse_packed` with JSON: format, bits, model config,
tokenizer, which names share a tensor, and what it was trained on.
"""

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kancourse.bit_pack import PackedBitLinear, pack_ternary, unpack_ternary
from kancourse.gpt import GPT
from kancourse.lab.tensor_file import PACKED, misfit, read_tensors
from kancourse.lab.tokenizers import Tokenizer
from kancourse.packed import PACKED_NAMES, PackedGPT
from kancourse.zoo import ModelConfig, build

__all__ = ["LoadedPacked", "is_packed", "load_packed", "save_packed", "trained_on"]

FORMAT = 1


class LoadedPacked(NamedTuple):
    """What a packed file holds."""

    model: PackedGPT
    tokenizer: Tokenizer | None
    trained_on: dict[str, Any]  # the corpus's name and its domains, where the file says so


def save_packed(
    path: str | Path,
    model: GPT | PackedGPT,
    *,
    tokenizer: Tokenizer | None = None,
    bits: float = 2,
    trained_on: dict[str, Any] | None = None,
) -> Path:
    """Write a packed model to one file; what stood at `path` before is replaced at the end, or not at all.

    Args:
        path: usually `*.safetensors`; its folder is made.
        model: a model with ternary layers whose `config` is a `ModelConfig`, packed already or not.
        tokenizer: travels along.
        bits: per ternary weight, 2 or 1.6.
        trained_on: JSON-able, for the reader of the file; see `trained_on`.

    Raises:
        ValueError: nothing to pack, or layers that the config does not name, so that the file could not be loaded.
        OSError: it could not be written.
    """
    path, packed = Path(path), model if isinstance(model, PackedGPT) else PackedGPT(model)
    state, config = packed.model.state_dict(), packed.config
    if wrong := misfit(state, _without_weights(config).state_dict()):
        raise ValueError(f"the model is not what its config describes, so a file of it could not be loaded: {wrong}")
    first: dict[int, str] = {}
    ties = {name: first[t.data_ptr()] for name, t in state.items() if first.setdefault(t.data_ptr(), name) != name}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items() if name not in ties}
    if bits != 2:
        for name, layer in _ternary(packed.model).items():
            codes = unpack_ternary(layer.packed.cpu(), layer.packed_shape)
            tensors[name] = pack_ternary(codes, bits=bits)
    header = {
        "format": FORMAT,
        "bits": bits,
        "config": config.to_dict(),
        "tokenizer": None if tokenizer is None else tokenizer.to_dict(),
        "ties": ties,
        "trained_on": trained_on or {},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        try:
            save_file(tensors, Path(folder, path.name), metadata={PACKED: json.dumps(header)})
        except SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}") from error
        os.replace(Path(folder, path.name), path)
    return path


def is_packed(path: str | Path) -> bool:
    """Whether the file says of itself that it holds a packed model; False for anything else, or nothing, there."""
    try:
        with safe_open(path, framework="pt") as file:
            return PACKED in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def load_packed(path: str | Path) -> LoadedPacked:
    """Rebuild a packed model; its weights stay in the file until they are used, which must therefore stay as it is.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is cut short, not one of these, or does not fit its own config.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no packed model at {path}")
    header, tensors = read_tensors(
        path, field=PACKED, what="a packed kancourse model", name="packed", version=FORMAT, take=_taken
    )
    model = _without_weights(ModelConfig.from_dict(header["config"]))
    if header["bits"] != 2:
        for name, layer in _ternary(model).items():
            tensors[name] = pack_ternary(unpack_ternary(tensors[name], layer.packed_shape, bits=header["bits"]))
    state = tensors | {name: tensors[twin] for name, twin in header["ties"].items() if twin in tensors}
    if wrong := misfit(state, model.state_dict()):
        raise ValueError(f"{path} does not fit the model its own config describes: {wrong}")
    model.load_state_dict(state, assign=True)
    if model.config.tie_head:
        model.lm_head.weight = model.wte.weight
    tokenizer = None if header["tokenizer"] is None else Tokenizer.from_dict(header["tokenizer"])
    return LoadedPacked(PackedGPT(model.requires_grad_(False)), tokenizer, header.get("trained_on", {}))


def trained_on(train_state: dict[str, Any]) -> dict[str, Any]:
    """What a packed file keeps of a checkpoint's training state: the corpus's name and its domains."""
    corpus = train_state.get("corpus") or {}
    return {"corpus": corpus.get("corpus"), "domains": corpus.get("source", {}).get("domains")} if corpus else {}


def _without_weights(config: ModelConfig) -> GPT:
    """The model of a config, its packed layers without memory of their own."""
    nowhere, packed = {"device": "meta"}, PACKED_NAMES.values()
    seats = [seat for seat in ("linear", "head", "ffn") if getattr(config, seat) in packed]
    options = {f"{seat}_options": getattr(config, f"{seat}_options") | nowhere for seat in seats}
    if config.ffn_options.get("expert") in packed:
        expert_options = config.ffn_options.get("expert_options") or {}
        options["ffn_options"] = config.ffn_options | {"expert_options": expert_options | nowhere}
    model = build(dataclasses.replace(config, **options))
    model.config = config
    return model


def _taken(tensor: Tensor) -> Tensor:
    """Packed weights stay in the file; floats are copied, as BLAS sums in an order that depends on where they lie."""
    return tensor if tensor.dtype == torch.uint8 else tensor.clone()


def _ternary(model: nn.Module) -> dict[str, PackedBitLinear]:
    """The packed layers, by the name of their weights."""
    return {f"{name}.packed": m for name, m in model.named_modules() if isinstance(m, PackedBitLinear)}
