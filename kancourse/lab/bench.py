"""Benchmarks as ratios from one run on the user's machine: never bare seconds, which mean nothing elsewhere.

- Two contestants are timed in turn (`timing.py`), so that a machine whose speed drifts drifts for both.
- `BENCHES` maps a name to a function that yields lines; a new idea adds its row.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from kancourse.gpt import naive_attention
from kancourse.lab.bench_bitnet import bench_bitnet
from kancourse.lab.bench_elephant import bench_elephant
from kancourse.lab.bench_growth import bench_growth
from kancourse.lab.bench_kan import bench_kan
from kancourse.lab.bench_lmc import bench_lmc
from kancourse.lab.bench_mixkabrn import bench_mixkabrn
from kancourse.lab.bench_moe import bench_moe
from kancourse.lab.bench_retention import bench_retention
from kancourse.lab.meters import saved_tensor_bytes
from kancourse.lab.sample import generate_ids
from kancourse.lab.timing import time_ratio
from kancourse.zoo import build


def bench_gpt() -> Iterator[str]:
    """Attention, decoding and the loss of a GPT, each fast path against its naive twin."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 256, 32, generator=generator)
    ratio = time_ratio(
        lambda: naive_attention(q, k, v), lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    )
    yield f"attention, 256 tokens: the fused kernel is {ratio:.1f}x as fast as the formula by loops"

    model = build("gpt-micro", vocab_size=65, block_size=256, seed=0).eval()
    prompt = torch.zeros(1, 1, dtype=torch.long)

    @torch.no_grad()
    def decode_without_cache() -> None:
        seen = prompt
        for _ in range(255):
            seen = torch.cat((seen, model(seen)[:, -1:].argmax(-1)), dim=1)

    ratio = time_ratio(decode_without_cache, lambda: list(generate_ids(model, prompt, 255, temperature=0)), pairs=3)
    yield f"decoding 255 tokens: the key-value cache is {ratio:.1f}x as fast as reading everything again"

    large = build("gpt-nano", vocab_size=50_257, seed=0)
    x = torch.randint(50_257, (16, 128), generator=generator)
    chunked = saved_tensor_bytes(lambda: large.loss(x, x), ignore=large)
    whole = saved_tensor_bytes(lambda: large.loss(x, x, logit_budget=x.numel() * 50_257), ignore=large)
    yield f"loss, vocabulary 50,257, 2,048 tokens: in chunks it keeps 1/{whole / chunked:.0f} of the bytes"


BENCHES: dict[str, Callable[[], Iterator[str]]] = {
    "bitnet": bench_bitnet,
    "elephant": bench_elephant,
    "gpt": bench_gpt,
    "growth": bench_growth,
    "kan": bench_kan,
    "lmc": bench_lmc,
    "mixkabrn": bench_mixkabrn,
    "moe": bench_moe,
    "retention": bench_retention,
}


def bench(names: list[str]) -> Iterator[str]:
    """Run the named benchmarks (all when none is named), yielding lines as they are measured.

    Raises:
        ValueError: an unknown name.
    """
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        raise ValueError(f"unknown benchmark {unknown[0]!r}; known: {', '.join(BENCHES)}")
    for name in names or BENCHES:
        yield f"{name} ({torch.get_num_threads()} threads, torch {torch.__version__})"
        for line in BENCHES[name]():
            yield "  " + line
