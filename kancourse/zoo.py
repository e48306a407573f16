"""Assembly: names → parts, named sizes, and `build(config)`.

Notable points:
- The one table from names to factories stands here (`MIXERS`, `FFNS`, `LINEARS`, `NORMS`); a new idea adds its row.
- A `ModelConfig` is plain data: a checkpoint stores it, so a model can always be rebuilt.
- Presets are sizes with a name. Most have minGPT's and GPT-2's shapes, so that results can be held against others'.
"""

import dataclasses
import difflib
import inspect
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from kancourse.attention import CausalSelfAttention
from kancourse.bit_kan import BitKAN, BitKANFeedForward
from kancourse.bit_pack import PackedBitLinear
from kancourse.bit_swiglu import OneNormSwiGLU
from kancourse.bitnet import BinaryLinear, BitLinear
from kancourse.elephant import ElephantGLU, GatedFeedForward, XElephantGLU
from kancourse.gpt import GPT, MLP, GPTConfig, LinearFactory, NormFactory, SwiGLU
from kancourse.growth_vocabulary import CurriculumHead
from kancourse.kan import KANFeedForward, KANLinear, SharedKANLinear
from kancourse.mini_mixture import FlatMixture, MiniMixture
from kancourse.moe import MoE, mixtral_gate, moe_feed_forward, sigmoid_gate, softmax_gate
from kancourse.packed_kan import PackedBitKAN
from kancourse.pattern_ffn import PatternAttention, TokenParameterAttention
from kancourse.retention import MultiScaleRetention
from kancourse.segment_memory import BandedAttention, SegmentedAttention

MIXERS = {
    "attention": CausalSelfAttention,
    "retention": MultiScaleRetention,
    "banded": BandedAttention,
    "segmented": SegmentedAttention,
}
FFNS = {
    "mlp": MLP,
    "swiglu": SwiGLU,
    "one_norm_swiglu": OneNormSwiGLU,
    "elephant": ElephantGLU,
    "x_elephant": XElephantGLU,
    "bilinear": partial(GatedFeedForward, gate=lambda hidden: nn.Identity()),
    "glu": partial(GatedFeedForward, gate=lambda hidden: nn.Sigmoid()),
    "pattern": PatternAttention,
    "token_parameters": TokenParameterAttention,
    "mini_mixture": MiniMixture,
    "flat_mixture": FlatMixture,
    "kan": KANFeedForward,
    "bit_kan": BitKANFeedForward,
    "packed_bit_kan": partial(BitKANFeedForward, layer=PackedBitKAN),
    "dense_mlp": lambda config, linear: MLP(config),
}
LINEARS = {
    "dense": nn.Linear,
    "kan": KANLinear,
    "bit": BitLinear,
    "binary": BinaryLinear,
    "bit_kan": BitKAN,
    "packed": PackedBitLinear,
    "packed_bit_kan": PackedBitKAN,
    "shared_kan": SharedKANLinear,
    "curriculum": CurriculumHead,
}
GATES = {"sigmoid": sigmoid_gate, "softmax": softmax_gate, "mixtral": mixtral_gate}
NORMS = {
    "layer": partial(nn.LayerNorm, eps=1e-5),
    "rms": partial(nn.RMSNorm, eps=1e-5),
    "none": lambda n_embd: nn.Identity(),
}
SEATS = {"mixer": MIXERS, "ffn": FFNS, "linear": LINEARS, "norm": NORMS, "block_norm": NORMS, "head": LINEARS}


def _moe(
    config: GPTConfig,
    linear: LinearFactory,
    *,
    expert: str = "swiglu",
    expert_options: dict[str, Any] | None = None,
    gate: str = "sigmoid",
    **options: Any,
) -> MoE:
    """`moe_feed_forward` with expert and gate by name."""
    for what, name, known in (("expert", expert, [name for name in FFNS if name != "moe"]), ("gate", gate, GATES)):
        if name not in known:
            raise ValueError(f"unknown {what} {name!r} of a mixture; known: {', '.join(known)}")
    made = partial(FFNS[expert], **(expert_options or {}))
    return moe_feed_forward(config, linear, expert=made, gate=GATES[gate], **options)


FFNS["moe"] = _moe
HANDS_ON_TO = {  # who gets the options that a factory does not name
    ("ffn", "kan"): (KANLinear,),
    ("ffn", "bit_kan"): (BitKAN,),
    ("ffn", "packed_bit_kan"): (PackedBitKAN,),
    ("ffn", "moe"): (moe_feed_forward, MoE),
}


