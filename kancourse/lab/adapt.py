"""`kancourse adapt`: a finished model learns something new beside its weights, and the adapters are kept in a file.

The base is not touched; a packed one stays packed. `sample` and `evaluate` take the file with `--adapter`.
"""

from dataclasses import dataclass
from pathlib import Path

from kancourse.gpt import GPT
from kancourse.lab.adapter_file import load_adapter, save_adapter
from kancourse.lab.corpus_choice import CorpusChoice
from kancourse.lab.device import pick_device
from kancourse.lab.evaluate import evaluate
from kancourse.lab.tokenizers import Tokenizer
from kancourse.lab.train import TrainConfig, train
from kancourse.lora import add_lora, is_target
from kancourse.packed import PackedGPT

__all__ = ["Adapt", "adapt", "with_adapter"]

USUAL = ("mixer.*", "ffn.c_*", "shared.*", "lm_head")  # all but routed experts, which see a share of the tokens only


@dataclass(kw_only=True)
class Adapt(CorpusChoice):
    """What to learn, beside which layers, and how."""

    rank: int = 8  # r of every adapter
    alpha: float = 16.0  # what it says is multiplied by alpha/rank
    targets: tuple[str, ...] | None = None  # layers, as "mixer.*" or "lm_head"; None: all but routed experts
    steps: int = 160
    batch_size: int = 8
    lr: float = 3e-3
    warmup: int = 10
    eval_batches: int | None = 8  # validation batches; None: the whole split
    seed: int = 0
    device: str = "auto"  # "auto", "cpu", "cuda" or "mps"; a packed model stays on the CPU


def adapt(model: GPT | PackedGPT, tokenizer: Tokenizer, out: Path, config: Adapt) -> str:
    """Train adapters for a model and write them to a file; returns what came of it, in words.

    Args:
        model: of a checkpoint or of a packed file; it is given adapters, in place.
        tokenizer: the model's, which has to know the corpus's words.
        out: the file, usually `*.safetensors`.
        config: what to learn, and how.

    Raises:
        ValueError: as `CorpusChoice.load_corpus`, `add_lora` and `TrainConfig`.
    """
    corpus = config.load_corpus(tokenizer)
    packed = isinstance(model, PackedGPT)
    pupil, device = model.model if packed else model, "cpu" if packed else config.device
    told = {name: getattr(config, name) for name in ("steps", "batch_size", "lr", "warmup", "eval_batches", "seed")}
    settings = TrainConfig(**told, device=device, eval_every=config.steps)
    where = pick_device(device, "auto")
    pupil.to(where.device)
    before = evaluate(pupil, corpus.val, max_batches=config.eval_batches, device=where).loss
    targets = config.targets or [t for t in USUAL if any(is_target(name, t) for name, _ in pupil.named_modules())]
    adapters = add_lora(pupil, rank=config.rank, alpha=config.alpha, targets=targets, seed=config.seed)
    result = train(pupil, corpus, settings)
    save_adapter(out, pupil)
    size = sum(p.numel() for p in pupil.parameters() if p.requires_grad)  # all else is frozen
    return (
        f"loss {before:.4f} → {result.val_loss:.4f} nats per token on {corpus.name}; "
        f"{len(adapters)} adapters, {size:,} numbers, {out.stat().st_size:,} bytes in {out}"
    )


def with_adapter(model: GPT | PackedGPT, path: str | Path) -> GPT | PackedGPT:
    """The model with the adapters of a file, in place; one that was packed is packed still.

    Raises:
        FileNotFoundError, ValueError: as `load_adapter`.
    """
    if not isinstance(model, PackedGPT):
        load_adapter(path, model)
        return model
    load_adapter(path, model.model)
    return PackedGPT(model.model)  # anew: its loops know no adapters, and go by modules where there is one
