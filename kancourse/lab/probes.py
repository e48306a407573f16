"""Probes: what a run may measure of a trained model beyond its loss, by name.

An `Experiment` names them in `probes`, and each run's record keeps what they return. A new one adds its row.
"""

from collections.abc import Callable
from typing import Any

from kancourse.gpt import GPT
from kancourse.lab.corpus import Corpus
from kancourse.lab.recall import recall

Probe = Callable[[GPT, Corpus, int], dict[str, Any]]  # (model in eval mode, corpus, seed) -> what JSON can hold

PROBES: dict[str, Probe] = {"recall": recall}
