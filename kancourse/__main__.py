"""The command line: `python -m kancourse COMMAND`, or `kancourse COMMAND`; every command has --help.

The flags of `train` are the fields of `Experiment`, by the same names; `--dataset` is another name for `--corpus`
everywhere. An error is one sentence and exit status 2; Ctrl-C saves what is being trained and says how to go on.
"""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from kancourse.lab.adapt import Adapt, adapt, with_adapter
from kancourse.lab.bench import bench
from kancourse.lab.checkpoint import load_checkpoint
from kancourse.lab.command_line import REGISTRY, check_prompt, default_folder, how_far, load_either, train_summary
from kancourse.lab.corpus_choice import CorpusChoice
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
from kancourse.lab.packed_file import save_packed, trained_on
from kancourse.lab.questions import has_answers, load_questions
from kancourse.lab.run import run
from kancourse.lab.sample import generate_stream
from kancourse.lab.sources import CORPORA
from kancourse.lab.walk import Interpolate, walk
from kancourse.packed import PackedGPT

app = tyro.extras.SubcommandApp()
CheckpointPath = Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
ModelPath = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
OutPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
CLEAR_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, RuntimeError, ImportError)


@dataclass(kw_only=True)
class Sample:
    """What to write, and how."""

    checkpoint: CheckpointPath = None  # its path, that of a packed model, or of a folder with either
    model: str | None = None  # the same, as a flag
    adapter: str | None = None  # what `adapt` has written for this model
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
class Evaluate(CorpusChoice):
    """What to score on what."""

    checkpoint: CheckpointPath = None  # its path, that of a packed model, or of a folder with either
    model: str | None = None  # the same, as a flag
    adapter: str | None = None  # what `adapt` has written for this model
    n_questions: int = 200  # where the corpus has questions with answers, ask so many of them; 0: none
    max_new_tokens: int = 200  # the longest answer
    batch_size: int = 32
    device: str = "auto"  # "auto", "cpu", "cuda" or "mps"
    dtype: str = "auto"  # "auto", "float32" or "bfloat16"


class _Flags(Experiment):
    """What to train, on what, and how; None means: as the preset or the corpus has it."""

    def __post_init__(self) -> None:
        """Whether they fit is asked in the command, where an error is one sentence."""


@app.command(name="train")
def train_command(flags: _Flags) -> None:
    """Train a model on a corpus; stopped, the same command goes on where it was. Also under torchrun."""
    folder = Path(flags.out_dir or default_folder(flags))
    experiment = Experiment(**vars(flags) | {"out_dir": str(folder)})
    with process_group():
        if world()[0] == 0:
            print(f"checkpoints go to {folder}; Ctrl-C stops, and the same command goes on where it was", flush=True)
            if experiment.warmup >= experiment.steps:
                print(f"{experiment.steps} steps are over before the warm-up of {experiment.warmup}: see --warmup")
        try:
            record = run_experiment(experiment)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(how_far(folder)) from None
        if world()[0] == 0:
            print(train_summary(record, folder))


@app.command(name="sample")
def sample_command(config: Sample) -> None:
    """Let a checkpoint, or a packed model, write."""
    model, tokenizer, _ = load_either(config.checkpoint, config.model, command="sample")
    if config.adapter:
        model = with_adapter(model, config.adapter)
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
def pack_command(model: ModelPath, out: OutPath, config: Pack) -> None:
    """Pack a checkpoint whose matrices are ternary into one small file, which `sample` reads."""
    checkpoint = load_checkpoint(model)
    told = {"tokenizer": checkpoint.tokenizer, "trained_on": trained_on(checkpoint.train_state)}
    save_packed(out, checkpoint.model, bits=float(config.bits), **told)
    print(f"{out}: {out.stat().st_size:,} bytes; {model}: {Path(model).stat().st_size:,} bytes")


@app.command(name="export")
def export_command(model: ModelPath, out: OutPath, config: Export) -> None:
    """Export a checkpoint, or a packed model: to a file *.gguf for llama.cpp, else to a folder as the Hub has it."""
    loaded, tokenizer, _ = load_either(model, None, command="export")
    if out.suffix.lower() == ".gguf":
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
    model, tokenizer, learned = load_either(config.checkpoint, config.model, command="evaluate")
    if config.adapter:
        model = with_adapter(model, config.adapter)
    packed = isinstance(model, PackedGPT)
    corpus = config.load_corpus(tokenizer)
    device = pick_device("cpu" if packed else config.device, "float32" if packed else config.dtype)
    print(f"{device.reason}\n{corpus}", flush=True)
    seen, here = learned.get("domains"), corpus.source.get("domains")
    if seen and here and learned.get("corpus") == corpus.name and set(here) - set(seen):
        print(f"it was trained on {', '.join(seen)} only: --domains {' '.join(seen)} leaves the others out", flush=True)
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
def interpolate_command(model_a: ModelPath, model_b: ModelPath, config: Interpolate) -> None:
    """Walk straight from one checkpoint to another: losses, errors, barriers, texts."""
    walk(model_a, model_b, config)


@app.command(name="adapt")
def adapt_command(model: ModelPath, out: OutPath, config: Adapt) -> None:
    """Teach a checkpoint, or a packed model, something new beside its weights: low-rank adapters, in a file."""
    loaded, tokenizer, _ = load_either(model, None, command="adapt")
    print(adapt(loaded, tokenizer, out, config))


@app.command(name="grow")
def grow_command(model: ModelPath, out: OutPath, sizes: GrowSizes) -> None:
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
            registry=REGISTRY,
        )
    except CLEAR_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt as stop:
        again = shlex.join(["python", "-m", "kancourse", *arguments])
        saved = str(stop.args[0]) if stop.args else ""  # see train_command
        command = arguments[0] if arguments else ""
        if saved or command == "run":
            goes_on = f"; to go on from the last checkpoint: {again}"
        else:
            goes_on = "; there is no checkpoint to go on from" if command == "train" else ""
        print(f"\nstopped {saved}".rstrip() + goes_on, file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
