"""What every experiment needs: corpora, training, evaluation, sampling, checkpoints, meters, records.

The names most used stand here; the rest is one file deeper, one idea a file.
"""

from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.corpus import Corpus, load_corpus
from kancourse.lab.device import Device, pick_device
from kancourse.lab.evaluate import Evaluation, evaluate
from kancourse.lab.experiment import Experiment, run_experiment
from kancourse.lab.meters import count_flops, count_parameters, peak_memory, saved_tensor_bytes
from kancourse.lab.sample import generate
from kancourse.lab.train import TrainConfig, TrainResult, train

__all__ = [
    "Corpus",
    "Device",
    "Evaluation",
    "Experiment",
    "TrainConfig",
    "TrainResult",
    "count_flops",
    "count_parameters",
    "evaluate",
    "generate",
    "load_checkpoint",
    "load_corpus",
    "peak_memory",
    "pick_device",
    "run_experiment",
    "save_checkpoint",
    "saved_tensor_bytes",
    "train",
]
