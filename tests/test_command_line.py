"""The command line as a reader has it: help, Ctrl-C and going on, wrong prompts and files, one way to name data.

Run alone: pytest tests/test_command_line.py
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kancourse.__main__ import main
from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.command_line import default_folder
from kancourse.lab.corpus import load_corpus
from kancourse.lab.experiment import Experiment
from kancourse.zoo import build

COMMANDS = (
    "train",
    "sample",
    "pack",
    "evaluate",
    "corpora",
    "interpolate",
    "adapt",
    "grow",
    "run",
    "bench",
    "notebooks",
)
TEXT = "The sea is wide. The ship is small.\nThe wind is cold, and the night is long.\n" * 60
SMALL = ["--model", "gpt-nano", "--n_layer", "1", "--block_size", "32", "--tokenizer", "characters", "--device", "cpu"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "sea.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def checkpoint(text: Path, tmp_path: Path) -> Path:
    """A model of 16 tokens of context that has learned nothing, with a tokenizer of the text's characters."""
    corpus = load_corpus(text, tokenizer="characters")
    model = build("gpt-nano", n_layer=1, block_size=16, vocab_size=corpus.tokenizer.vocab_size, seed=0)
    return save_checkpoint(tmp_path / "small.safetensors", model, tokenizer=corpus.tokenizer)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which a command ends."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert len(said.strip().splitlines()) == 1
    return said


def test_every_command_explains_itself(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = re.search(r"\{([\w,]+)\}", "".join(capsys.readouterr().out.split()))[1].split(",")
    assert set(COMMANDS) <= set(listed)
    for command in listed:
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        told = capsys.readouterr().out
        assert end.value.code == 0
        assert f"kancourse {command}" in told
        assert len(told.splitlines()[2]) > 20, "what it does, in a sentence"


def test_ctrl_c_saves_says_how_to_go_on_and_the_same_command_does(text, tmp_path, monkeypatch):
    """A real SIGINT to a real process, which keeps its run in a folder of its own choice."""
    command = [sys.executable, "-m", "kancourse", "train", "--dataset", str(text), *SMALL, "--batch_size", "2"]
    command += ["--eval_every", "1000000", "--eval_batches", "1", "--sample_tokens", "1", "--checkpoint_minutes", "0"]
    endless = [*command, "--steps", "1000000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    with subprocess.Popen(endless, **pipes) as child:
        told = child.stdout.readline()
        assert told.startswith("checkpoints go to runs_out/gpt-nano_sea.txt_")
        latest = tmp_path / told.split()[3].rstrip(";") / "seed-0" / "latest.safetensors"
        while not latest.exists():
            assert child.poll() is None, "it ended before its first checkpoint"
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=200)
    assert child.returncode == 130
    steps = load_checkpoint(latest).train_state["result"]["steps"]
    assert f"stopped after step {steps}, saved in {latest.relative_to(tmp_path)}; to go on" in said
    assert said.strip().endswith("--steps 1000000")
    assert "python -m kancourse train --dataset" in said
    assert "Traceback" not in said

    def interrupt() -> None:  # as soon as it has saved again
        while latest.stat().st_mtime_ns == before:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = latest.stat().st_mtime_ns
    monkeypatch.chdir(tmp_path)
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SystemExit) as end:  # the same command goes on, here in this process
        main(endless[3:])
    assert end.value.code == 130
    assert load_checkpoint(latest).train_state["result"]["steps"] > steps


