"""A ternary transformer as a GGUF file, which llama.cpp runs without Python.

Notable points:
- The architecture there is `bitnet`: attention with rotary positions, SwiGLU, ternary matrices, a norm before each set
  of matrices. Ours bring their norms along; their gains become `attn_norm`, `attn_sub_norm`, `ffn_norm`,
  `ffn_sub_norm`. The presets `bit-llama-*` are of this kind. Retention, KANs and experts have no counterpart there.
- The codes −1, 0, 1 go into the matrices and the scale beside them, in float32, so nothing is rounded.
- `c_gate` and `c_fc` may have learned different gains, where llama.cpp has one norm for both. In "f32" and "f16" the
  gains go into the matrices instead. In "tq2_0" and "tq1_0" a weight has no room but for −1, 0 and 1: they need equal
  gains (`ffn="one_norm_swiglu"`), and rows of a multiple of 256.
- llama.cpp rounds activations as the type of the weights has it: not at all, to 16 bits, or to 8 bits in blocks of 256.
  Ours round to 8 bits per token. Logits differ by as much; the likeliest token is the same but where two nearly tie.
- Text goes in as text: byte-level BPEs as such, words and characters as pieces that are looked for first.

Format: GGUF 3, written by the package `gguf`. Shapes: C channels, O outputs, I inputs.
"""

import os
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kancourse.attention import CausalSelfAttention
from kancourse.bit_pack import PackedBitLinear, unpack_ternary
from kancourse.bitnet import BitLinear
from kancourse.gpt import GPT, SwiGLU
from kancourse.lab.bpe import BPETokenizer, GPT2Tokenizer, byte_alphabet
from kancourse.lab.tokenizers import ByteTokenizer, Tokenizer
from kancourse.packed import PackedGPT

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["WEIGHTS", "export_gguf"]

WEIGHTS = {"f32": "F32", "f16": "F16", "tq2_0": "TQ2_0", "tq1_0": "TQ1_0"}  # our names and gguf's
TERNARY_ROW = 256  # weights in a block of the ternary types
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # kinds of token
NEVER = "ÿ ÿ"  # a merge of two bytes that no text holds, as a list of merges must not be empty


def export_gguf(path: str | Path, model: GPT | PackedGPT, *, tokenizer: Tokenizer, weights: str = "f16") -> Path:
    """Write a model for llama.cpp; what stood at `path` before is replaced at the end, or not at all.

    Args:
        path: usually `*.gguf`; its folder is made.
        model: a ternary transformer as the presets `bit-llama-*` have it, packed or not.
        tokenizer: the one it was trained with.
        weights: how ternary matrices are written: "f32", "f16", "tq2_0" (about 2.1 bits a weight), "tq1_0" (1.7).

    Returns:
        The path.

    Raises:
        ValueError: a model of another kind, or one that does not fit the type of weights; the message says which.
        ImportError: the package `gguf` is not installed.
        OSError: it could not be written.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"unknown type of weights {weights!r}; known: {', '.join(WEIGHTS)}")
    path, model = Path(path), model.model if isinstance(model, PackedGPT) else model
    if why := _misfit(model):
        raise ValueError(f"llama.cpp's bitnet cannot hold this model: {why}; the presets bit-llama-* can be exported")
    if weights.startswith("tq"):
        _check_ternary(model, weights)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}")
    try:
        from gguf import GGUFWriter
    except ImportError as error:
        raise ImportError("exporting to GGUF needs the package gguf: pip install gguf") from error

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        writer = GGUFWriter(Path(folder, path.name), "bitnet")
        _write_sizes(writer, model)
        _write_tokenizer(writer, tokenizer, model.config.vocab_size)
        _write_tensors(writer, model, weights)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(Path(folder, path.name), path)
    return path


def _misfit(model: GPT) -> str:
    """Why llama.cpp's bitnet cannot hold the model; "" when it can."""
    config = model.config
    if config.position != "rope":
        return f"its positions are {config.position!r}, not 'rope'"
    if not isinstance(model.ln_f, nn.RMSNorm):
        return f"its last norm is a {type(model.ln_f).__name__}, not an RMSNorm"
    if model.lm_head.weight is not model.wte.weight:
        return "its head is not the embedding matrix (tie_head)"
    for number, block in enumerate(model.blocks):
        where = f"blocks.{number}"
        if not isinstance(block.mixer, CausalSelfAttention) or not isinstance(block.ffn, SwiGLU):
            kinds = f"{type(block.mixer).__name__} and {type(block.ffn).__name__}"
            return f"{where} is {kinds}, not CausalSelfAttention and SwiGLU"
        if not isinstance(block.ln_1, nn.Identity) or not isinstance(block.ln_2, nn.Identity):
            return f"{where} has norms besides those of its matrices (block_norm)"
        for name, layer in _matrices(block).items():
            if not isinstance(layer, BitLinear | PackedBitLinear):
                return f"{where}.{name} is a {type(layer).__name__}, not a ternary layer"
            if layer.eps != model.ln_f.eps:
                return f"it has one eps for all norms, {where}.{name} has {layer.eps} and ln_f {model.ln_f.eps}"
    return ""


