"""The benchmark of packed weights, on sizes that only show that it works. Run: pytest tests/test_bench_bitnet.py"""

import re
import sys

import pytest
import torch

from kancourse.bit_kernel_choice import bit_kernel
from kancourse.lab import bench_bitnet as module
from kancourse.lab.bench import BENCHES
from kancourse.lab.bench_bitnet import bench_bitnet, memory_to_decode, models, read_speed
from kancourse.lab.checkpoint import save_checkpoint

TINY = {"n_layer": 2, "n_head": 2, "n_embd": 32, "ffn_dim": 40, "vocab_size": 64}


def test_it_says_what_it_measured(monkeypatch):
    monkeypatch.setattr(module, "SIZES", TINY)
    monkeypatch.setattr(module, "memory_to_decode", lambda path: {"fp32": 30, "packed": 20}[path.stem])
    threads = torch.get_num_threads()
    lines = list(bench_bitnet(TINY, read=2**20, far=300))
    assert torch.get_num_threads() == threads
    assert lines[0] == f"on one thread; products by {bit_kernel().name} ({bit_kernel().reason})"
    text = "\n".join(lines)
    assert "by loops: 2 × MultiScaleRetention, 2 × SwiGLU" in text
    body, dense = re.search(r"body is 1/([\d.]+) of fp32's at 2 bits, 1/([\d.]+) at 1.6", text).groups()
    assert 4 < float(body) < float(dense) < 20  # the header of a tiny file weighs much
    if sys.platform == "linux":
        assert "1/1.5 of fp32's" in text
    assert re.search(r"decoding after 300 tokens: [\d.]+x the time", text)
    assert BENCHES["bitnet"] is bench_bitnet


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
def test_memory_is_that_of_the_model(tmp_path):
    dense, _ = models(n_layer=4, n_head=8, n_embd=512, ffn_dim=2048, vocab_size=64)
    size = sum(p.numel() for p in dense.parameters()) * 4
    path = save_checkpoint(tmp_path / "fp32.safetensors", dense)
    assert 0.7 * size < memory_to_decode(path) < 2.2 * size


def test_memory_is_read_at_a_speed_that_can_be():
    assert 1e8 < read_speed(2**20) < 1e13
