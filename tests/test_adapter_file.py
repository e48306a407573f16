"""An adapter in its file: whole through it, on its own base only. Run: pytest tests/test_adapter_file.py"""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kancourse import bit_kernel_choice
from kancourse.bit_kernel_choice import use_bit_kernel
from kancourse.lab import adapter_file, lora_probes
from kancourse.lab.adapter_file import base_sha256, load_adapter, save_adapter
from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.corpus import load_corpus
from kancourse.lab.evaluate import evaluate
from kancourse.lab.packed_file import load_packed, save_packed
from kancourse.lab.probes import PROBES
from kancourse.lab.train import TrainConfig, train
from kancourse.lora import add_lora, lora_layers, lora_state, remove_lora
from kancourse.packed import PackedGPT, pack_linears
from kancourse.zoo import build

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 24, "ffn_dim": 37, "vocab_size": 214, "block_size": 32}


@pytest.fixture(autouse=True)
def _the_kernel_that_needs_no_compiling(monkeypatch):
    monkeypatch.setattr(bit_kernel_choice, "_chosen", None)
    use_bit_kernel("eager")


def ternary(seed: int = 0, preset: str = "bit-llama-nano", **changes) -> nn.Module:
    return build(preset, seed=seed, **SMALL | changes).eval()


def adapted(model: nn.Module, **settings) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for adapter in add_lora(model, **{"rank": 2, "alpha": 4.0, "seed": 1} | settings).values():
        with torch.no_grad():
            adapter.lora_b.normal_(generator=generator)
    return model


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(214, shape, generator=torch.Generator().manual_seed(0))


def test_checkpoint_to_packed_to_adapter_to_file_and_back_is_exact(tmp_path: Path):
    checkpoint = load_checkpoint(save_checkpoint(tmp_path / "latent.safetensors", ternary()))
    packed = load_packed(save_packed(tmp_path / "packed.safetensors", checkpoint.model)).model.model
    file = save_adapter(tmp_path / "deep" / "adapter.safetensors", adapted(packed))
    expected = packed(tokens(2, 30))
    assert [path.name for path in file.parent.iterdir()] == ["adapter.safetensors"]  # and nothing half-written
    assert set(load_file(file)) == set(lora_state(packed))
    again = load_packed(tmp_path / "packed.safetensors").model.model
    before = torch.random.get_rng_state()
    assert load_adapter(file, again).keys() == lora_layers(packed).keys()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(again(tokens(2, 30)), expected)
    assert {n for n, p in again.named_parameters() if p.requires_grad} == set(lora_state(again))  # ready to go on
    assert save_adapter(tmp_path / "again.safetensors", again).read_bytes() == file.read_bytes()
    remove_lora(again)
    assert torch.equal(again(tokens(2, 30)), checkpoint.model(tokens(2, 30)))


@pytest.mark.parametrize("ffn", ["swiglu", "bit_kan"])
def test_all_forms_of_one_model_are_one_base_and_every_other_model_is_another(ffn: str, tmp_path: Path):
    made = partial(ternary, ffn=ffn)
    model = made()
    forms = [load_packed(save_packed(tmp_path / f"{bits}.safetensors", model, bits=bits)).model for bits in (2, 1.6)]
    shas = {base_sha256(form) for form in (model, pack_linears(model), *(form.model for form in forms))}
    assert len(shas) == 1
    assert base_sha256(adapted(made())) in shas
    assert base_sha256(adapted(pack_linears(model))) in shas
    file = save_adapter(tmp_path / "adapter.safetensors", adapted(pack_linears(model)))
    latent = made()
    load_adapter(file, latent)
    packed = forms[1].model
    load_adapter(file, packed)
    assert torch.equal(latent(tokens(1, 20)), packed(tokens(1, 20)))
    with torch.no_grad():
        other = made()
        other.blocks[1].ffn.c_proj.norm_weight[0] += 1e-6
    others = [other, made(seed=1), made(n_layer=1)]
    assert not shas & {base_sha256(other) for other in others}


def test_another_base_is_refused_in_one_sentence_and_left_as_it_was(tmp_path: Path):
    file = save_adapter(tmp_path / "adapter.safetensors", adapted(ternary()))
    other = ternary(seed=1)
    here, there = base_sha256(other)[:12], base_sha256(ternary())[:12]
    with pytest.raises(
        ValueError, match=f"for the base {there}…, this model is {here}…: load the model it was trained"
    ):
        load_adapter(file, other)
    with pytest.raises(ValueError, match="for the base"):
        load_adapter(file, PackedGPT(other))
    assert not lora_layers(other)
    assert all(p.requires_grad for p in other.parameters())
    with pytest.raises(TypeError, match="adapt the model inside"):
        load_adapter(file, PackedGPT(ternary()))
    with pytest.raises(ValueError, match="has adapters already"):
        load_adapter(file, adapted(ternary()))


