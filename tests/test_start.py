"""Starting from a trained model. Run: pytest tests/test_start.py"""

import pytest
import torch

from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.experiment import Experiment, run_experiment
from kancourse.lab.gpt2_weights import load_gpt2
from kancourse.lab.records import settings
from kancourse.lab.start import build_from, load_start, start_config
from kancourse.lab.tokenizers import CharTokenizer
from kancourse.zoo import build

TEXT = "The sea is wide. The ship is small.\n" * 80


@pytest.fixture
def sea(tmp_path, monkeypatch):
    monkeypatch.setenv("KANCOURSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "sea.txt").write_text(TEXT)
    return tmp_path / "sea.txt"


@pytest.fixture
def checkpoint(tmp_path):
    tokenizer = CharTokenizer.train([TEXT + "xyz"])
    model = build("gpt-nano", n_layer=1, block_size=32, vocab_size=tokenizer.vocab_size, seed=3)
    return save_checkpoint(tmp_path / "first.safetensors", model, tokenizer=tokenizer)


def experiment(sea, **changes):
    given = {"corpus": str(sea), "steps": 2, "batch_size": 2, "eval_every": 1, "warmup": 1, "lr": 1e-9, "device": "cpu"}
    return Experiment(**(given | {"eval_batches": 2, "sample_tokens": 3} | changes))


def test_a_run_goes_on_from_the_weights_and_reads_with_the_same_tokenizer(sea, checkpoint, tmp_path):
    told = run_experiment(experiment(sea, start=str(checkpoint), out_dir=str(tmp_path / "out"), dropout=0.1))
    was, now = load_checkpoint(checkpoint), load_checkpoint(tmp_path / "out" / "seed-0" / "latest.safetensors")
    assert now.tokenizer.to_dict() == was.tokenizer.to_dict()
    assert now.model.config.dropout == 0.1
    for name, weight in was.model.state_dict().items():
        assert torch.allclose(now.model.state_dict()[name], weight, atol=1e-6)  # at lr 1e-9 nothing moves
    assert told["experiment"]["start"] == "first.safetensors", "a record holds no folder of this machine"
    assert settings(experiment(sea))["start"] is None


def test_a_shorter_block_keeps_the_first_positions(checkpoint):
    start = load_start(checkpoint)
    n_words = start.tokenizer.vocab_size
    model = build_from(start, start_config(start, vocab_size=n_words, block_size=8))
    idx = torch.arange(8)[None] % n_words
    assert torch.equal(model.eval()(idx), start.model(idx))
    with pytest.raises(ValueError, match="has learned 32 positions, not 64"):
        start_config(start, vocab_size=n_words, block_size=64)


def test_what_the_model_is_not_is_refused(sea, checkpoint):
    with pytest.raises(ValueError, match="the model to start from has n_layer 1, not 2"):
        run_experiment(experiment(sea, start=str(checkpoint), n_layer=2))
    with pytest.raises(ValueError, match="the tokenizer has 257 tokens, the model to start from"):
        run_experiment(experiment(sea, start=str(checkpoint), tokenizer="bytes"))
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        run_experiment(experiment(sea, start=str(sea.parent / "none.safetensors")))


def test_a_gpt2_that_transformers_saved_is_tuned(sea, tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "vocab_size": 257}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(
        tmp_path / "gpt2-tiny"
    )
    out = str(tmp_path / "out")
    folder = str(tmp_path / "gpt2-tiny")
    told = run_experiment(experiment(sea, start=folder, tokenizer="bytes", block_size=16, out_dir=out))
    assert (told["model"]["n_embd"], told["model"]["block_size"]) == (16, 16)
    now = load_checkpoint(tmp_path / "out" / "seed-0" / "latest.safetensors").model
    assert torch.allclose(now.wte.weight, load_gpt2(folder).wte.weight, atol=1e-6)
