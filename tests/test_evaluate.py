"""Evaluation: every target once, whatever the batches. Run: pytest tests/test_evaluate.py"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kancourse.lab.device import pick_device
from kancourse.lab.evaluate import evaluate
from kancourse.lab.tokenizers import ByteTokenizer
from kancourse.lab.tokens import TokenArray
from kancourse.zoo import build

TOKENIZER = ByteTokenizer()
BLOCK = 16


def split(lengths: list[int], seed: int = 0) -> TokenArray:
    draw = np.random.default_rng(seed)
    documents = [draw.integers(97, 123, size=length).tolist() for length in lengths]
    return TokenArray.from_documents(documents, eot_id=TOKENIZER.eot_id, vocab_size=TOKENIZER.vocab_size)


def model(**overrides):
    return build("gpt-nano", **({"vocab_size": 257, "block_size": BLOCK, "seed": 0} | overrides))


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_mean_is_over_tokens_whatever_the_batches(batch_size):
    tokens = split([3, 9, 1, 14, 7, 40, 2])
    m = model().eval()
    with torch.no_grad():
        m.wte.weight.mul_(3)
    got = evaluate(m, tokens, batch_size=batch_size)
    assert got.n_tokens == len(tokens)
    assert got.loss == pytest.approx(evaluate(m, tokens, batch_size=7).loss, abs=1e-6)


def test_a_document_that_fits_is_scored_from_its_beginning_in_full():
    tokens = split([9])
    m = model().eval()
    ids = torch.tensor(np.array(tokens.ids, dtype=np.int64))  # the document and its end
    x = torch.cat((torch.tensor([TOKENIZER.eot_id]), ids[:-1]))[None]
    want = F.cross_entropy(m(x)[0], ids).item()
    assert evaluate(m, tokens).loss == pytest.approx(want, abs=1e-6)


def test_an_untrained_model_with_a_zero_head_scores_ln_v_and_the_units_agree():
    tokens = split([5, 8, 13])
    m = model(tie_head=False)
    torch.nn.init.zeros_(m.lm_head.weight)
    got = evaluate(m, tokens)
    assert got.loss == pytest.approx(math.log(257), abs=1e-5)
    assert got.perplexity == pytest.approx(257, rel=1e-4)
    assert got.floor is None
    assert got.excess is None
    assert "unigram entropy" in str(got)


def test_training_mode_is_put_back_and_dropout_is_off():
    tokens = split([5, 8, 13])
    m = model(dropout=0.5).train()
    assert evaluate(m, tokens).loss == evaluate(m, tokens).loss
    assert m.training


def test_a_device_says_why_and_refuses_what_it_does_not_have():
    assert "float32" in pick_device("cpu").reason
    assert pick_device("cpu", "bfloat16").dtype is torch.bfloat16
    with pytest.raises(ValueError, match="unknown device 'tpu'; known: auto, cpu, cuda, mps"):
        pick_device("tpu")
    with pytest.raises(ValueError, match="unknown dtype 'float16'; known: auto, float32, bfloat16"):
        pick_device("cpu", "float16")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"device 'cuda' is not available on this machine; available: .*cpu"):
            pick_device("cuda")