def test_files_that_are_cut_foreign_missing_or_altered_are_refused(tmp_path: Path):
    file = save_adapter(tmp_path / "adapter.safetensors", adapted(ternary()))
    cut = tmp_path / "cut.safetensors"
    for size in (0, 7, 100, file.stat().st_size - 1):
        cut.write_bytes(file.read_bytes()[:size])
        with pytest.raises(ValueError, match="is truncated or not a safetensors file"):
            load_adapter(cut, ternary())
    with pytest.raises(FileNotFoundError, match="no adapter at"):
        load_adapter(tmp_path / "nothing", ternary())
    with pytest.raises(ValueError, match="is not an adapter, but a checkpoint"):
        load_adapter(save_checkpoint(tmp_path / "c.safetensors", ternary()), ternary())
    tensors, (header, _) = load_file(file), adapter_file._read(file)
    name = "blocks.0.mixer.c_attn.lora_b"
    for changed in ({n: t for n, t in tensors.items() if n != name}, tensors | {name: tensors[name][:, :1].clone()}):
        save_file(changed, cut, metadata={adapter_file.ADAPTER: json.dumps(header)})
        with pytest.raises(ValueError, match=f"does not hold what its header says: {name}"):
            load_adapter(cut, ternary())
    save_file(tensors, cut, metadata={adapter_file.ADAPTER: json.dumps(header | {"format": 9})})
    with pytest.raises(ValueError, match="adapter format 9; this version reads 1"):
        load_adapter(cut, ternary())


def test_only_the_layers_that_were_adapted_come_back(tmp_path: Path):
    file = save_adapter(tmp_path / "adapter.safetensors", adapted(ternary(), targets=["blocks.1.mixer.*"]))
    assert list(load_adapter(file, ternary())) == ["blocks.1.mixer.c_attn", "blocks.1.mixer.c_proj"]
    model = nn.ModuleDict({"c": nn.Linear(3, 3), "b": nn.ModuleDict({"c": nn.Linear(3, 3)})})
    file = save_adapter(tmp_path / "ends.safetensors", adapted(model, targets=["c"]))
    assert lora_layers(model).keys() == {"c"}  # a whole name, though another's ends like it
    remove_lora(model)
    assert load_adapter(file, model).keys() == {"c"}


def test_a_packed_model_learns_another_domain_and_can_be_had_back(tmp_path: Path):
    """Trained on stories, packed, adapted to sums on the CPU; without the adapter nothing is forgotten."""
    stories, sums = (load_corpus("microworld", domains=(name,)) for name in ("stories", "sums"))
    settings = {"batch_size": 8, "warmup": 5, "eval_batches": 4, "device": "cpu"}
    latent = ternary()
    train(latent, stories, TrainConfig(steps=60, eval_every=60, lr=1e-2, **settings))
    base = load_packed(save_packed(tmp_path / "base.safetensors", latent)).model.model

    def losses(model: nn.Module) -> tuple[float, float]:
        return tuple(evaluate(model, part.val, max_batches=4).loss for part in (stories, sums))

    before = losses(base)
    add_lora(base, rank=4, seed=0)
    train(base, sums, TrainConfig(steps=30, eval_every=30, lr=1e-2, schedule="constant", **settings))
    after = losses(base)
    assert after[1] < before[1] - 1.0  # nats per token
    assert after[0] > before[0] + 0.1  # with the adapter on, the stories have suffered
    file = save_adapter(tmp_path / "sums.safetensors", base)
    remove_lora(base)
    assert losses(base) == before
    load_adapter(file, base)
    assert losses(base) == after


@pytest.mark.parametrize("preset", ["bit-llama-nano", "llama-nano"])
def test_the_probe_tells_what_is_learned_lost_and_had_back(preset: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lora_probes, "STEPS", 3)
    monkeypatch.setattr(lora_probes, "LRS", (1e-2,))
    monkeypatch.setattr(lora_probes, "RANK", 2)
    model, stories = ternary(preset=preset), load_corpus("microworld", domains=("stories",))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = PROBES["adaptation"](model, stories, 0)
    assert told["packed"] == (preset == "bit-llama-nano")
    assert told["removed"] == told["before"]
    assert told["same_bits"] is True
    for way in ("beside", "beside, head too", "in"):
        assert told[way][0]["new"] < told["before"]["new"]
    extra = 2 * (24 + 214)  # of the head's adapter, here of rank 2
    assert told["adapter_parameters"]["beside, head too"] == told["adapter_parameters"]["beside"] + extra
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ValueError, match="a model of microworld without sums, got microworld"):
        PROBES["adaptation"](model, load_corpus("microworld"), 0)
