"""Where a run starts when it does not start from nothing: the model of a checkpoint, or a published GPT-2.

Only weights are taken over. Optimiser, schedule and data order are the new run's, as in fine-tuning.
"""

import dataclasses
from pathlib import Path
from typing import Any

from kancourse.gpt import GPT
from kancourse.lab.checkpoint import Checkpoint, load_checkpoint
from kancourse.lab.gpt2_weights import REVISIONS, load_gpt2
from kancourse.zoo import ModelConfig, build

MAY_CHANGE = ("dropout", "block_size")


def load_start(source: str | Path) -> Checkpoint:
    """The model to go on from; a GPT-2 comes without its tokenizer, which is "gpt2".

    Args:
        source: a checkpoint's file; "gpt2", "gpt2-medium", "gpt2-large" or "gpt2-xl"; or the folder of a GPT-2 that
            transformers has saved.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: as `load_checkpoint` and `load_gpt2`.
    """
    if str(source) in REVISIONS or Path(source).is_dir():
        return Checkpoint(model=load_gpt2(source), tokenizer=None, train_state={})
    return load_checkpoint(source)


def start_config(start: Checkpoint, *, vocab_size: int, **given: Any) -> ModelConfig:
    """The config of the model to go on from, with another dropout or a block_size within its reach.

    Raises:
        ValueError: a field is given that the model has otherwise, positions it has not learned, or too many words.
    """
    config = start.model.config
    if vocab_size > config.vocab_size:
        raise ValueError(f"the tokenizer has {vocab_size} tokens, the model to start from {config.vocab_size}")
    for name, value in given.items():
        if name not in MAY_CHANGE and name != "vocab_size" and getattr(config, name) != value:
            raise ValueError(f"the model to start from has {name} {getattr(config, name)!r}, not {value!r}")
    changes = {name: given[name] for name in MAY_CHANGE if name in given}
    longest = config.block_size
    if config.position == "learned" and changes.get("block_size", longest) > longest:
        raise ValueError(f"the model to start from has learned {longest} positions, not {changes['block_size']}")
    return dataclasses.replace(config, **changes)


def build_from(start: Checkpoint, config: ModelConfig) -> GPT:
    """A model of this config (see `start_config`) with the weights of the one to go on from."""
    model, weights = build(config, seed=0), start.model.state_dict()
    if config.position == "learned":
        weights["wpe.weight"] = weights["wpe.weight"][: config.block_size]
    model.load_state_dict(weights)
    return model
