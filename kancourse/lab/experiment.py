"""An experiment: one model on one corpus over some seeds, described by one flat dataclass.

Its fields are the flags of `kancourse train`, the parameters of `train.ipynb` and the keys of a run's YAML: a name
exists once and means the same everywhere. What comes out is a record (see `records.py`).
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from kancourse.gpt import GPT
from kancourse.lab.checkpoint import load_checkpoint
from kancourse.lab.corpus import Corpus, load_corpus
from kancourse.lab.distributed import world
from kancourse.lab.evaluate import evaluate
from kancourse.lab.meters import count_flops, count_parameters
from kancourse.lab.microworld import judge
from kancourse.lab.probes import PROBES
from kancourse.lab.records import check_record_name, environment, summary, write_record
from kancourse.lab.records import settings as recorded
from kancourse.lab.sample import generate, generate_documents
from kancourse.lab.start import build_from, load_start, start_config
from kancourse.lab.tokenizers import Tokenizer
from kancourse.lab.train import BEST, TrainConfig, TrainResult, train
from kancourse.zoo import ModelConfig, build, configure


@dataclass(kw_only=True)
class Experiment(TrainConfig):
    """What to train, on what, and how. `None` means: as the preset or the corpus has it."""

    model: str = "llama-nano"  # a preset of kancourse.zoo
    n_layer: int | None = None
    n_head: int | None = None
    n_embd: int | None = None
    ffn_dim: int | None = None
    block_size: int | None = None
    position: str | None = None  # "learned", "rope" or "none"
    dropout: float | None = None
    tie_head: bool | None = None
    embedding_std: float | None = None
    mixer: str | None = None  # names of kancourse.zoo, as all seats
    ffn: str | None = None
    linear: str | None = None
    norm: str | None = None
    block_norm: str | None = None
    head: str | None = None
    mixer_options: dict | None = None  # keyword arguments of that part
    ffn_options: dict | None = None
    linear_options: dict | None = None
    head_options: dict | None = None
    start: str | None = None  # go on from the model of this checkpoint, or of "gpt2": parts and sizes are its own
    corpus: str = "microworld"  # a name, or the path of a text file
    level: int = 1  # microworld: 1, 2 or 3
    domains: tuple[str, ...] | None = None  # microworld: only these
    n_documents: int | None = None  # microworld: generate so many instead of reading the snapshot
    max_characters: int | None = None  # read no more of the corpus than this
    tokenizer: str = "auto"  # "bytes", "characters", "words", "bpe", "gpt2", or the corpus's own
    bpe_size: int = 4096  # vocabulary of a "bpe" that is trained here
    n_seeds: int = 1  # seeds are seed, seed + 1, …: of weights, data order and dropout
    prompt: str = ""  # what the sample continues; empty: it begins a document
    sample_tokens: int = 300
    temperature: float = 0.8
    n_judged: int = 100  # microworld: documents drawn at temperature 1 and judged
    probes: tuple[str, ...] = ()  # further measurements of every trained model, from kancourse.lab.probes
    record: str | None = None  # write data/results/<record>.json

    def __post_init__(self) -> None:
        super().__post_init__()
        check_record_name(self.record)
        if self.n_seeds < 1:
            raise ValueError(f"n_seeds must be at least 1, got {self.n_seeds}")
        unknown = [name for name in self.probes if name not in PROBES]
        if unknown:
            raise ValueError(f"unknown probe {unknown[0]!r}; known: {', '.join(PROBES) or 'none'}")
        if not self.start:
            self.model_config(vocab_size=2)  # sizes that do not fit are refused before a corpus is loaded

    def load_corpus(self) -> Corpus:
        """The corpus, tokenized; with `start`, as the model that is there has learned to read."""
        tokenizer: str | Tokenizer = self.tokenizer
        if self.start and tokenizer == "auto":
            tokenizer = load_start(self.start).tokenizer or "gpt2"
        return load_corpus(
            self.corpus,
            tokenizer=tokenizer,
            vocab_size=self.bpe_size,
            level=self.level,
            domains=self.domains,
            n_documents=self.n_documents,
            max_characters=self.max_characters,
        )

    def model_config(self, vocab_size: int) -> ModelConfig:
        """The preset with what is given here in place of its own."""
        names = [f.name for f in fields(ModelConfig) if hasattr(self, f.name)]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.start:
            return start_config(load_start(self.start), vocab_size=vocab_size, **given)
        return configure(self.model, vocab_size=vocab_size, **given)


def run_experiment(experiment: Experiment) -> dict[str, Any]:
    """Train every seed, evaluate, sample; with `record` set, write the record.

    With `out_dir`, seed s has its checkpoints in `out_dir/seed-s`, and a run that was stopped goes on where it was.

    Returns:
        The record: kind, experiment, corpus, model, parameters, runs (one per seed), val_loss (mean and band of the
        best validation losses over seeds), environment.
    """
    corpus = experiment.load_corpus()
    config = experiment.model_config(corpus.tokenizer.vocab_size)
    runs = []
    for seed in range(experiment.seed, experiment.seed + experiment.n_seeds):
        model, result = train_seed(experiment, corpus, config, seed)
        runs.append(measure(model, result, experiment, corpus, seed))
    record = {
        "kind": "training",
        "experiment": recorded(experiment),
        "corpus": corpus.describe(),
        "model": model.config.to_dict(),  # after its last growth
        "parameters": count_parameters(model),
        "flops_per_token": count_flops(model, 1, config.block_size) / config.block_size,
        "val_loss": summary([run["best_val_loss"] for run in runs]),
        "runs": runs,
        "environment": environment(),
    }
    if experiment.record and world()[0] == 0:
        write_record(experiment.record, record)
    return record


def train_seed(experiment: Experiment, corpus: Corpus, config: ModelConfig, seed: int) -> tuple[GPT, TrainResult]:
    """Train one seed; with `out_dir`, the model that comes back is the one of the best validation."""
    settings: dict[str, Any] = {f.name: getattr(experiment, f.name) for f in fields(TrainConfig)} | {"seed": seed}
    if experiment.out_dir:
        settings["out_dir"] = str(Path(experiment.out_dir) / f"seed-{seed}")
    model = build_from(load_start(experiment.start), config) if experiment.start else build(config, seed=seed)
    result = train(model, corpus, TrainConfig(**settings))
    if experiment.out_dir:
        best = load_checkpoint(Path(settings["out_dir"]) / BEST).model
        if best.config == model.config:  # else it is from before the last growth, which no later step improved on
            model.load_state_dict(best.state_dict())
    return model, result


def measure(model: GPT, result: TrainResult, experiment: Experiment, corpus: Corpus, seed: int) -> dict[str, Any]:
    """What the record says of one seed: losses, cost, a sample, and on microworld the judge's shares."""
    generator = torch.Generator().manual_seed(seed)
    run = {
        "seed": seed,
        "val_loss": result.val_loss,
        "best_val_loss": result.best_val_loss,
        "best_step": result.best_step,
        "bits_per_character": evaluate(
            model, corpus.val, batch_size=experiment.batch_size, max_batches=experiment.eval_batches
        ).bits_per_character,
        "stopped": result.stopped,
        "steps": result.steps,
        "tokens": result.tokens,
        "flops": result.flops,
        "seconds": round(result.seconds, 1),
        "validations": [
            {"step": row["step"], "val_loss": row["val_loss"]} for row in result.history if "val_loss" in row
        ],
        "sample": experiment.prompt
        + generate(
            model,
            experiment.prompt,
            tokenizer=corpus.tokenizer,
            max_new_tokens=experiment.sample_tokens,
            temperature=experiment.temperature,
            begin_document=not experiment.prompt,
            stop_at_end=False,
            generator=generator,
        ),
    }
    if experiment.corpus == "microworld" and experiment.n_judged:
        limit = model.config.block_size
        documents = generate_documents(
            model, experiment.n_judged, tokenizer=corpus.tokenizer, max_new_tokens=limit, generator=generator
        )
        verdict = judge("\n\n".join(documents))
        run["judged"] = {
            "documents": experiment.n_judged,
            "sentences": verdict.n_sentences,
            "grammatical": verdict.n_grammatical / max(1, verdict.n_sentences),
            "consistent": verdict.n_consistent / max(1, verdict.n_sentences),
            "questions": verdict.n_questions,
            "right": verdict.n_right / verdict.n_questions if verdict.n_questions else None,
        }
    if experiment.probes:
        run["probes"] = {name: PROBES[name](model, corpus, seed) for name in experiment.probes}
    return run
