"""A low-rank adapter in a file of its own, which knows the model it belongs to.

Notable points:
- The file names its base by a SHA-256 of what the base computes with, not of the file it lay in: a checkpoint, its
  packed twin and the same in the other packed form are one base. On any other base an adapter would be noise, so
  loading it there is refused.
- Nothing in the file can run code, and one that is cut short is refused.

Layout: safetensors with `<layer>.lora_a` and `<layer>.lora_b`; a header field `kancourse_adapter` with JSON: format,
base, rank, alpha, layers.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from kancourse.bit_kan import BitKAN
from kancourse.bitnet import BitLinear
from kancourse.lab.tensor_file import ADAPTER, read_tensors
from kancourse.lora import LoRALinear, add_lora, lora_layers, lora_state
from kancourse.packed import PackedGPT, pack_linears

__all__ = ["base_sha256", "load_adapter", "save_adapter"]

FORMAT = 1


def base_sha256(model: nn.Module) -> str:
    """A fingerprint of a model's weights, adapters left out: the same for a model, its copy, and its packed twin.

    It covers names, shapes, dtypes and values of all that a state dict holds; a ternary layer counts as packed.
    """
    told = hashlib.sha256()
    for name, tensor in sorted(_state(model).items()):
        told.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}\n".encode())
        told.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return told.hexdigest()


def save_adapter(path: str | Path, model: nn.Module) -> Path:
    """Write the adapters of a model; what stood at `path` before is replaced at the end, or not at all.

    Raises:
        ValueError: the model has no adapters, or they differ in rank or alpha.
        OSError: it could not be written.
    """
    path, tensors, layers = Path(path), lora_state(model), lora_layers(model)
    kinds = {(layer.rank, layer.alpha) for layer in layers.values()}
    if len(kinds) > 1:
        raise ValueError(f"a file holds adapters of one rank and alpha, these have {sorted(kinds)}")
    ((rank, alpha),) = kinds
    header = {"format": FORMAT, "base": base_sha256(model), "rank": rank, "alpha": alpha, "layers": list(layers)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        try:
            save_file(tensors, Path(folder, path.name), metadata={ADAPTER: json.dumps(header)})
        except SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}") from error
        os.replace(Path(folder, path.name), path)
    return path


def load_adapter(path: str | Path, model: nn.Module) -> dict[str, LoRALinear]:
    """Give the model the adapters of a file, in place; a model that is refused stays as it was.

    Args:
        path: what `save_adapter` wrote.
        model: the base it was made for, without adapters; of a packed file the GPT inside (`loaded.model.model`).

    Returns:
        The adapters, by the names of their layers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, not an adapter, or one for another base; or the model has adapters already.
        TypeError: a `PackedGPT` in place of the GPT inside it.
    """
    path = Path(path)
    header, tensors = _read(path)
    bare = model.model if isinstance(model, PackedGPT) else model
    if not lora_layers(model) and (here := base_sha256(bare)) != header["base"]:
        raise ValueError(
            f"{path} is an adapter for the base {header['base'][:12]}…, this model is {here[:12]}…: "
            "load the model it was trained on"
        )
    adapters = add_lora(model, rank=header["rank"], alpha=header["alpha"], targets=header["layers"], seed=0)
    with torch.no_grad():
        for name, layer in adapters.items():
            layer.lora_a.copy_(tensors[f"{name}.lora_a"])
            layer.lora_b.copy_(tensors[f"{name}.lora_b"])
    return adapters


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"no adapter at {path}")
    header, tensors = read_tensors(path, field=ADAPTER, what="an adapter", name="adapter", version=FORMAT)
    ranks = {"lora_a": 0, "lora_b": 1}  # which axis is the rank
    expected = {f"{layer}.{part}": axis for layer in header["layers"] for part, axis in ranks.items()}
    for name in sorted(expected | tensors):
        if name not in expected or name not in tensors or tensors[name].shape[expected[name]] != header["rank"]:
            raise ValueError(f"{path} does not hold what its header says: {name} is missing, too much or misshapen")
    return header, tensors


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without adapters, every ternary layer as its packed twin has it."""
    adapted = tuple(lora_layers(model))

    def bare(name: str) -> str:
        """A name as the model without adapters has it."""
        for layer in adapted:
            if f"{name}.".startswith(f"{layer}.base."):
                return layer + name.removeprefix(f"{layer}.base")
        return name

    own = {f"{layer}.lora_{part}" for layer in adapted for part in "ab"}
    is_latent = any(isinstance(module, BitLinear | BitKAN) for module in model.modules())
    state = (pack_linears(model) if is_latent else model).state_dict()
    return {bare(name): tensor for name, tensor in state.items() if name not in own}
