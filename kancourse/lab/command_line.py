"""What the commands share: where a run is kept, how far it came and what came of it, which model is meant, whether a
prompt can be read, and how a flag holds more than one value.

A flag for a dict or a list of dicts is YAML in one word: `--ffn_options '{n_expert: 4, top_k: 2}'`,
`--growth '[{step: 200, n_layer: 4}]'`.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import tyro
import yaml

from kancourse.gpt import GPT
from kancourse.lab.checkpoint import load_checkpoint
from kancourse.lab.experiment import Experiment
from kancourse.lab.hub import CONFIG, from_pretrained
from kancourse.lab.packed_file import is_packed, load_packed, trained_on
from kancourse.lab.tokenizers import Tokenizer
from kancourse.lab.train import BEST, LATEST
from kancourse.packed import PackedGPT

# What may differ when a run is taken up again, or says nothing about what is trained.
NOT_IN_THE_FOLDER = ("out_dir", "resume", "checkpoint_minutes", "micro_batch", "device", "compile", "record", "probes")
NOT_IN_THE_FOLDER += ("prompt", "sample_tokens", "temperature", "n_judged", "n_seeds")


REGISTRY = tyro.constructors.ConstructorRegistry()


@REGISTRY.primitive_rule
def _yaml_flag(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """A dict, or a list of dicts, as YAML in one word; any other type is tyro's own business."""
    is_list = get_origin(info.type) is list and get_args(info.type) == (dict,)
    if info.type is not dict and not is_list:
        return None
    kind, example = (list, "[{step: 200, n_layer: 4}]") if is_list else (dict, "{name: value}")

    def read(words: list[str]) -> Any:
        try:
            value = yaml.safe_load(words[0])
        except yaml.YAMLError as error:
            raise ValueError(f"not YAML: {' '.join(str(error).split())}") from error
        if not is_value(value):
            raise ValueError(f"expected YAML such as '{example}', got {words[0]!r}")
        return value

    def is_value(value: Any) -> bool:
        return isinstance(value, kind) and (kind is dict or all(isinstance(one, dict) for one in value))

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="YAML",
        instance_from_str=read,
        is_instance=is_value,
        str_from_instance=lambda value: [json.dumps(value)],
    )


def default_folder(experiment: Experiment) -> Path:
    """`runs_out/<model>_<corpus>_<hash>`: the same settings, the same folder; so a run is found again, and no other."""
    told = {name: value for name, value in vars(experiment).items() if name not in NOT_IN_THE_FOLDER}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:6]
    corpus = re.sub(r"[^A-Za-z0-9.]+", "-", Path(experiment.corpus).name)
    return Path("runs_out") / f"{experiment.model}_{corpus}_{digest}"


def how_far(folder: Path) -> str:
    """What is saved of a run that was stopped, in words; empty when nothing is."""
    saved = sorted(folder.glob(f"seed-*/{LATEST}"), key=lambda path: path.stat().st_mtime)
    if not saved:
        return ""
    return f"after step {load_checkpoint(saved[-1]).train_state['result']['steps']}, saved in {saved[-1]}"


def train_summary(record: dict[str, Any], folder: Path) -> str:
    """What `kancourse train` says at the end: loss beside its references, the judge's word, where it is, a sample."""
    corpus, loss, experiment, run = record["corpus"], record["val_loss"], record["experiment"], record["runs"][0]
    best, band = folder / f"seed-{run['seed']}" / BEST, f"{loss['min']:.4f} to {loss['max']:.4f}, {loss['n']} seed(s)"
    model = f"the model of {experiment['start']}" if experiment.get("start") else experiment["model"]
    floor = "" if corpus["val_floor"] is None else f", floor {corpus['val_floor']:.4f}"
    lines = [
        f"{model} ({record['parameters']['total']:,} parameters) on {corpus['corpus']}",
        f"validation loss {loss['mean']:.4f} nats per token ({band}); "
        f"unigram entropy {corpus['val_unigram_entropy']:.4f}{floor}",
    ]
    if judged := run.get("judged"):
        right = "" if judged["right"] is None else f", {judged['right']:.1%} of its answers right"
        lines.append(f"judged at temperature 1: {judged['grammatical']:.1%} of its sentences grammatical{right}")
    return "\n".join([*lines, f"best model: {best}", "", run["sample"]])


class Loaded(NamedTuple):
    """A model that can be asked, its tokenizer, and what it was trained on, where its file says so."""

    model: GPT | PackedGPT
    tokenizer: Tokenizer
    trained_on: dict[str, Any]


def load_either(checkpoint: str | None, model: str | None, *, command: str) -> Loaded:
    """The model of a checkpoint, of a packed file or of a folder with either, whose path is given once; its tokenizer.

    Args:
        checkpoint, model: the path, as one or the other. Of a run's folder its first seed's best checkpoint is meant.
        command: who asks, for the sentences.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no path or two, a file that is cut short or no model, or one that carries no tokenizer.
    """
    if (checkpoint is None) == (model is None):
        raise ValueError(f"give the path of one checkpoint, as in: kancourse {command} best.safetensors")
    path = Path(checkpoint or model)
    if path.is_dir() and not (path / CONFIG).is_file():
        inside = sorted([*path.glob(BEST), *path.glob(f"seed-*/{BEST}")])
        if not inside:
            raise FileNotFoundError(f"no {BEST} in {path}, nor in a folder seed-0 there, and no {CONFIG}")
        path = inside[0]
    if path.is_dir():
        found, told = from_pretrained(path), {}
    elif is_packed(path):
        found = load_packed(path)
        told = found.trained_on
    else:
        found = load_checkpoint(path)
        told = trained_on(found.train_state)
    if found.tokenizer is None:
        raise ValueError(f"{path} carries no tokenizer, so it can neither read nor write text")
    return Loaded(found.model, found.tokenizer, told)


def check_prompt(tokenizer: Tokenizer, prompt: str) -> None:
    """Raise ValueError, in one sentence, for a prompt that the tokenizer cannot write."""
    try:
        tokenizer.encode(prompt)
    except ValueError as error:
        reason = str(error).partition(";")[0]
        raise ValueError(f"the model cannot read this prompt: {reason}") from error
