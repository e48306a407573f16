"""What the commands share: where a run is kept, how far it came, which model is meant, whether a prompt can be read."""

import hashlib
import json
import re
from pathlib import Path

from kancourse.gpt import GPT
from kancourse.lab.checkpoint import load_checkpoint
from kancourse.lab.experiment import Experiment
from kancourse.lab.packed_file import is_packed, load_packed
from kancourse.lab.tokenizers import Tokenizer
from kancourse.lab.train import LATEST
from kancourse.packed import PackedGPT

# What may differ when a run is taken up again, or says nothing about what is trained.
NOT_IN_THE_FOLDER = ("out_dir", "resume", "checkpoint_minutes", "micro_batch", "device", "compile", "record", "probes")
NOT_IN_THE_FOLDER += ("prompt", "sample_tokens", "temperature", "n_judged", "n_seeds")


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


def load_either(checkpoint: str | None, model: str | None) -> tuple[GPT | PackedGPT, Tokenizer]:
    """The model of a checkpoint or of a packed file, whose path is given once, and its tokenizer.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no path or two, a file that is cut short or no model, or one that carries no tokenizer.
    """
    if (checkpoint is None) == (model is None):
        raise ValueError("give the path of one checkpoint, as in: kancourse sample best.safetensors")
    path = checkpoint or model
    loaded = load_packed(path) if is_packed(path) else load_checkpoint(path)
    if loaded.tokenizer is None:
        raise ValueError(f"{path} carries no tokenizer, so it can neither read nor write text")
    return loaded.model, loaded.tokenizer


def check_prompt(tokenizer: Tokenizer, prompt: str) -> None:
    """Raise ValueError, in one sentence, for a prompt that the tokenizer cannot write."""
    try:
        tokenizer.encode(prompt)
    except ValueError as error:
        reason = str(error).partition(";")[0]
        raise ValueError(f"the model cannot read this prompt: {reason}") from error
