"""Checkpoints: nothing is lost, what cannot be read says so. Run: pytest tests/test_checkpoint.py"""

import json
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from safetensors.torch import save_file

from kancourse.lab.checkpoint import load_checkpoint, restore_optimizer, save_checkpoint
from kancourse.lab.optim import decay_groups, make_adamw
from kancourse.lab.tokenizers import ByteTokenizer
from kancourse.zoo import build

SIZES = {"vocab_size": 300, "block_size": 16, "seed": 0}


def stepped(model):
    optimizer = make_adamw(model, lr=1e-2, beta1=0.9, beta2=0.95, weight_decay=0.1)
    idx = torch.arange(16)[None]
    for _ in range(3):
        model.loss(idx, idx).backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("preset", ["gpt-nano", "llama-nano"])
@pytest.mark.parametrize("tie_head", [True, False])
def test_a_round_trip_is_exact(tmp_path, preset, tie_head):
    model = build(preset, tie_head=tie_head, **SIZES)
    optimizer = stepped(model)
    state = {"history": [{"loss": 0.1 + 0.2}], "result": None}
    path = save_checkpoint(
        tmp_path / "a.safetensors", model, tokenizer=ByteTokenizer(), optimizer=optimizer, train_state=state
    )
    loaded = load_checkpoint(path)
    assert loaded.model.config == model.config
    assert (loaded.model.lm_head.weight is loaded.model.wte.weight) == tie_head
    for (name, a), b in zip(model.state_dict().items(), loaded.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert loaded.train_state == state
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("Zoë")) == "Zoë"
    other = make_adamw(loaded.model, lr=1e-2, beta1=0.9, beta2=0.95, weight_decay=0.1)
    restore_optimizer(other, loaded.model, loaded.optimizer_state)
    for a, b in zip(model.parameters(), loaded.model.parameters(), strict=True):
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(optimizer.state[a][key], other.state[b][key])


def test_a_tied_matrix_is_stored_once(tmp_path):
    sizes = {"vocab_size": 20_000, "block_size": 16}
    tied, untied = (
        save_checkpoint(tmp_path / str(tie), build("gpt-nano", tie_head=tie, **sizes)).stat().st_size
        for tie in (True, False)
    )
    assert untied - tied > 20_000 * 48 * 4 * 0.99


def test_a_full_disk_leaves_the_previous_checkpoint_whole(tmp_path):
    """The disk is full as far as this process can tell: its files may not grow beyond half a checkpoint."""
    path = save_checkpoint(tmp_path / "a.safetensors", build("gpt-nano", **SIZES), train_state={"step": 1})
    code = f"""
        import resource, signal
        from kancourse.lab.checkpoint import save_checkpoint
        from kancourse.zoo import build
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({path.stat().st_size // 2},) * 2)
        try:
            save_checkpoint({str(path)!r}, build("gpt-nano", vocab_size=300, block_size=16), train_state={{"step": 2}})
        except OSError as error:
            print(error)
        """
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "could not be written" in said.stdout
    assert "the previous checkpoint there is untouched" in said.stdout
    assert load_checkpoint(path).train_state == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("delay", [0.0, 0.004, 0.011, 0.023, 0.05, 0.09])
def test_killed_while_saving_the_previous_checkpoint_is_whole(tmp_path, delay):
    path = tmp_path / "a.safetensors"
    code = f"""
        from kancourse.lab.checkpoint import save_checkpoint
        from kancourse.zoo import build
        model, step = build("gpt-mini", vocab_size=3000, block_size=16), 0
        while True:
            step += 1
            save_checkpoint({str(path)!r}, model, train_state={{"step": step}})
            print(step, flush=True)
        """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as child:
        told = int(child.stdout.readline())
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        told = max([told, *map(int, child.stdout.read().split())])
    assert load_checkpoint(path).train_state["step"] in (told, told + 1)
    save_checkpoint(path, build("gpt-nano", **SIZES))
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"], "what the killed save left behind is swept up"


def test_what_cannot_be_read_is_one_clear_error(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*a\.safetensors"):
        load_checkpoint(path)
    save_checkpoint(path, build("gpt-nano", **SIZES))
    whole = path.read_bytes()
    for length in (0, 5, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is truncated or not a safetensors file"):
            load_checkpoint(path)
    path.write_text("a shopping list")
    with pytest.raises(ValueError, match="is truncated or not a safetensors file"):
        load_checkpoint(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="not a kancourse checkpoint"):
        load_checkpoint(path)
    save_file({"weight": torch.ones(2)}, path, metadata={"kancourse": json.dumps({"format": 99})})
    with pytest.raises(ValueError, match="has checkpoint format 99; this version reads 1"):
        load_checkpoint(path)


def test_a_checkpoint_that_does_not_fit_its_config_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    header = {
        "format": 1,
        "config": build("gpt-nano", **SIZES).config.to_dict(),
        "tokenizer": None,
        "ties": {},
        "train_state": {},
    }
    save_file({"model.wte.weight": torch.ones(2, 2)}, path, metadata={"kancourse": json.dumps(header)})
    with pytest.raises(ValueError, match="does not fit the model its own config describes"):
        load_checkpoint(path)


def test_every_parameter_is_in_exactly_one_decay_group():
    model = build("gpt-nano", **SIZES)
    model.blocks[0].ffn.c_fc.no_decay = ("weight",)
    groups = decay_groups(model, 0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    decayed = {id(p) for p in groups[0]["params"]}
    for name, p in model.named_parameters():
        exempt = p.ndim < 2 or name == "blocks.0.ffn.c_fc.weight"
        assert (id(p) in decayed) == (not exempt), name
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
