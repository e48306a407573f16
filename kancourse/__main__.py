"""The command line: `python -m kancourse COMMAND`, or `kancourse COMMAND`; every command has --help.

The flags of `train` are the fields of `Experiment`, by the same names; `--dataset` is another name for `--corpus`
everywhere. An error is one sentence and exit status 2; Ctrl-C saves what is being trained and says how to go on.
"""

import json
import re
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
import yaml

from kancourse.lab.bench import bench
from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.command_line import check_prompt, default_folder, how_far, load_either
from kancourse.lab.connectivity import alpha_grid, load_pair, measure_path, path_batches, path_table, write_along
from kancourse.lab.corpus import load_corpus
from kancourse.lab.device import pick_device
from kancourse.lab.distributed import process_group, world
from kancourse.lab.evaluate import evaluate
from kancourse.lab.exact_match import exact_match
from kancourse.lab.experiment import Experiment, run_experiment
from kancourse.lab.gguf_export import export_gguf
from kancourse.lab.grow_file import GrowSizes, grow_file
from kancourse.lab.hub import push_to_hub, save_pretrained
from kancourse.lab.local_files import local_folder
from kancourse.lab.mixture import Mixture, component_losses
from kancourse.lab.packed_file import save_packed
from kancourse.lab.questions import has_answers, load_questions
from kancourse.lab.run import run
from kancourse.lab.sample import generate_stream
from kancourse.lab.sources import CORPORA
from kancourse.lmc import align, interpolate
from kancourse.packed import PackedGPT

app = tyro.extras.SubcommandApp()
CheckpointPath = Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
CLEAR_ERRORS = (ValueError, OSError, FloatingPointError, RuntimeError, ImportError)


@dataclass(kw_only=True)
class Sample:
    """What to write, and how."""

    checkpoint: CheckpointPath = None  # its path, or that of a packed model
    model: str | None = None  # the same, as a flag
    prompt: str = ""  # empty: begin a document
    max_new_tokens: int = 200
    temperature: float = 0.8  # 0: always the likeliest token
    top_k: int | None = None  # draw from the k likeliest tokens only
    top_p: float | None = None  # draw from the fewest likeliest tokens that reach this probability
    seed: int = 0  # another seed, another text


@dataclass(kw_only=True)
class Pack:
    """How to pack."""

    bits: Literal["2", "1.6"] = "2"  # per weight; 2 is used as it lies in the file, 1.6 is smaller and read first


@dataclass(kw_only=True)
class Export:
    """How to export."""

    weights: Literal["f32", "f16", "tq2_0", "tq1_0"] = "f16"  # GGUF; tq: 2.1 and 1.7 bits, wide models only
    title: str | None = None  # of the folder's model card
    license: str | None = None  # of the weights, as the Hub names licences, e.g. cc0-1.0
    push: str | None = None  # upload the folder to this repository of the Hub, owner/name
    private: bool = False  # if that repository is made, only its owner sees it


@dataclass(kw_only=True)
class Evaluate:
    """What to score on what."""

    checkpoint: CheckpointPath = None  # its path, or that of a packed model
    model: str | None = None  # the same, as a flag
    corpus: str = "microworld"  # a name, a path, or a mixture such as gsm8k:2+microworld:1
    level: int = 1  # microworld's
    domains: tuple[str, ...] | None = None  # only these, of a corpus that has domains
    max_characters: int | None = None  # read no more of the corpus than this
    n_questions: int = 200  # where the corpus has questions with answers, ask so many of them; 0: none
    max_new_tokens: int = 200  # the longest answer
    batch_size: int = 32
    device: str = "auto"  # "auto", "cpu", "cuda" or "mps"
    dtype: str = "auto"  # "auto", "float32" or "bfloat16"


@dataclass(kw_only=True)
class Interpolate:
    """How to walk from one checkpoint to another, and what to tell of the way."""

    corpus: str = "microworld"  # a name, or the path of a text file
    level: int = 1  # microworld's
    max_characters: int | None = None  # read no more of the corpus than this
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