def _check_ternary(model: GPT, weights: str) -> None:
    """Raise ValueError unless the ternary types can hold the model."""
    for number, block in enumerate(model.blocks):
        for name, layer in _matrices(block).items():
            if layer.in_features % TERNARY_ROW:
                raise ValueError(
                    f"{weights} needs rows of a multiple of {TERNARY_ROW} weights, blocks.{number}.{name} has "
                    f"{layer.in_features}: choose n_embd and ffn_dim so, or weights 'f16'"
                )
        if not torch.equal(block.ffn.c_gate.norm_weight, block.ffn.c_fc.norm_weight):
            raise ValueError(
                f"{weights} needs one norm for c_gate and c_fc, those of blocks.{number}.ffn differ: train with "
                "ffn 'one_norm_swiglu', or choose weights 'f16'"
            )


def _matrices(block: nn.Module) -> dict[str, nn.Module]:
    """The five matrices of a block, by name."""
    names = ("mixer.c_attn", "mixer.c_proj", "ffn.c_gate", "ffn.c_fc", "ffn.c_proj")
    return {name: block.get_submodule(name) for name in names}


def _write_sizes(writer: "GGUFWriter", model: GPT) -> None:
    config = model.config
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(model.blocks[0].ffn.c_proj.in_features)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_head)
    writer.add_layer_norm_rms_eps(model.ln_f.eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)


def _write_tokenizer(writer: "GGUFWriter", tokenizer: Tokenizer, vocab_size: int) -> None:
    """Pieces and merges of a byte-level BPE; those of other tokenizers as pieces to be looked for, longest first."""
    alphabet = byte_alphabet()
    if isinstance(tokenizer, ByteTokenizer | BPETokenizer | GPT2Tokenizer):
        pieces = ["".join(alphabet[byte] for byte in piece) for piece in tokenizer.pieces]
        kinds, merges = [NORMAL] * len(pieces), _merges(tokenizer)
    else:
        pieces = [piece.decode() for piece in tokenizer.pieces]
        kinds, merges = [USER_DEFINED] * len(pieces), []
    pieces[tokenizer.eot_id], kinds[tokenizer.eot_id] = tokenizer.pieces[tokenizer.eot_id].decode(), CONTROL
    n_unused = vocab_size - len(pieces)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(pieces + [f"<|unused {number}|>" for number in range(n_unused)])
    writer.add_token_types(kinds + [UNUSED] * n_unused)
    writer.add_token_merges(merges or [NEVER])
    writer.add_bos_token_id(tokenizer.eot_id)  # a document begins after the end of another
    writer.add_eos_token_id(tokenizer.eot_id)
    writer.add_add_bos_token(False)


def _merges(tokenizer: Tokenizer) -> list[str]:
    """The merges of a byte-level BPE, best first, as "left right" in the byte alphabet."""
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.merges
    alphabet, ranks = byte_alphabet(), {piece: rank for rank, piece in enumerate(tokenizer.pieces)}
    merges = []
    for piece in tokenizer.pieces[: tokenizer.eot_id]:
        parts = [piece[place : place + 1] for place in range(len(piece))]
        while len(parts) > 2:  # merge what ranks lower, until the last merge of the piece is left
            pairs = [ranks.get(a + b, len(ranks)) for a, b in pairwise(parts)]
            place = pairs.index(min(pairs))
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        if len(parts) == 2:
            merges.append(" ".join("".join(alphabet[byte] for byte in part) for part in parts))
    return merges


def _write_tensors(writer: "GGUFWriter", model: GPT, weights: str) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    kind = GGMLQuantizationType[WEIGHTS[weights]]
    plain = GGMLQuantizationType["F32" if weights == "f32" else "F16"]

    def write(name: str, tensor: Tensor, dtype: Any = GGMLQuantizationType.F32) -> None:
        writer.add_tensor(name, quantize(tensor.detach().float().cpu().numpy(), dtype), raw_dtype=dtype)

    def matrix(name: str, codes: Tensor, scale: Tensor) -> None:
        write(f"{name}.weight", codes, kind)
        write(f"{name}.scale", scale.reshape(1))

    write("token_embd.weight", model.wte.weight, plain)  # (V, C), and the head
    write("output_norm.weight", model.ln_f.weight)
    for number, block in enumerate(model.blocks):
        name, (qkv, out, gate, up, down) = f"blk.{number}", _matrices(block).values()
        codes, scale = _codes(qkv)  # (3C, C)
        for letter, part in zip("qkv", codes.chunk(3), strict=True):
            matrix(f"{name}.attn_{letter}", part, scale)
        matrix(f"{name}.attn_output", *_codes(out))
        matrix(f"{name}.ffn_down", *_codes(down))
        gains = gate.norm_weight.detach()
        if not torch.equal(gains, up.norm_weight):
            gains = torch.ones_like(gains)  # they go into the columns instead
        for place, layer in (("ffn_gate", gate), ("ffn_up", up)):
            codes, scale = _codes(layer)
            folded = codes if torch.equal(gains, layer.norm_weight) else codes * layer.norm_weight.detach()
            matrix(f"{name}.{place}", folded, scale)
        norms = {"attn_norm": qkv.norm_weight, "attn_sub_norm": out.norm_weight}
        norms |= {"ffn_norm": gains, "ffn_sub_norm": down.norm_weight}
        for norm, values in norms.items():
            write(f"{name}.{norm}.weight", values)


def _codes(layer: BitLinear | PackedBitLinear) -> tuple[Tensor, Tensor]:
    """The matrix (O, I) of −1, 0 and 1, and its scale ()."""
    if isinstance(layer, BitLinear):
        return layer.weight_codes()
    return unpack_ternary(layer.packed, (layer.out_features, layer.in_features)), layer.scale
