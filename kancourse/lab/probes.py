"""Probes: what a run may measure of a trained model beyond its loss, by name.

An `Experiment` names them in `probes`, and each run's record keeps what they return. A new one adds its row.
"""

from collections.abc import Callable
from typing import Any

from kancourse.bitnet import zero_fraction
from kancourse.gpt import GPT
from kancourse.lab.corpus import Corpus
from kancourse.lab.exact_match import exact_match_probe
from kancourse.lab.forgetting import forgetting
from kancourse.lab.growth_levels import growth_levels
from kancourse.lab.kan_probes import pruning
from kancourse.lab.lora_probes import adaptation
from kancourse.lab.mixkabrn_costs import costs
from kancourse.lab.mixture import component_losses
from kancourse.lab.moe_probes import experts
from kancourse.lab.recall import recall

Probe = Callable[[GPT, Corpus, int], dict[str, Any]]  # (model in eval mode, corpus, seed) -> what JSON can hold


def ternary_zeros(model: GPT, corpus: Corpus, seed: int) -> dict[str, Any]:
    """The share of zeros among the weight codes: of the model, and of each ternary layer."""
    layers = {name: zero_fraction(module) for name, module in model.named_modules() if hasattr(module, "weight_codes")}
    return {"zeros": zero_fraction(model), "by_layer": layers}


def components(model: GPT, corpus: Corpus, seed: int) -> dict[str, Any]:
    """The validation loss on each component of a mixture, in nats per token and in bits per character."""
    told = component_losses(model, corpus)
    return {name: {"loss": e.loss, "bits_per_character": e.bits_per_character} for name, e in told.items()}


PROBES: dict[str, Probe] = {
    "ternary_zeros": ternary_zeros,
    "recall": recall,
    "experts": experts,
    "forgetting": forgetting,
    "pruning": pruning,
    "adaptation": adaptation,
    "growth_levels": growth_levels,
    "exact_match": exact_match_probe,
    "components": components,
    "costs": costs,
}
