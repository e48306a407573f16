"""Checkpoints: one safetensors file with weights, and what it takes to rebuild the model and to go on training.

Notable points:
- A save is atomic: written beside, flushed to disk, then renamed. Killed at any moment, or on a full disk, the
  previous checkpoint is still whole.
- The header carries the model's config and its tokenizer, so a checkpoint can always be rebuilt and can always talk.
- No pickle: nothing in a checkpoint can run code.

Layout: tensors `model.<parameter>` and, for going on, `optimizer.<parameter>.<exp_avg|exp_avg_sq|step>`; a header field
`kancourse` with JSON: format, model config, tokenizer, tied names, training state.
"""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from kancourse.gpt import GPT
from kancourse.lab.tensor_file import CHECKPOINT, read_tensors
from kancourse.lab.tokenizers import Tokenizer
from kancourse.zoo import ModelConfig, build

FORMAT = 1


@dataclass(kw_only=True)
class Checkpoint:
    """A loaded checkpoint: the model (in eval mode, on CPU), its tokenizer, and what training needs to go on."""

    model: GPT
    tokenizer: Tokenizer | None
    train_state: dict[str, Any]  # step, history, …: plain JSON-able data, whatever `save_checkpoint` was given
    optimizer_state: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)  # parameter name → moments


def save_checkpoint(
    path: str | Path,
    model: GPT,
    *,
    tokenizer: Tokenizer | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    train_state: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint, atomically.

    Args:
        path: the file, usually `*.safetensors`; its folder is made.
        model: a model whose `config` is a `ModelConfig` (anything `zoo.build` makes).
        tokenizer: travels along, so that the checkpoint can read and write text.
        optimizer: its state travels along, by parameter name.
        train_state: JSON-able data that comes back as it is.

    Raises:
        OSError: it could not be written (a full disk, say); whatever stood at `path` before is untouched.
    """
    path = Path(path)
    tensors, ties = _weights(model)
    if optimizer is not None:
        names = {id(p): name for name, p in model.named_parameters()}
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                tensors[f"optimizer.{names[id(parameter)]}.{key}"] = value.detach().cpu().contiguous()
    header = {
        "format": FORMAT,
        "config": model.config.to_dict(),
        "tokenizer": None if tokenizer is None else tokenizer.to_dict(),
        "ties": ties,
        "train_state": train_state or {},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*.partial"):  # of a save that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    # A folder, because safetensors itself writes to a temporary file with a name of its own.
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        partial.mkdir()
        save_file(tensors, partial / path.name, metadata={CHECKPOINT: json.dumps(header)})
        with open(partial / path.name, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial / path.name, path)
    except (OSError, SafetensorError) as error:
        kept = "; the previous checkpoint there is untouched" if path.exists() else ""
        raise OSError(f"checkpoint {path} could not be written: {error}{kept}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    folder = os.open(path.parent, os.O_RDONLY)  # the rename itself reaches the disk
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint and rebuild its model.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is truncated, is not one of ours, or does not fit its own config.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    header, tensors = read_tensors(
        path, field=CHECKPOINT, what="a kancourse checkpoint", name="checkpoint", version=FORMAT
    )
    model = build(ModelConfig.from_dict(header["config"]))
    weights = {key.removeprefix("model."): t for key, t in tensors.items() if key.startswith("model.")}
    weights |= {name: weights[twin] for name, twin in header["ties"].items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the model its own config describes: {error}") from error
    optimizer_state: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            name, _, moment = key.removeprefix("optimizer.").rpartition(".")
            optimizer_state.setdefault(name, {})[moment] = tensor
    tokenizer = None if header["tokenizer"] is None else Tokenizer.from_dict(header["tokenizer"])
    return Checkpoint(
        model=model.eval(), tokenizer=tokenizer, train_state=header["train_state"], optimizer_state=optimizer_state
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, model: GPT, state: dict[str, dict[str, torch.Tensor]]) -> None:
    """Put saved moments back, by parameter name, on each parameter's device.

    Raises:
        ValueError: the names are not those of the model's parameters.
    """
    parameters = dict(model.named_parameters())
    if set(state) != set(parameters):
        odd = sorted(set(state) ^ set(parameters))
        raise ValueError(f"optimiser state and model differ in {len(odd)} parameter(s), first {odd[0]!r}")
    for name, moments in state.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            key: tensor.clone() if key == "step" else tensor.to(parameter.device) for key, tensor in moments.items()
        }
        if optimizer.param_groups[0].get("fused") and parameter.device.type != "cpu":
            optimizer.state[parameter]["step"] = moments["step"].to(parameter.device)


def _weights(model: GPT) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The state dict on CPU with each shared tensor once, and which names are shared with which."""
    tensors: dict[str, torch.Tensor] = {}
    ties: dict[str, str] = {}
    first: dict[tuple[int, int, torch.Size], str] = {}
    for name, tensor in model.state_dict().items():
        where = (tensor.data_ptr(), tensor.storage_offset(), tensor.shape)
        if tensor.numel() and where in first:
            ties[name] = first[where]
            continue
        first[where] = name
        tensors[f"model.{name}"] = tensor.detach().cpu().contiguous()
    return tensors, ties
