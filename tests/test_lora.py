"""Adapters beside frozen weights: nothing changes at first, nothing but them is trained, and all of it can be undone.

Run: pytest tests/test_lora.py
"""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kancourse import bit_kernel_choice
from kancourse.bit_kan import BitKAN
from kancourse.bit_kernel_choice import use_bit_kernel
from kancourse.bit_pack import PackedBitLinear
from kancourse.bitnet import BitLinear
from kancourse.kan import KANLinear
from kancourse.lab.corpus import load_corpus
from kancourse.lab.optim import decay_groups
from kancourse.lab.train import TrainConfig, train
from kancourse.lora import LoRALinear, add_lora, lora_layers, lora_state, merge_lora, remove_lora
from kancourse.packed import PackedGPT, pack_linears
from kancourse.packed_kan import PackedBitKAN
from kancourse.zoo import build

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 24, "ffn_dim": 37, "vocab_size": 214, "block_size": 32}
MODELS = {
    "dense": ("llama-nano", {}),
    "kan": ("kan-gpt-nano", {}),
    "ternary": ("bit-llama-nano", {}),
    "packed": ("bit-llama-nano", {}),
    "packed retention": ("retnet-nano", {"linear": "bit", "block_norm": "none"}),
    "packed experts": ("moe-nano", {"linear": "bit", "ffn_options": {"n_expert": 4, "top_k": 2, "n_shared": 1}}),
    "packed ternary KANs": ("retnet-nano", {"linear": "bit", "block_norm": "none", "ffn": "bit_kan", "ffn_dim": 8}),
    "untied": ("llama-nano", {"tie_head": False}),
}
LAYERS = {
    "dense": nn.Linear,
    "kan": KANLinear,
    "bit": BitLinear,
    "packed": PackedBitLinear.from_bit_linear,
    "bit kan": BitKAN,
    "packed kan": PackedBitKAN.from_bit_kan,
}


@pytest.fixture(autouse=True)
def _the_kernel_that_needs_no_compiling(monkeypatch):
    monkeypatch.setattr(bit_kernel_choice, "_chosen", None)
    use_bit_kernel("eager")


def model_of(name: str) -> nn.Module:
    preset, settings = MODELS[name]
    model = build(preset, seed=0, **SMALL | settings).eval()
    return pack_linears(model) if name.startswith("packed") else model


def layer_of(kind: str, inputs: int = 6, outputs: int = 5) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind.startswith("packed"):
            return LAYERS[kind](layer_of(kind.replace("packed", "bit"), inputs, outputs))
        return LAYERS[kind](inputs, outputs, bias=False)


def stirred(layer: LoRALinear) -> LoRALinear:
    """An adapter that has learned something."""
    with torch.no_grad():
        layer.lora_b.normal_(generator=torch.Generator().manual_seed(1))
    return layer


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(214, shape, generator=torch.Generator().manual_seed(seed))


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name.replace(".base.", "."): t.clone() for name, t in model.state_dict().items() if ".lora_" not in name}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


# --- one layer ---


@pytest.mark.parametrize("kind", LAYERS)
@settings(max_examples=15)
@given(rank=st.integers(1, 4), alpha=st.sampled_from([0.5, 4.0, 16.0]), seed=st.integers(0, 99))
def test_a_layer_is_its_base_and_what_two_thin_matrices_add(kind, rank, alpha, seed):
    base, generator = layer_of(kind, 6, 4), torch.Generator().manual_seed(seed)
    layer = LoRALinear(base, rank=rank, alpha=alpha, generator=generator)
    x = 2 * torch.randn(3, 2, 6, generator=generator)
    assert torch.equal(layer(x), base(x))
    stirred(layer)
    z = x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() if kind not in ("dense", "kan") else x
    added = torch.einsum("or,ri,...i->...o", layer.lora_b, layer.lora_a, z) * (alpha / rank)
    torch.testing.assert_close(layer(x), base(x) + added, rtol=1e-5, atol=1e-5)


def test_the_adapter_reads_what_a_ternary_matrix_reads_gains_included():
    base = layer_of("packed")
    base.norm_weight.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 2.0]))
    layer, x = stirred(LoRALinear(base, rank=2)), torch.randn(4, 6)
    silent = x.clone()
    silent[:, 1] = silent[:, 5] = 0  # the others count in the norm only
    assert torch.count_nonzero(layer(silent)) == 0
    torch.testing.assert_close(layer(1000 * x), layer(x), rtol=0.05, atol=0.05)  # up to one step of the input's code


