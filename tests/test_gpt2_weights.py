"""GPT-2's weights in our GPT, held against transformers on random ones. Run: pytest tests/test_gpt2_weights.py"""

import json

import pytest
import torch

from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.gpt2_weights import CONFIG, REVISIONS, SHARDS, WEIGHTS, gpt2_config, gpt2_state, load_gpt2
from kancourse.lmc import error_barrier, loss_path
from kancourse.zoo import PRESETS, build

transformers = pytest.importorskip("transformers")
SMALL = {"vocab_size": 37, "n_positions": 12, "n_embd": 16, "n_layer": 2, "n_head": 2}


def gpt2(seed: int = 0, **changes):
    """A random GPT-2 of theirs, away from the small start, so that a mistake would show."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(**(SMALL | {"bos_token_id": 0, "eos_token_id": 0} | changes))
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return theirs


def ids(length: int = 12) -> torch.Tensor:
    return torch.randint(37, (3, length), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def same_logits(ours, theirs, length: int = 12) -> None:
    torch.testing.assert_close(ours(ids(length)), theirs(ids(length)).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_layer": 1, "n_head": 4, "n_embd": 20},
        {"n_inner": 24},
        {"tie_word_embeddings": False},
        {"activation_function": "gelu_pytorch_tanh"},
    ],
)
def test_logits_equal_those_of_transformers(tmp_path, changes):
    theirs = gpt2(**changes)
    same_logits(load_gpt2(theirs), theirs)
    theirs.save_pretrained(tmp_path)
    ours = load_gpt2(tmp_path)
    same_logits(ours, theirs)
    assert not ours.training
    assert (ours.lm_head.weight is ours.wte.weight) == changes.get("tie_word_embeddings", True)


def test_shards_half_width_numbers_and_old_masks(tmp_path):
    theirs = gpt2().half()
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert (tmp_path / SHARDS).is_file()
    assert not (tmp_path / WEIGHTS).is_file()
    ours = load_gpt2(tmp_path)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    same_logits(ours, theirs.float())
    state = {name.removeprefix("transformer."): tensor for name, tensor in theirs.state_dict().items()}
    del state["lm_head.weight"]  # as openai-community's files have it: no prefix, no head, but the masks
    state |= {"h.0.attn.bias": torch.ones(1, 1, 12, 12).tril(), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    ours.load_state_dict(gpt2_state(state))
    same_logits(ours, theirs)


def test_fewer_positions_and_a_checkpoint_of_ours(tmp_path):
    theirs = gpt2()
    short = load_gpt2(theirs, block_size=5, dropout=0.1)
    assert short.config.block_size == 5
    same_logits(short, theirs, length=5)
    save_checkpoint(tmp_path / "ours.safetensors", short)
    same_logits(load_checkpoint(tmp_path / "ours.safetensors").model, theirs, length=5)
    with pytest.raises(ValueError, match="block_size must lie between 1 and the model's 12 positions, got 13"):
        load_gpt2(theirs, block_size=13)


def test_what_is_loaded_learns_and_can_be_interpolated():
    """Two fine-tunings of one GPT-2, by a few steps each: nothing lies between them but more of the same."""
    children = []
    for seed in range(2):
        child = load_gpt2(gpt2()).train()
        optimizer = torch.optim.SGD(child.parameters(), lr=0.1)
        for _ in range(3):
            x = torch.randint(37, (4, 12), generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            child.loss(x, x).backward()
            optimizer.step()
        children.append(child.eval())
    alphas = torch.linspace(0, 1, 5)
    losses = loss_path(children[0], *(child.state_dict() for child in children), alphas, [(ids(), ids())])
    before = load_gpt2(gpt2()).loss(ids(), ids()).item()
    assert float(losses.max()) < before
    assert error_barrier(alphas, losses).linear < 0.1 * (before - float(losses.max()))


@pytest.mark.parametrize("name", REVISIONS)
def test_all_published_sizes_have_our_presets_shapes(name):
    """No weights: the configs' numbers against the preset, and every name and shape that would be loaded."""
    sizes = PRESETS[name]
    theirs = transformers.GPT2Config(n_embd=sizes.n_embd, n_layer=sizes.n_layer, n_head=sizes.n_head)
    assert gpt2_config(theirs.to_dict()) == sizes
    with torch.device("meta"):
        state = gpt2_state(transformers.GPT2LMHeadModel(theirs).state_dict())
        ours = build(name).state_dict()
    assert {key: tensor.shape for key, tensor in state.items()} == {key: tensor.shape for key, tensor in ours.items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "relu"}, "our GPT-2 has activation_function 'gelu_new', this model 'relu'"),
        ({"layer_norm_epsilon": 1e-6}, "our GPT-2 has layer_norm_epsilon 1e-05, this model 1e-06"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx False, this model True"),
        ({"model_type": "llama"}, "this is a model of type 'llama', not 'gpt2'"),
    ],
)
def test_variants_that_ours_is_not(changes, message):
    with pytest.raises(ValueError, match=message):
        gpt2_config(gpt2().config.to_dict() | changes)


def test_files_that_are_no_gpt2(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match="unknown GPT-2 'gpt3'; known: gpt2, gpt2-medium, gpt2-large, gpt2-xl, or a fo"
    ):
        load_gpt2("gpt3")
    with pytest.raises(FileNotFoundError, match=r"has no config.json"):
        load_gpt2(tmp_path)
    gpt2().save_pretrained(tmp_path)
    kept = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(kept[:-100])
    with pytest.raises(ValueError, match=r"model.safetensors is truncated or not a safetensors file"):
        load_gpt2(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no model.safetensors \(a .bin is a pickle, which is never loaded"
    ):
        load_gpt2(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(kept)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | {"n_layer": 3}))
    with pytest.raises(ValueError, match="the weights do not fit the GPT-2 that its config describes"):
        load_gpt2(tmp_path)


def test_a_published_name_is_read_from_the_readers_folder_first(tmp_path, monkeypatch):
    theirs = gpt2()
    theirs.save_pretrained(tmp_path / "gpt2")
    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path))
    same_logits(load_gpt2("gpt2"), theirs)


def test_offline_it_says_what_to_put_where(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.delenv("KANCOURSE_DATA", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    message = r"cannot download gpt2-xl .* put config.json and model.safetensors into \$KANCOURSE_DATA/gpt2-xl/"
    with pytest.raises(ConnectionError, match=message):
        load_gpt2("gpt2-xl")
