"""`kancourse interpolate`: a walk straight from one checkpoint to another, and what is told of the way."""

import json
from dataclasses import dataclass
from pathlib import Path

from kancourse.lab.checkpoint import save_checkpoint
from kancourse.lab.connectivity import alpha_grid, load_pair, measure_path, path_batches, path_table, write_along
from kancourse.lab.corpus_choice import CorpusChoice
from kancourse.lab.device import pick_device
from kancourse.lmc import align, interpolate

__all__ = ["Interpolate", "walk"]


@dataclass(kw_only=True)
class Interpolate(CorpusChoice):
    """How to walk from one checkpoint to another, and what to tell of the way."""

    n_alphas: int = 11  # points from 0 (the first) to 1 (the second); 0.5 is always among them
    align: bool = False  # first bring the second's hidden units and heads into the order of the first's
    residual: bool = False  # and its residual channels: for models from different initialisations
    max_batches: int | None = None  # of each split; None: the whole validation split, and as much of the training split
    batch_size: int = 32
    prompt: str = ""
    sample_tokens: int = 0  # what each point writes; 0: nothing
    temperature: float = 0.8
    seed: int = 0  # of what they write
    device: str = "auto"
    out: Path | None = None  # keep the numbers and texts here, as JSON
    middle: Path | None = None  # keep the model at 0.5 here, a checkpoint


def walk(model_a: str, model_b: str, config: Interpolate) -> None:
    """Print losses, errors, barriers and texts along the way, and keep what `config` asks for.

    Raises:
        FileNotFoundError, ValueError: as `load_pair`, `CorpusChoice.load_corpus` and `align`.
    """
    a, b = load_pair(model_a, model_b)
    corpus = config.load_corpus(a.tokenizer)
    model = a.model.to(pick_device(config.device, "float32").device)
    state_a, state_b = model.state_dict(), b.model.state_dict()
    if config.align or config.residual:
        state_b = align(model, state_a, state_b, residual=config.residual)
    alphas = alpha_grid(config.n_alphas).tolist()
    splits = path_batches(corpus, model.config.block_size, batch_size=config.batch_size, max_batches=config.max_batches)
    told = measure_path(model, state_a, state_b, splits, alphas)
    print(path_table(told))
    texts = []
    if config.sample_tokens:
        sampling = {"max_new_tokens": config.sample_tokens, "temperature": config.temperature, "seed": config.seed}
        texts = write_along(model, state_a, state_b, alphas, tokenizer=a.tokenizer, prompt=config.prompt, **sampling)
        for alpha, text in zip(alphas, texts, strict=True):
            print(f"\nalpha {alpha:.3f}: {text}")
    if config.out:
        config.out.write_text(json.dumps({"path": told, "texts": texts}, indent=1), encoding="utf-8")
    if config.middle:
        model.load_state_dict(interpolate(state_a, state_b, 0.5))
        save_checkpoint(config.middle, model, tokenizer=a.tokenizer)