@app.command(name="train")
def train_command(experiment: Experiment) -> None:
    """Train a model on a corpus; stopped, the same command goes on where it was. Also under torchrun."""
    options = {name: value for name, value in vars(experiment).items() if name.endswith("_options") and value}
    typed = {name: {key: yaml.safe_load(v) for key, v in value.items()} for name, value in options.items()}
    folder = Path(experiment.out_dir or default_folder(experiment))
    with process_group():
        if world()[0] == 0:
            print(f"checkpoints go to {folder}; Ctrl-C stops, and the same command goes on where it was", flush=True)
        try:
            record = run_experiment(replace(experiment, out_dir=str(folder), **typed))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(how_far(folder)) from None
        if world()[0] != 0:
            return
        corpus, loss = record["corpus"], record["val_loss"]
        floor = "" if corpus["val_floor"] is None else f", floor {corpus['val_floor']:.4f}"
        print(f"{experiment.model} ({record['parameters']['total']:,} parameters) on {corpus['corpus']}")
        print(f"validation loss {loss['mean']:.4f} nats per token ({loss['min']:.4f} to {loss['max']:.4f}, ", end="")
        print(f"{loss['n']} seed(s)); unigram entropy {corpus['val_unigram_entropy']:.4f}{floor}\n")
        print(record["runs"][0]["sample"])


@app.command(name="sample")
def sample_command(config: Sample) -> None:
    """Let a checkpoint, or a packed model, write."""
    model, tokenizer = load_either(config.checkpoint, config.model)
    check_prompt(tokenizer, config.prompt)
    print(config.prompt, end="", flush=True)
    for piece in generate_stream(
        model,
        config.prompt,
        tokenizer=tokenizer,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        generator=torch.Generator().manual_seed(config.seed),
    ):
        print(piece, end="", flush=True)
    print()


@app.command(name="pack")
def pack_command(
    model: Annotated[str, tyro.conf.Positional], out: Annotated[Path, tyro.conf.Positional], config: Pack
) -> None:
    """Pack a checkpoint whose matrices are ternary into one small file, which `sample` reads."""
    checkpoint = load_checkpoint(model)
    save_packed(out, checkpoint.model, tokenizer=checkpoint.tokenizer, bits=float(config.bits))
    print(f"{out}: {out.stat().st_size:,} bytes; {model}: {Path(model).stat().st_size:,} bytes")


@app.command(name="export")
def export_command(
    model: Annotated[str, tyro.conf.Positional], out: Annotated[Path, tyro.conf.Positional], config: Export
) -> None:
    """Export a checkpoint, or a packed model: to a file *.gguf for llama.cpp, else to a folder as the Hub has it."""
    loaded, tokenizer = load_either(model, None)
    if out.suffix == ".gguf":
        if config.push:
            raise ValueError("--push uploads a folder, not a GGUF file: leave the ending .gguf away")
        export_gguf(out, loaded, tokenizer=tokenizer, weights=config.weights)
        print(f"{out}: {out.stat().st_size:,} bytes; {model}: {Path(model).stat().st_size:,} bytes")
        return
    save_pretrained(loaded, tokenizer, out, title=config.title, license=config.license)
    print("\n".join(f"{path}: {path.stat().st_size:,} bytes" for path in sorted(out.iterdir())))
    if config.push:
        print(push_to_hub(out, config.push, private=config.private))


