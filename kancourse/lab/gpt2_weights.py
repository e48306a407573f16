"""OpenAI's GPT-2 in our GPT: the published weights, or any GPT-2 that transformers has saved.

Notable points:
- Read from safetensors and a config.json, without transformers; a loaded model of theirs will do, too.
- Their `Conv1D` is a matrix the other way round; their names map one to one; the head is the embedding.
- What their config may say and our model cannot do (another activation, another epsilon) is refused.

Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".

Shapes: C channels, V vocabulary, T longest sequence.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kancourse.gpt import GPT
from kancourse.zoo import ModelConfig, build

REVISIONS = {  # of openai-community/<name> on the Hub
    "gpt2": "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    "gpt2-medium": "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
    "gpt2-large": "32b71b12589c2f8d625668d2335a01cac3249519",
    "gpt2-xl": "15ea56dee5df4983c59b2538573817e1667135e2",
}
CONFIG, WEIGHTS, SHARDS = "config.json", "model.safetensors", "model.safetensors.index.json"

_OURS = {r"^transformer\.": "", r"^h\.(\d+)\.": r"blocks.\1.", r"\.attn\.": ".mixer.", r"\.mlp\.": ".ffn."}
_MASKS = re.compile(r"\.attn\.(masked_)?bias$")  # causal masks in old checkpoints; not biases of matrices
_ONLY = {  # what their config must say for our GPT to compute the same; absent means the first
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}


def load_gpt2(source: str | Path | Any = "gpt2", *, block_size: int | None = None, dropout: float = 0.0) -> GPT:
    """A GPT with GPT-2's weights, in eval mode and float32.

    Args:
        source: "gpt2", "gpt2-medium", "gpt2-large" or "gpt2-xl" (from `$KANCOURSE_DATA/<name>` if the files lie there,
            else downloaded at a pinned revision); or a folder with config.json and model.safetensors, as
            `save_pretrained` of transformers writes it; or a loaded `GPT2LMHeadModel`.
        block_size: keep only so many positions; shorter sequences come out the same, and training is cheaper.
        dropout: for fine-tuning.

    Raises:
        ValueError: an unknown name, files that are no GPT-2 or a kind that our GPT is not, or a bad block_size.
        FileNotFoundError: a folder without the files.
        ConnectionError: the download fails; the message says what to put where.
    """
    if hasattr(source, "state_dict"):
        return _convert(source.config.to_dict(), source.state_dict(), block_size, dropout)
    folder = _folder(source)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}: it is not a model that transformers has saved")
    theirs = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return _convert(theirs, _read(folder), block_size, dropout)


def gpt2_config(theirs: Mapping[str, Any], *, block_size: int | None = None, dropout: float = 0.0) -> ModelConfig:
    """Our config of a GPT-2 from the fields of transformers' `GPT2Config`.

    Raises:
        ValueError: another kind of model, a variant that our GPT is not, or a block_size beyond its positions.
    """
    if theirs.get("model_type", "gpt2") != "gpt2":
        raise ValueError(f"this is a model of type {theirs['model_type']!r}, not 'gpt2'")
    for name, fine in _ONLY.items():
        if theirs.get(name, fine[0]) not in fine:
            raise ValueError(f"our GPT-2 has {name} {fine[0]!r}, this model {theirs[name]!r}")
    n_positions = theirs.get("n_positions", 1024)
    if block_size is not None and not 1 <= block_size <= n_positions:
        raise ValueError(f"block_size must lie between 1 and the model's {n_positions} positions, got {block_size}")
    return ModelConfig(
        vocab_size=theirs["vocab_size"],
        block_size=block_size or n_positions,
        n_layer=theirs["n_layer"],
        n_head=theirs["n_head"],
        n_embd=theirs["n_embd"],
        ffn_dim=theirs.get("n_inner"),
        tie_head=theirs.get("tie_word_embeddings", True),
        dropout=dropout,
    )


def gpt2_state(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from transformers' one of a GPT-2, with or without the head: names, and matrices turned round."""
    state = {}
    for name, tensor in theirs.items():
        if _MASKS.search(name):
            continue
        for old, new in _OURS.items():
            name = re.sub(old, new, name)
        is_conv1d = re.search(r"\.c_(attn|fc|proj)\.weight$", name)
        state[name] = (tensor.T if is_conv1d else tensor).float().contiguous()
    state.setdefault("lm_head.weight", state.get("wte.weight"))
    return state


def _convert(theirs: Mapping[str, Any], weights: Mapping[str, Tensor], block_size: int | None, dropout: float) -> GPT:
    config = gpt2_config(theirs, block_size=block_size, dropout=dropout)
    state = gpt2_state(weights)
    if "wpe.weight" in state:
        state["wpe.weight"] = state["wpe.weight"][: config.block_size]
    with torch.device("meta"):  # weights drawn only to be overwritten would take a while at 1.5 billion
        model = build(config)
    model.to_empty(device="cpu")
    if config.tie_head:
        model.lm_head.weight = model.wte.weight
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit the GPT-2 that its config describes: {error}") from error
    return model.eval()


def _folder(source: str | Path) -> Path:
    name = str(source)
    if name not in REVISIONS:
        if not Path(source).expanduser().is_dir():
            known = ", ".join(REVISIONS)
            raise ValueError(f"unknown GPT-2 {name!r}; known: {known}, or a folder with {CONFIG} and {WEIGHTS}")
        return Path(source).expanduser()
    local = Path(os.environ.get("KANCOURSE_DATA", ""), name)
    if os.environ.get("KANCOURSE_DATA") and (local / CONFIG).is_file():
        return local
    from huggingface_hub import hf_hub_download  # here, because it takes a while to import
    from huggingface_hub.errors import HTTPError  # whatever HTTP library the hub's client uses

    try:
        for file in (CONFIG, WEIGHTS):
            path = hf_hub_download(f"openai-community/{name}", file, revision=REVISIONS[name])
    except (OSError, HTTPError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConnectionError(
            f"cannot download {name} ({reason}); to work offline put {CONFIG} and {WEIGHTS} into "
            f"$KANCOURSE_DATA/{name}/"
        ) from error
    return Path(path).parent


def _read(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder: one safetensors file, or the shards that its index names."""
    files = [WEIGHTS]
    if not (folder / WEIGHTS).is_file():
        if not (folder / SHARDS).is_file():
            raise FileNotFoundError(f"{folder} has no {WEIGHTS} (a .bin is a pickle, which is never loaded)")
        index = json.loads((folder / SHARDS).read_text(encoding="utf-8"))
        files = sorted({Path(file).name for file in index["weight_map"].values()})
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(folder / file)
        except SafetensorError as error:
            raise ValueError(f"{folder / file} is truncated or not a safetensors file ({error})") from error
    return tensors