def test_ctrl_c_before_there_is_anything_to_save_says_so(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kancourse.__main__.run_experiment", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["train", "--out_dir", "nowhere_yet"])
    assert end.value.code == 130
    assert capsys.readouterr().err == "\nstopped; there is no checkpoint to go on from\n"


def test_the_same_settings_have_the_same_folder_and_others_another():
    folder = default_folder(Experiment(corpus="gsm8k:2+microworld:1"))
    assert folder.parent == Path("runs_out")
    assert folder.name.startswith("llama-nano_gsm8k-2-microworld-1_")
    assert default_folder(Experiment(corpus="gsm8k:2+microworld:1", compile=True, micro_batch=4)) == folder
    assert default_folder(Experiment(corpus="gsm8k:2+microworld:1", steps=301)) != folder


def test_a_prompt_with_unknown_characters_is_one_sentence(checkpoint, capsys):
    said = refused(["sample", str(checkpoint), "--prompt", "The sea 🐳"], capsys)
    assert said.startswith("error: the model cannot read this prompt: the character '🐳' (U+1F433) is not among the ")


def test_a_checkpoint_is_named_once(checkpoint, capsys):
    assert "give the path of one checkpoint" in refused(["sample"], capsys)
    both = ["sample", str(checkpoint), "--model", str(checkpoint)]
    assert "give the path of one checkpoint" in refused(both, capsys)
    main(["sample", str(checkpoint), "--prompt", "The", "--max_new_tokens", "3"])
    assert capsys.readouterr().out.startswith("The")


@pytest.mark.parametrize("kept", [0, 5, 8, 300, 0.5, -1])
@pytest.mark.parametrize("command", ["sample", "evaluate", "pack"])
def test_a_cut_file_is_one_sentence(command, kept, checkpoint, tmp_path, capsys):
    whole = checkpoint.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    out = [str(tmp_path / "out.safetensors")] if command == "pack" else []
    said = refused([command, str(cut), *out], capsys)
    assert "cut.safetensors is truncated or not a safetensors file" in said


def test_evaluate_tells_loss_bits_and_exact_match(checkpoint, tmp_path, monkeypatch, capsys):
    rows = [{"question": f"The sea {n}", "answer": f"is wide\n#### {n % 3}"} for n in range(40)]
    for part in ("train", "test"):
        path = tmp_path / "data" / "gsm8k" / f"{part}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path / "data"))
    train = load_corpus("gsm8k", tokenizer="characters+unknown", validation_fraction=0.5)
    model = build("gpt-nano", n_layer=1, block_size=16, vocab_size=train.tokenizer.vocab_size, seed=0)
    path = save_checkpoint(tmp_path / "gsm.safetensors", model, tokenizer=train.tokenizer)
    flags = ["--n_questions", "4", "--max_new_tokens", "3", "--device", "cpu"]
    main(["evaluate", str(path), "--dataset=gsm8k", *flags])
    told = capsys.readouterr().out
    assert "nats per token" in told
    assert "bits per character; unigram entropy" in told
    assert "exact match 0.0% (95% band 0.0% to 49.0%): 0 of 4 questions of gsm8k, test" in told
    assert "always answering '0' gets 50.0%" in told


def test_the_corpora_are_listed(capsys):
    main(["corpora"])
    told = capsys.readouterr().out
    assert told.startswith("microworld: ")
    assert all(f"\n{name}: " in told for name in ("m2d2", "amps", "math", "gsm8k", "phicode", "openqa"))


# --- flags that hold more than one value ---


def test_growth_and_options_are_yaml_in_one_word(text, tmp_path, capsys):
    run = ["--dataset", str(text), *SMALL, "--batch_size", "2", "--steps", "3", "--eval_every", "3", "--warmup", "1"]
    run += ["--sample_tokens", "1"]
    best = [tmp_path / name / "seed-0" / "best.safetensors" for name in ("grown", "moe")]
    main(["train", *run, "--out_dir", str(tmp_path / "grown"), "--growth", "[{step: 1, n_layer: 2}]"])
    options = ["--ffn", "moe", "--ffn_options", "{n_expert: 3, top_k: 2, expert: mlp}"]
    main(["train", *run, "--out_dir", str(tmp_path / "moe"), *options])
    assert load_checkpoint(best[0]).model.config.n_layer == 2
    assert len(load_checkpoint(best[1]).model.blocks[0].ffn.experts) == 3
    assert f"best model: {best[1]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ffn", "moe", "--ffn_options", "{n_experts: 4}"], "ffn 'moe' has no option 'n_experts'; known: expert, "),
        (
            ["--ffn", "moe", "--ffn_options", "{expert: kan, expert_options: {grid: 4}}"],
            "ffn 'kan' has no option 'grid'; known: grid_size, order",
        ),
        (["--ffn", "moe", "--ffn_options", "{expert: lawyer}"], "unknown expert 'lawyer' of a mixture; known: mlp, "),
        (["--growth", "[{step: two, n_layer: 4}]"], "every growth has a `step` between 1 and 299, in rising order"),
        (["--steps", "0"], "error: steps must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_one_sentence_before_anything_is_trained(flags, message, capsys):
    assert message in refused(["train", *flags], capsys)


@pytest.mark.parametrize("flags", [["--growth", "step: 3"], ["--ffn_options", "n_expert"], ["--ffn_options", "{a: [}"]])
def test_what_is_not_such_yaml_is_refused(flags, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", *flags])
    assert end.value.code == 2
    assert re.search("expected YAML such as|not YAML", capsys.readouterr().err)


def test_a_warm_up_longer_than_the_run_is_said(text, tmp_path, capsys):
    run = ["--dataset", str(text), *SMALL, "--batch_size", "2", "--steps", "2", "--eval_every", "2"]
    main(["train", *run, "--out_dir", str(tmp_path / "out"), "--sample_tokens", "1"])
    assert "2 steps are over before the warm-up of 50: see --warmup" in capsys.readouterr().out


# --- which model is meant ---


def test_a_run_and_an_exported_folder_can_be_named_by_their_folder(checkpoint, tmp_path, capsys):
    (tmp_path / "run" / "seed-0").mkdir(parents=True)
    (tmp_path / "run" / "seed-0" / "best.safetensors").write_bytes(checkpoint.read_bytes())
    main(["export", str(checkpoint), str(tmp_path / "hub")])
    capsys.readouterr()
    for where in (checkpoint, tmp_path / "run", tmp_path / "run" / "seed-0", tmp_path / "hub"):
        main(["sample", str(where), "--prompt", "The", "--max_new_tokens", "5"])
    assert len(set(capsys.readouterr().out.splitlines())) == 1
    (tmp_path / "empty").mkdir()
    assert "no best.safetensors in" in refused(["sample", str(tmp_path / "empty")], capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", "nan"], "temperature must be 0 (greedy) or more, got nan"),
        (["--temperature", "-1"], "temperature must be 0 (greedy) or more, got -1"),
        (["--max_new_tokens", "-5"], "max_new_tokens must be 0 or more, got -5"),
    ],
)
def test_settings_of_sampling_out_of_range(flags, message, checkpoint, capsys):
    assert message in refused(["sample", str(checkpoint), *flags], capsys)


# --- adapters ---


@pytest.fixture
def ternary(text: Path, tmp_path: Path) -> Path:
    """A ternary model that has learned nothing, trained on nothing but said to know two domains."""
    corpus = load_corpus(text, tokenizer="characters")
    model = build("bit-llama-nano", n_layer=1, block_size=16, vocab_size=corpus.tokenizer.vocab_size, seed=0)
    told = {"corpus": {"corpus": "m2d2", "source": {"domains": ["art"]}}}
    return save_checkpoint(tmp_path / "bit.safetensors", model, tokenizer=corpus.tokenizer, train_state=told)


@pytest.mark.parametrize("packed", [False, True])
def test_an_adapter_is_trained_beside_a_model_and_used_with_it(packed, ternary, text, tmp_path, capsys):
    base, adapter = ternary, tmp_path / "sea.adapter.safetensors"
    if packed:
        base = tmp_path / "packed.safetensors"
        main(["pack", str(ternary), str(base)])
    before = base.read_bytes()
    main(["adapt", str(base), str(adapter), "--dataset", str(text), "--steps", "4", "--lr", "0.05", "--device", "cpu"])
    assert re.search(r"loss \d\.\d+ → \d\.\d+ nats per token on sea.txt; 6 adapters", capsys.readouterr().out)
    assert base.read_bytes() == before
    flags = ["--prompt", "The sea", "--temperature", "0", "--max_new_tokens", "30"]
    main(["sample", str(base), *flags])
    main(["sample", str(base), *flags, "--adapter", str(adapter)])
    plain, adapted = capsys.readouterr().out.split("The sea")[1:]
    assert plain != adapted
    scores = []
    for more in ([], ["--adapter", str(adapter)]):
        main(["evaluate", str(base), "--dataset", str(text), "--device", "cpu", *more])
        scores.append(float(re.search(r"([\d.]+) nats per token[ ,]", capsys.readouterr().out)[1]))
    assert scores[1] < scores[0] - 0.05


def test_files_of_other_kinds_say_what_they_are(ternary, checkpoint, text, tmp_path, capsys):
    packed, adapter = str(tmp_path / "packed.safetensors"), str(tmp_path / "adapter.safetensors")
    main(["pack", str(ternary), packed])
    main(["adapt", packed, adapter, "--dataset", str(text), "--steps", "1", "--device", "cpu"])
    capsys.readouterr()
    assert "is not a kancourse checkpoint, but a packed model: it can be sampled" in refused(
        ["grow", packed, str(tmp_path / "grown.safetensors"), "--n_layer", "2"], capsys
    )
    assert "is not a kancourse checkpoint, but an adapter" in refused(["sample", adapter], capsys)
    assert "is not an adapter, but a checkpoint" in refused(["sample", packed, "--adapter", str(checkpoint)], capsys)
    assert "load the model it was trained on" in refused(["sample", str(checkpoint), "--adapter", adapter], capsys)


def test_what_a_model_never_read_is_said_when_it_is_scored(monkeypatch, capsys):
    from kancourse.lab.checkpoint_card import checkpoint_path

    main(["evaluate", str(checkpoint_path())])
    assert "trained on stories, sums, facts only: --domains stories sums facts" in capsys.readouterr().out