@dataclass(kw_only=True)
class ModelConfig(GPTConfig):
    """Sizes and the names of the parts: everything `build` needs, nothing else."""

    mixer: str = "attention"
    ffn: str = "mlp"
    linear: str = "dense"
    norm: str = "layer"
    block_norm: str | None = None  # inside the blocks; None: as norm
    head: str = "dense"
    mixer_options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of that part's factory
    ffn_options: dict[str, Any] = field(default_factory=dict)
    linear_options: dict[str, Any] = field(default_factory=dict)
    head_options: dict[str, Any] = field(default_factory=dict)
    norm_options: dict[str, Any] = field(default_factory=dict)  # of every norm, e.g. eps, which changes with the width

    def __post_init__(self) -> None:
        super().__post_init__()
        for seat, table in SEATS.items():
            name = getattr(self, seat)
            if name not in table and not (seat == "block_norm" and name is None):
                raise ValueError(f"unknown {seat} {name!r}; known: {', '.join(table)}")
        for seat in ("mixer", "ffn", "linear", "head", "norm"):
            _check_options(seat, getattr(self, seat), getattr(self, f"{seat}_options"))
        if self.tie_head and self.head not in ("dense", "curriculum"):
            raise ValueError(f"head {self.head!r} cannot be tied to the embedding: set tie_head to False")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data, the inverse of `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ModelConfig":
        """Rebuild a config.

        Raises:
            ValueError: a key is not a field; the nearest one is named.
        """
        check_fields(cls, data)
        return cls(**data)


def _check_options(seat: str, name: str, options: dict[str, Any]) -> None:
    """Raise ValueError for an option that the part does not take."""
    factories = (SEATS[seat][name], *HANDS_ON_TO.get((seat, name), ()))
    taken = [p for factory in factories for p in inspect.signature(factory).parameters.values()]
    known = list(dict.fromkeys(p.name for p in taken if p.kind is p.KEYWORD_ONLY))
    for option in options:
        if option not in known:
            raise ValueError(f"{seat} {name!r} has no option {option!r}; known: {', '.join(known) or 'none'}")
    expert = options.get("expert", "swiglu") if (seat, name) == ("ffn", "moe") else None
    if expert in FFNS:  # of an unknown one `_moe` tells which there are
        _check_options("ffn", expert, options.get("expert_options") or {})


def _norm_factory(name: str, config: ModelConfig) -> NormFactory:
    return NORMS[name] if name == "none" else partial(NORMS[name], **config.norm_options)


def check_fields(cls: type, data: dict[str, Any]) -> None:
    """Raise ValueError, naming the nearest field, when a key of `data` is not a field of the dataclass `cls`."""
    known = [f.name for f in dataclasses.fields(cls)]
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"{cls.__name__} has no field {key!r}; {hint}")


# Every matrix of the blocks a KAN layer, as in the KAN-GPTs of 2024, but the head stays the embedding matrix.
_KAN: dict[str, Any] = {"linear": "kan", "ffn": "kan", "bias": False}
_LLAMA: dict[str, Any] = {"position": "rope", "ffn": "swiglu", "norm": "rms", "bias": False}
# Retention has a fifth matrix, the gate; a feed-forward of 7C/3 leaves the model with the parameters of a llama.
_RETNET: dict[str, Any] = _LLAMA | {"mixer": "retention"}
# A llama with ternary matrices in the blocks, which bring their own norms.
_BIT: dict[str, Any] = _LLAMA | {"linear": "bit", "block_norm": "none"}
# A shared and fifteen routed experts of a quarter's width, of which a token meets four: as much work as one SwiGLU.
_MOE: dict[str, Any] = _LLAMA | {"ffn": "moe", "ffn_options": {"n_expert": 15, "top_k": 3, "n_shared": 1}}
# Everything at once: retention and experts, the matrices ternary, the experts ternary KANs, whose width is a sixth of
# what it would be in an MLP of as many weights. The blocks keep their norms, as the router needs one.
_MIXKABRN: dict[str, Any] = _LLAMA | {"mixer": "retention", "linear": "bit", "ffn": "moe"}


def _bit_kan_experts(expert_dim: int, n_expert: int, top_k: int) -> dict[str, Any]:
    options = {"expert": "bit_kan", "expert_dim": expert_dim, "n_expert": n_expert, "top_k": top_k, "n_shared": 1}
    return _MIXKABRN | {"ffn_options": options}


PRESETS: dict[str, ModelConfig] = {
    "gpt-nano": ModelConfig(n_layer=3, n_head=3, n_embd=48),
    "gpt-micro": ModelConfig(n_layer=4, n_head=4, n_embd=128),
    "gpt-mini": ModelConfig(n_layer=6, n_head=6, n_embd=192),
    "gpt2": ModelConfig(n_layer=12, n_head=12, n_embd=768, vocab_size=50_257, block_size=1024),
    "gpt2-medium": ModelConfig(n_layer=24, n_head=16, n_embd=1024, vocab_size=50_257, block_size=1024),
    "gpt2-large": ModelConfig(n_layer=36, n_head=20, n_embd=1280, vocab_size=50_257, block_size=1024),
    "gpt2-xl": ModelConfig(n_layer=48, n_head=25, n_embd=1600, vocab_size=50_257, block_size=1024),
    "kan-gpt-nano": ModelConfig(n_layer=3, n_head=3, n_embd=48, **_KAN),
    "kan-gpt-micro": ModelConfig(n_layer=4, n_head=4, n_embd=128, **_KAN),
    "kan-gpt-mini": ModelConfig(n_layer=6, n_head=6, n_embd=192, **_KAN),
    "llama-nano": ModelConfig(n_layer=3, n_head=3, n_embd=48, **_LLAMA),
    "llama-micro": ModelConfig(n_layer=4, n_head=4, n_embd=128, **_LLAMA),
    "llama-mini": ModelConfig(n_layer=6, n_head=6, n_embd=192, **_LLAMA),
    "retnet-nano": ModelConfig(n_layer=3, n_head=3, n_embd=48, ffn_dim=112, **_RETNET),
    "retnet-micro": ModelConfig(n_layer=4, n_head=4, n_embd=128, ffn_dim=299, **_RETNET),
    "retnet-mini": ModelConfig(n_layer=6, n_head=6, n_embd=192, ffn_dim=448, **_RETNET),
    "moe-nano": ModelConfig(n_layer=3, n_head=3, n_embd=48, **_MOE),
    "moe-micro": ModelConfig(n_layer=4, n_head=4, n_embd=128, **_MOE),
    "moe-mini": ModelConfig(n_layer=6, n_head=6, n_embd=192, **_MOE),
    "bit-llama-nano": ModelConfig(n_layer=3, n_head=3, n_embd=48, **_BIT),
    "bit-llama-micro": ModelConfig(n_layer=4, n_head=4, n_embd=128, **_BIT),
    "bit-llama-mini": ModelConfig(n_layer=6, n_head=6, n_embd=192, **_BIT),
    "mixkabrn-tiny": ModelConfig(n_layer=3, n_head=4, n_embd=64, **_bit_kan_experts(12, 8, 2)),
    "mixkabrn-small": ModelConfig(n_layer=4, n_head=6, n_embd=192, **_bit_kan_experts(24, 8, 2)),
    "mixkabrn-base": ModelConfig(n_layer=12, n_head=8, n_embd=512, block_size=512, **_bit_kan_experts(32, 16, 3)),
}


def configure(config_or_name: ModelConfig | str, **overrides: Any) -> ModelConfig:
    """The config of a preset (or the given one) with some fields replaced.

    Raises:
        ValueError: unknown preset or field; what would work is named.
    """
    if isinstance(config_or_name, str):
        if config_or_name not in PRESETS:
            raise ValueError(f"unknown preset {config_or_name!r}; known: {', '.join(PRESETS)}")
        config_or_name = PRESETS[config_or_name]
    check_fields(ModelConfig, overrides)
    return dataclasses.replace(config_or_name, **overrides)


def build(config_or_name: ModelConfig | str, *, seed: int | None = None, **overrides: Any) -> GPT:
    """Build a model from a config or a preset's name.

    Args:
        config_or_name: a `ModelConfig`, or a key of `PRESETS`.
        seed: draws the weights from this seed and leaves the global generators as they were; None: from the global one.
        overrides: fields to replace, e.g. `vocab_size=65`.

    Raises:
        ValueError: unknown preset, field or part.
    """
    config = configure(config_or_name, **overrides)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return GPT(
            config,
            mixer=partial(MIXERS[config.mixer], **config.mixer_options),
            ffn=partial(FFNS[config.ffn], **config.ffn_options),
            linear=partial(LINEARS[config.linear], **config.linear_options),
            norm=_norm_factory(config.norm, config),
            block_norm=_norm_factory(config.block_norm or config.norm, config),
            head=partial(LINEARS[config.head], **config.head_options),
        )