@app.command(name="evaluate")
def evaluate_command(config: Evaluate) -> None:
    """Score a checkpoint on a corpus: loss, bits per character, and, where there are answers, exact match."""
    model, tokenizer = load_either(config.checkpoint, config.model)
    packed = isinstance(model, PackedGPT)
    corpus = load_corpus(
        config.corpus,
        tokenizer=tokenizer,
        level=config.level,
        domains=config.domains,
        max_characters=config.max_characters,
    )
    device = pick_device("cpu" if packed else config.device, "float32" if packed else config.dtype)
    print(f"{device.reason}\n{corpus}", flush=True)
    scored = model.model if packed else model.to(device.device)
    print(evaluate(scored, corpus.val, batch_size=config.batch_size, device=device), flush=True)
    if isinstance(corpus, Mixture):
        for name, told in component_losses(scored, corpus, batch_size=config.batch_size, device=device).items():
            print(f"{name}: {told}", flush=True)
    if config.n_questions and has_answers(config.corpus):
        questions = load_questions(config.corpus, domains=config.domains, n_questions=config.n_questions)
        print(exact_match(model, questions, tokenizer, max_new_tokens=config.max_new_tokens))


@app.command(name="corpora")
def corpora_command() -> None:
    """List the named corpora: what each is, its licence, and which are on this machine."""
    print("microworld: short texts of a grammar whose exact entropy is known; CC0 1.0; comes with the package")
    for row in CORPORA.values():
        print(
            f"{row.name}: {row.about}; {row.licence}; {'on this machine' if local_folder(row.name) else 'on the Hub'}"
        )


@app.command(name="interpolate")
def interpolate_command(
    model_a: Annotated[str, tyro.conf.Positional], model_b: Annotated[str, tyro.conf.Positional], config: Interpolate
) -> None:
    """Walk straight from one checkpoint to another: losses, errors, barriers, texts."""
    a, b = load_pair(model_a, model_b)
    corpus = load_corpus(config.corpus, tokenizer=a.tokenizer, level=config.level, max_characters=config.max_characters)
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


@app.command(name="grow")
def grow_command(
    model: Annotated[str, tyro.conf.Positional], out: Annotated[Path, tyro.conf.Positional], sizes: GrowSizes
) -> None:
    """Grow a checkpoint into a larger one that computes the same function."""
    print(f"{out}: {grow_file(model, out, sizes)}")


@app.command(name="run")
def run_command(yaml: Annotated[Path, tyro.conf.Positional], *, output: Path | None = None) -> None:
    """Execute a notebook with a run file's parameters, strictly."""
    print(run(yaml, output=output))


@app.command(name="bench")
def bench_command(names: Annotated[tuple[str, ...], tyro.conf.Positional] = (), *, threads: int | None = None) -> None:
    """Measure the fast paths against their naive twins on this machine, as ratios."""
    if threads is not None:
        torch.set_num_threads(threads)
    for line in bench(list(names)):
        print(line, flush=True)


@app.command(name="notebooks")
def notebooks_command(
    what: Annotated[Literal["sync", "stamp", "strip", "execute", "check"], tyro.conf.Positional],
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
) -> None:
    """Tend the notebooks (all, or the named ones): mirror cells, badges and tables, outputs, and their contract."""
    from kancourse.lesson import notebooks  # the lessons need Jupyter and matplotlib, the rest of the command line not

    told = getattr(notebooks, what)(notebooks.NotebookArgs(names=names))
    if what == "check":
        for name, findings in told.items():
            for finding in findings:
                print(f"{name}: {finding}")
        if told:
            raise SystemExit(1)
    elif what == "execute":
        for name, minutes in told.items():
            print(f"{name}: {minutes:.1f} minutes")
    else:
        print(f"changed: {', '.join(str(path.relative_to(notebooks.ROOT)) for path in told) or 'nothing'}")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and do what it says."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app.cli(
            prog="kancourse",
            description=__doc__,
            args=[re.sub("^--dataset(?==|$)", "--corpus", argument) for argument in arguments],
            use_underscores=True,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    except CLEAR_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt as stop:
        again = shlex.join(["python", "-m", "kancourse", *arguments])
        saved = str(stop.args[0]) if stop.args else ""  # see train_command
        goes_on = {"train": bool(saved), "run": True}
        print(f"\nstopped {saved}".rstrip(), end="", file=sys.stderr)
        if goes_on.get(arguments[0] if arguments else "", False):
            print(f"; to go on from the last checkpoint: {again}", file=sys.stderr)
        else:
            print("; there is no checkpoint to go on from", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
