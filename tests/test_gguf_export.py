"""Ternary transformers as GGUF: what lies in the file, and what llama.cpp makes of it.

Needs the package gguf and, to run the files, xllamacpp (a prebuilt llama.cpp); skips, saying so, without them.
Run: pytest tests/test_gguf_export.py
"""

import importlib.util
import json
import sys
import urllib.request
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from kancourse.__main__ import main
from kancourse.bitnet import BitLinear
from kancourse.gpt import GPT
from kancourse.lab.bpe import BPETokenizer, GPT2Tokenizer
from kancourse.lab.checkpoint import save_checkpoint
from kancourse.lab.corpus import Corpus, load_corpus
from kancourse.lab.gguf_export import WEIGHTS, export_gguf
from kancourse.lab.microworld import stream
from kancourse.lab.packed_file import save_packed
from kancourse.lab.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer
from kancourse.lab.train import TrainConfig, train
from kancourse.lora import add_lora
from kancourse.packed import PackedGPT
from kancourse.zoo import build

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
in_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="the package xllamacpp (llama.cpp) is not installed"
)

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 48, "ffn_dim": 80, "vocab_size": 257, "block_size": 64}
WIDE = SMALL | {"n_head": 4, "n_embd": 256, "ffn_dim": 512, "ffn": "one_norm_swiglu"}
TEXTS = [document.text for document in islice(stream(7), 30)]


def stirred(**changes: Any) -> GPT:
    """A model whose gains are not one, and differ wherever they may."""
    model = build("bit-llama-nano", seed=0, **SMALL | changes).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm_weight") or name == "ln_f.weight":
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus("microworld")


@pytest.fixture(scope="module")
def trained(corpus: Corpus) -> GPT:
    """Trained enough that its likeliest tokens seldom nearly tie."""
    model = build("bit-llama-nano", seed=0, **WIDE | {"n_layer": 1, "vocab_size": corpus.tokenizer.vocab_size})
    settings = {"batch_size": 4, "warmup": 5, "eval_every": 40, "eval_batches": 1, "device": "cpu"}
    train(model, corpus, TrainConfig(steps=40, lr=5e-3, **settings))
    return model


def values_of(path: Path) -> dict[str, torch.Tensor]:
    """What the tensors of a file stand for, the scales multiplied in."""
    tensors = gguf.GGUFReader(path).tensors
    values = {t.name: torch.tensor(gguf.quants.dequantize(t.data, t.tensor_type)) for t in tensors}
    scales = {name.replace(".scale", ".weight"): v for name, v in values.items() if name.endswith(".scale")}
    return {name: v * scales.get(name, 1) for name, v in values.items() if not name.endswith(".scale")}


def effective(layer: BitLinear) -> torch.Tensor:
    codes, scale = layer.weight_codes()
    return codes * scale


class LlamaCpp:
    """A file, run by llama.cpp on one thread, with keys and values in float32."""

    def __init__(self, path: Path) -> None:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_ctx, settings.n_parallel, settings.warmup, settings.verbosity = 64, 1, False, -1
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self.server = xllamacpp.Server(settings)

    def post(self, what: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.server.listening_address}/{what}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def ids(self, text: str) -> list[int]:
        return self.post("tokenize", content=text, add_special=False, parse_special=False)["tokens"]

    def best(self, ids: list[int], count: int = 5) -> dict[int, float]:
        """The likeliest next tokens and their log-probabilities, the likeliest first."""
        told = self.post("completion", prompt=ids, n_predict=1, n_probs=count, temperature=0, cache_prompt=False)
        return {row["id"]: row["logprob"] for row in told["completion_probabilities"][0]["top_logprobs"]}


# --- what lies in the file ---


@pytest.mark.parametrize("weights", ["f32", "tq2_0", "tq1_0"])
def test_the_file_holds_the_model_without_a_rounding(weights: str, tmp_path: Path):
    model = stirred(**WIDE)
    path = export_gguf(tmp_path / "deep" / "m.gguf", model, tokenizer=ByteTokenizer(), weights=weights)
    assert [p.name for p in path.parent.iterdir()] == ["m.gguf"]  # and nothing half-written
    found = values_of(path)
    assert len(found) == 2 + 2 * 11
    for number, block in enumerate(model.blocks):
        mixer, ffn = block.mixer, block.ffn
        q, k, v = effective(mixer.c_attn).chunk(3)
        expected = {"attn_q": q, "attn_k": k, "attn_v": v, "attn_output": effective(mixer.c_proj)}
        expected |= {"ffn_gate": effective(ffn.c_gate), "ffn_up": effective(ffn.c_fc)}
        expected |= {"ffn_down": effective(ffn.c_proj), "ffn_norm": ffn.c_gate.norm_weight}
        expected |= {"attn_norm": mixer.c_attn.norm_weight, "attn_sub_norm": mixer.c_proj.norm_weight}
        expected |= {"ffn_sub_norm": ffn.c_proj.norm_weight}
        for name, tensor in expected.items():
            assert torch.equal(found[f"blk.{number}.{name}.weight"], tensor.detach()), name
    assert torch.equal(found["output_norm.weight"], model.ln_f.weight.detach())
    embedding = model.wte.weight.detach()
    assert torch.equal(found["token_embd.weight"], embedding if weights == "f32" else embedding.half().float())