@pytest.mark.parametrize("kind", LAYERS)
def test_the_gradient_goes_to_the_input_and_to_the_adapter_and_nowhere_else(kind):
    layer, x = stirred(LoRALinear(layer_of(kind), rank=2)), torch.randn(7, 6, requires_grad=True)
    layer(x).square().sum().backward()
    assert {name for name, p in layer.named_parameters() if p.grad is not None} == {"lora_a", "lora_b"}
    both = x.grad.clone()
    x.grad = None
    y = layer.base(x)
    y.backward(2 * layer(x).detach())
    assert torch.count_nonzero(x.grad) > 0
    assert not torch.allclose(both, x.grad)


@pytest.mark.parametrize(("inputs", "outputs", "count"), [(1, 1, 1), (7, 5, 3), (20, 33, 300)])
def test_the_gradient_that_packed_functions_pass_on_is_that_of_training(inputs, outputs, count):
    layer, gradients = layer_of("bit kan", inputs, outputs), []
    with torch.no_grad():
        layer.norm_weight.copy_(torch.linspace(-2, 2, inputs))
        layer.row_scale.copy_(torch.linspace(0.5, 2, outputs))
    x = torch.randn(count, inputs, generator=torch.Generator().manual_seed(0))
    for module in (layer, PackedBitKAN.from_bit_kan(layer)):
        seen = x.clone().requires_grad_()
        y = module(seen)
        y.backward(torch.linspace(-1, 1, y.numel()).view_as(y))
        gradients.append(seen.grad)
    assert torch.count_nonzero(gradients[0]) > 0 or inputs == 1
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


def test_the_dtype_is_the_bases():
    layer = stirred(LoRALinear(layer_of("packed"), rank=2))
    assert layer(torch.randn(2, 6).bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(2, 6)).dtype == torch.float32


def test_ranks_and_alphas_out_of_range_are_refused():
    for rank in (0, 6):
        with pytest.raises(
            ValueError, match=f"rank must be from 1 to the smaller side of a layer, got {rank} for a Li"
        ):
            LoRALinear(layer_of("dense"), rank=rank)
    with pytest.raises(ValueError, match="alpha must be above 0, got 0"):
        LoRALinear(layer_of("dense"), rank=1, alpha=0)


# --- a model ---


@pytest.mark.parametrize("name", MODELS)
def test_an_adapted_model_begins_as_the_model_it_was_and_is_it_again_without(name):
    model, idx = model_of(name), tokens(3, 32)
    before, expected = state_of(model), model(idx)
    adapters = add_lora(model, rank=3, seed=0)
    assert adapters.keys() == lora_layers(model).keys()
    assert torch.equal(model(idx), expected)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"{layer}.lora_{part}" for layer in adapters for part in "ab"} == lora_state(model).keys()
    assert "lm_head" not in adapters
    for adapter in adapters.values():
        stirred(adapter)
    assert not torch.allclose(model(idx), expected)
    assert same(state_of(model), before)
    learned = remove_lora(model)
    assert learned.keys() == trained
    assert not lora_layers(model)
    assert torch.equal(model(idx), expected)
    assert model.state_dict().keys() == before.keys()


@pytest.mark.parametrize("name", MODELS)
def test_the_shared_trainer_trains_the_adapters_and_leaves_the_base_alone_to_the_last_bit(name):
    model, corpus = model_of(name), load_corpus("microworld")
    before, expected = state_of(model), model(tokens(2, 32))
    add_lora(model, rank=2, seed=0)
    start = lora_state(model)
    groups = decay_groups(model, 0.1)
    assert [len(group["params"]) for group in groups] == [len(start), 0]
    config = TrainConfig(steps=4, batch_size=4, warmup=1, lr=1e-2, eval_every=4, eval_batches=1, device="cpu")
    result = train(model, corpus, config)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    learned = lora_state(model)
    moved = [n for n in learned if not torch.equal(learned[n], start[n])]
    asleep = [n for n in learned if n not in moved and "experts" not in n]  # an expert may have met no token
    assert not asleep
    assert same(state_of(model), before)
    remove_lora(model)
    assert torch.equal(model(tokens(2, 32)), expected)


@pytest.mark.parametrize("name", ["packed", "packed retention"])
def test_an_adapted_packed_model_decodes_step_by_step_what_it_computes_at_once(name):
    model, idx = model_of(name), tokens(1, 12)
    for adapter in add_lora(model, rank=2, seed=0, targets=["mixer.c_proj"]).values():
        stirred(adapter)
    packed = PackedGPT(model)
    use_bit_kernel("numba")
    assert packed.describe().startswith("by loops: 2 × SwiGLU; by modules: 2 × ")  # as the mixers have adapters
    use_bit_kernel("eager")
    state, steps = None, []
    for t in range(12):
        logits, state = packed.step(idx[:, t : t + 1], state)
        steps.append(logits)
    difference = (torch.cat(steps, 1) - model(idx)).abs().amax() / model(idx).std()
    assert difference < 0.25  # a code may fall to the other side of a half


