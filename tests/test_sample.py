"""Sampling: distributions, laws, and decoding that never ends in an error. Run: pytest tests/test_sample.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kancourse.lab.sample import (
    entropy,
    entropy_slope,
    generate,
    generate_documents,
    generate_ids,
    generate_stream,
    next_token_probabilities,
)
from kancourse.lab.tokenizers import ByteTokenizer
from kancourse.zoo import build

logits_lists = st.lists(st.floats(-8, 8), min_size=2, max_size=12)


def nano(**overrides):
    return build("gpt-nano", **({"vocab_size": 257, "block_size": 16, "seed": 0} | overrides))


@given(logits_lists, st.floats(0.2, 5.0))
def test_the_slope_of_entropy_is_the_variance_over_t_cubed(values, temperature):
    logits, step = torch.tensor(values, dtype=torch.float64), 1e-4
    numeric = (entropy(logits, temperature + step) - entropy(logits, temperature - step)) / (2 * step)
    torch.testing.assert_close(entropy_slope(logits, temperature), numeric, atol=1e-5, rtol=1e-4)


@given(logits_lists, st.floats(0.1, 3.0), st.integers(1, 15), st.floats(0.05, 1.0))
def test_probabilities_sum_to_one_and_keep_the_most_likely(values, temperature, top_k, top_p):
    logits = torch.tensor(values)
    p = next_token_probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    full = next_token_probabilities(logits, temperature=temperature)
    assert p.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert p[full.argmax()] > 0
    kept = full[p > 0]
    if (p == 0).any():
        assert kept.min() >= full[p == 0].max()
    torch.testing.assert_close(p[p > 0], kept / kept.sum())


def test_top_k_and_top_p_by_hand():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    p = next_token_probabilities(logits, top_k=2)
    torch.testing.assert_close(p, torch.tensor([0.625, 0.375, 0.0, 0.0]))
    p = next_token_probabilities(logits, top_p=0.7)
    torch.testing.assert_close(p, torch.tensor([0.625, 0.375, 0.0, 0.0]))
    p = next_token_probabilities(logits, top_p=0.81)
    torch.testing.assert_close(p, torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95)


def test_samples_have_the_models_distribution():
    """χ² over 20,000 draws of the first token: the statistic of a right sampler exceeds this once in 10,000 times."""
    model = nano(vocab_size=8)
    with torch.no_grad():
        model.wte.weight.mul_(3)
    idx = torch.zeros(20_000, 1, dtype=torch.long)
    drawn = next(generate_ids(model, idx, 1, temperature=0.7, generator=torch.Generator().manual_seed(1)))
    p = next_token_probabilities(model.step(idx[:1])[0][0, -1], temperature=0.7).detach()
    expected = 20_000 * p
    statistic = ((torch.bincount(drawn, minlength=8) - expected) ** 2 / expected).sum().item()
    assert statistic < 29.9  # χ² with 7 degrees of freedom, upper 1e-4 quantile
    assert p.max() < 0.9


def test_zero_temperature_is_greedy_and_equals_reading_everything_again():
    model = nano().eval()
    idx = torch.tensor([[1, 2, 3], [9, 8, 7]])
    got = torch.stack(list(generate_ids(model, idx, 10, temperature=0)), dim=1)
    seen = idx
    for _ in range(10):
        seen = torch.cat((seen, model(seen)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(got, seen[:, 3:])


def test_beyond_the_window_a_sample_goes_on_from_its_last_half():
    model = nano().eval()
    got = torch.stack(list(generate_ids(model, torch.tensor([[5]]), 60, temperature=0)), dim=1)
    seen, start = torch.tensor([[5]]), 0
    for _ in range(60):
        if seen.size(1) - start > 16:
            start = seen.size(1) - 8
        seen = torch.cat((seen, model(seen[:, start:])[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(got, seen[:, 1:])


def test_the_same_generator_seed_gives_the_same_text_and_another_another():
    texts = [
        generate(nano(), "ab", tokenizer=ByteTokenizer(), generator=torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_streamed_pieces_are_the_text_and_random_bytes_never_raise():
    model = nano()
    with torch.no_grad():
        model.wte.weight.normal_(generator=torch.Generator().manual_seed(0))
    for seed in range(5):
        settings = {"tokenizer": ByteTokenizer(), "max_new_tokens": 80, "temperature": 3.0, "stop_at_end": False}
        whole = generate(model, "", generator=torch.Generator().manual_seed(seed), **settings)
        pieces = list(generate_stream(model, "", generator=torch.Generator().manual_seed(seed), **settings))
        assert "".join(pieces) == whole


def test_documents_end_where_the_model_ends_them():
    model = nano(position="none").eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    texts = generate_documents(model, 50, tokenizer=ByteTokenizer(), max_new_tokens=40)
    assert len(texts) == 50
    assert all(len(text) <= 40 for text in texts)


def test_training_mode_is_put_back():
    model = nano().train()
    generate(model, "a", tokenizer=ByteTokenizer(), max_new_tokens=2)
    assert model.training


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -1.0}, r"temperature must be 0 \(greedy\) or more, got -1.0"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
    ],
)
def test_bad_settings_are_one_clear_error(setting, message):
    with pytest.raises(ValueError, match=message):
        generate(nano(), "a", tokenizer=ByteTokenizer(), **setting)


def test_an_empty_prompt_from_the_middle_is_refused():
    with pytest.raises(ValueError, match=r"prompts must be \(B, T\) with T at least 1"):
        generate(nano(), "", tokenizer=ByteTokenizer(), begin_document=False)


def test_entropy_of_equal_logits_is_ln_v():
    assert entropy(torch.zeros(10)).item() == pytest.approx(math.log(10))
    assert entropy_slope(torch.zeros(10)).item() == 0.0