def test_gains_that_differ_go_into_the_matrices(tmp_path: Path):
    model = stirred()
    found = values_of(export_gguf(tmp_path / "m.gguf", model, tokenizer=ByteTokenizer(), weights="f32"))
    for number, block in enumerate(model.blocks):
        assert torch.equal(found[f"blk.{number}.ffn_norm.weight"], torch.ones(48))
        for name, layer in (("ffn_gate", block.ffn.c_gate), ("ffn_up", block.ffn.c_fc)):
            folded = (effective(layer) * layer.norm_weight).detach()
            torch.testing.assert_close(found[f"blk.{number}.{name}.weight"], folded, rtol=1e-6, atol=0)


def test_sizes_and_tokens_are_said(tmp_path: Path):
    path = export_gguf(tmp_path / "m.gguf", stirred(vocab_size=260), tokenizer=ByteTokenizer())
    told = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    sizes = {"context_length": 64, "embedding_length": 48, "block_count": 2, "feed_forward_length": 80}
    sizes |= {"attention.head_count": 2, "rope.dimension_count": 24, "vocab_size": 260}
    assert {name: told[f"bitnet.{name}"] for name in sizes} == sizes
    assert told["bitnet.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert told["tokenizer.ggml.tokens"][254:259] == ["þ", "ÿ", "<|endoftext|>", "<|unused 0|>", "<|unused 1|>"]
    assert told["tokenizer.ggml.eos_token_id"] == 256


def test_a_packed_model_makes_the_same_file_and_the_types_differ_in_size(tmp_path: Path):
    model, sizes = stirred(**WIDE), []
    for weights in WEIGHTS:
        paths = [tmp_path / f"{weights}.{kind}.gguf" for kind in ("latent", "packed")]
        for path, made in zip(paths, (model, PackedGPT(model)), strict=True):
            export_gguf(path, made, tokenizer=ByteTokenizer(), weights=weights)
        assert paths[0].read_bytes() == paths[1].read_bytes()
        sizes.append(paths[0].stat().st_size)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(WEIGHTS)


@pytest.mark.parametrize(
    ("changes", "weights", "sentence"),
    [
        ({}, "q4", "unknown type of weights 'q4'; known: f32, f16, tq2_0, tq1_0"),
        ({"mixer": "retention"}, "f16", "blocks.0 is MultiScaleRetention and SwiGLU, not CausalSelfAttention and Sw"),
        ({"ffn": "kan"}, "f16", "blocks.0 is CausalSelfAttention and KANFeedForward"),
        ({"linear": "dense"}, "f16", "blocks.0.mixer.c_attn is a Linear, not a ternary layer; the presets bit-llama"),
        ({"block_norm": "rms"}, "f16", "blocks.0 has norms besides those of its matrices"),
        ({"norm": "layer"}, "f16", "its last norm is a LayerNorm, not an RMSNorm"),
        ({"tie_head": False}, "f16", "its head is not the embedding matrix"),
        ({"position": "none"}, "f16", "its positions are 'none', not 'rope'"),
        (
            {"linear_options": {"eps": 1e-6}},
            "f16",
            "one eps for all norms, blocks.0.mixer.c_attn has 1e-06 and ln_f 1e-05",
        ),
        ({"vocab_size": 200}, "f16", "the tokenizer has 257 tokens, the model 200"),
        ({}, "tq2_0", "tq2_0 needs rows of a multiple of 256 weights, blocks.0.mixer.c_attn has 48: choose n_embd"),
        (WIDE | {"ffn": "swiglu"}, "tq1_0", "tq1_0 needs one norm for c_gate and c_fc, those of blocks.0.ffn differ"),
    ],
)
def test_what_llama_cpp_cannot_hold_is_refused_in_one_sentence(
    changes: dict, weights: str, sentence: str, tmp_path: Path
):
    with pytest.raises(ValueError, match=sentence):
        export_gguf(tmp_path / "m.gguf", stirred(**changes), tokenizer=ByteTokenizer(), weights=weights)
    assert not list(tmp_path.iterdir())


def test_adapters_and_a_missing_package_are_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = stirred()
    add_lora(model, rank=2)
    with pytest.raises(ValueError, match=r"blocks\.0\.mixer\.c_attn is a LoRALinear, not a ternary layer"):
        export_gguf(tmp_path / "m.gguf", model, tokenizer=ByteTokenizer())
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match="exporting to GGUF needs the package gguf: pip install gguf"):
        export_gguf(tmp_path / "m.gguf", stirred(), tokenizer=ByteTokenizer())