def test_targets_are_ends_of_names_or_patterns():
    names = list(add_lora(model_of("packed"), rank=2))
    assert len(names) == 10
    for targets, expected in {
        ("c_attn",): ["blocks.0.mixer.c_attn", "blocks.1.mixer.c_attn"],
        ("ffn.c_proj", "blocks.0.mixer.c_proj"): [n for n in names if "c_proj" in n and n != "blocks.1.mixer.c_proj"],
        ("blocks.1.*",): [n for n in names if n.startswith("blocks.1.")],
        ("lm_head",): ["lm_head"],
    }.items():
        assert list(add_lora(model_of("packed"), rank=2, targets=targets)) == expected
    with pytest.raises(ValueError, match=r"no layer is called 'c_atn'; known: c_attn, c_fc, c_gate, c_proj, lm_head"):
        add_lora(model_of("packed"), rank=2, targets=["c_attn", "c_atn"])


def test_what_cannot_be_adapted_is_refused_and_left_as_it_was():
    model = model_of("packed")
    with pytest.raises(
        TypeError, match=r"the loops of a PackedGPT know no adapters: adapt the model inside, `\.model`"
    ):
        add_lora(PackedGPT(model), rank=2)
    with pytest.raises(ValueError, match="rank must be from 1"):
        add_lora(model, rank=25)
    assert not lora_layers(model)
    with pytest.raises(ValueError, match="GPT has no adapters"):
        remove_lora(model)
    add_lora(model, rank=2)
    with pytest.raises(ValueError, match="the model has adapters already"):
        add_lora(model, rank=2)
    with pytest.raises(ValueError, match="nothing to adapt"):
        add_lora(nn.Sequential(nn.ReLU()))


def test_a_layer_that_is_used_twice_has_one_adapter_and_layers_inside_are_part_of_the_outer_one():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared), "c": KANLinear(4, 4)})
    adapters = add_lora(model, rank=1, seed=3)
    assert adapters["a"] is adapters["b.0"] is model["b"][0]
    assert set(adapters) == {"a", "b.0", "c"}
    x, expected = torch.randn(2, 4), None
    stirred(model["a"])
    expected = model["b"](x)
    remove_lora(model)
    assert model["a"] is shared is model["b"][0]
    assert not torch.allclose(model["b"](x), expected)


def test_a_seed_draws_the_same_adapters_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    states = []
    for seed in (0, 0, 1):
        model = model_of("dense")
        add_lora(model, rank=2, seed=seed)
        states.append(lora_state(model))
    assert same(states[0], states[1])
    assert not same(states[0], states[2])
    assert torch.equal(torch.random.get_rng_state(), before)


# --- merging ---


def test_merged_matrices_compute_what_base_and_adapter_did():
    model, idx = model_of("untied"), tokens(2, 20)
    for adapter in add_lora(model, rank=2, alpha=3.0, seed=0, targets=["c_*", "lm_head"]).values():
        stirred(adapter)
    expected = model.double()(idx)
    merge_lora(model)
    assert not lora_layers(model)
    torch.testing.assert_close(model(idx), expected, rtol=1e-9, atol=1e-9)
    assert model.state_dict().keys() == model_of("untied").state_dict().keys()


def test_what_cannot_be_merged_is_refused_before_anything_is_merged():
    for name, targets, sentence in (
        ("packed", None, "blocks.0.mixer.c_attn is a PackedBitLinear, which no adapter can be merged into"),
        ("ternary", None, "blocks.0.mixer.c_attn is a BitLinear, which"),
        ("dense", ["lm_head", "c_attn"], "the matrix of lm_head is used elsewhere too"),
    ):
        model = model_of(name)
        add_lora(model, rank=2, targets=targets)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match=sentence):
            merge_lora(model)
        assert same(model.state_dict(), before)
    with pytest.raises(ValueError, match="GPT has no adapters"):
        merge_lora(model_of("dense"))


def test_adapters_are_not_trained_into_checkpoints_that_could_not_hold_them(tmp_path):
    corpus = load_corpus("microworld")
    model = build("llama-nano", vocab_size=corpus.tokenizer.vocab_size)
    add_lora(model, rank=2)
    with pytest.raises(ValueError, match="a checkpoint holds no adapters: train them with out_dir=None"):
        train(model, corpus, TrainConfig(steps=1, out_dir=str(tmp_path)))