def test_the_command_exports_checkpoints_and_packed_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = stirred(**WIDE)
    sources = save_checkpoint(tmp_path / "c.safetensors", model, tokenizer=ByteTokenizer())
    sources = sources, save_packed(tmp_path / "p.safetensors", model, tokenizer=ByteTokenizer())
    outs = [tmp_path / f"{source.stem}.gguf" for source in sources]
    for source, out in zip(sources, outs, strict=True):
        main(["export", str(source), str(out), "--weights", "tq2_0"])
    assert f"c.gguf: {outs[0].stat().st_size:,} bytes; " in capsys.readouterr().out
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert export_gguf(tmp_path / "m.gguf", model, tokenizer=ByteTokenizer(), weights="tq2_0").read_bytes() == (
        outs[0].read_bytes()
    )
    with pytest.raises(SystemExit):
        main(["export", str(sources[0]), str(outs[0]), "--push", "me/model"])
    assert "--push uploads a folder, not a GGUF file" in capsys.readouterr().err


# --- what llama.cpp makes of it ---


def unrounded(model: GPT, idx: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the model with its ternary weights and activations that are not rounded, as in "f32"."""

    def hook(layer: BitLinear, args: tuple[torch.Tensor], _: torch.Tensor) -> torch.Tensor:
        z = F.rms_norm(args[0], (layer.in_features,), layer.norm_weight, layer.eps)
        return F.linear(z, effective(layer))

    hooks = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, BitLinear)]
    with torch.no_grad():
        told = model(idx).log_softmax(-1)
    for handle in hooks:
        handle.remove()
    return told


@in_llama_cpp
def test_llama_cpp_computes_the_same_function(tmp_path: Path):
    """But for the rounding of activations: positions, norms, gates and scales are where they belong."""
    model = stirred(vocab_size=300)
    with torch.no_grad():
        model.wte.weight.mul_(30)
    tokenizer = CharTokenizer("".join(chr(number) for number in range(0x4E00, 0x4E00 + 299)))  # each token can be shown
    idx = torch.randint(299, (1, 40), generator=torch.Generator().manual_seed(0))
    expected = unrounded(model, idx)[0]
    server = LlamaCpp(export_gguf(tmp_path / "m.gguf", model, tokenizer=tokenizer, weights="f32"))
    for length in (1, 2, 17, 40):
        for token, log_prob in server.best(idx[0, :length].tolist(), 20).items():
            assert log_prob == pytest.approx(float(expected[length - 1, token]), abs=0.01)


@in_llama_cpp
@pytest.mark.parametrize("weights", WEIGHTS)
def test_llama_cpp_finds_the_same_tokens_likeliest(weights: str, trained: GPT, corpus: Corpus, tmp_path: Path):
    server = LlamaCpp(export_gguf(tmp_path / "m.gguf", trained, tokenizer=corpus.tokenizer, weights=weights))
    same = close = count = 0
    for text in TEXTS[:4]:
        ids = server.ids(text)[:60]
        assert ids == corpus.tokenizer.encode(text)[:60]
        with torch.no_grad():
            ours = trained(torch.tensor([ids]))[0].log_softmax(-1)
        for length in range(3, len(ids), 5):
            theirs, row = server.best(ids[:length]), ours[length - 1]
            first, second = row.topk(2).values.tolist()
            same += next(iter(theirs)) == int(row.argmax()) or first - second < 0.05  # two that nearly tie
            close += abs(max(theirs.values()) - first) < 0.1
            count += 1
    assert count > 20
    assert same == count
    assert close > 0.9 * count


@in_llama_cpp
@pytest.mark.parametrize("kind", ["words", "characters", "bytes", "bpe", "gpt2"])
def test_llama_cpp_cuts_text_into_the_same_tokens(kind: str, corpus: Corpus, tmp_path: Path):
    tokenizer: Tokenizer = {
        "words": lambda: corpus.tokenizer,
        "characters": lambda: CharTokenizer.train(TEXTS),
        "bytes": ByteTokenizer,
        "bpe": lambda: BPETokenizer.train(TEXTS, vocab_size=400),
        "gpt2": lambda: GPT2Tokenizer(BPETokenizer.train(TEXTS, vocab_size=400).pieces[:-1]),
    }[kind]()
    model = stirred(vocab_size=tokenizer.vocab_size + 2)
    server = LlamaCpp(export_gguf(tmp_path / "m.gguf", model, tokenizer=tokenizer))
    texts = TEXTS if kind in ("words", "characters") else [*TEXTS, "Zürich, 1848:\n\t“naïve”  日本", "  it's   10,000 "]
    for text in texts:
        assert server.ids(text) == tokenizer.encode(text)
