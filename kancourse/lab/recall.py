"""Recall over distance: does a model still know, at a question, what the story said so many words ago?

- Prompts are microworld stories cut just before an answer, from a seed space of their own, the same for every model.
- An answer counts as right when each of its tokens is the model's most likely one; its loss is of the whole answer.
- Level 1 has two people and two things in a story: whoever knows what is asked, but not the story, is right often.
  What tells is the difference between models, and whether it grows with distance.

Shapes: B batch, T time, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kancourse.gpt import GPT
from kancourse.lab.corpus import Corpus
from kancourse.lab.microworld import Prompt, prompts
from kancourse.lab.tokenizers import Tokenizer

EDGES = (0, 5, 10, 15, 20, 30)  # words between the fact and the question; the last bin is open
N_PROMPTS = 1500


def recall(model: GPT, corpus: Corpus, seed: int) -> dict[str, Any]:
    """Right answers and their loss by distance to the fact, on stories at the corpus's level.

    Args:
        model: trained on `corpus`.
        corpus: microworld, with stories.
        seed: not used: every model gets the same prompts.

    Returns:
        `distance` (lower edges of the bins, in words), `n`, `right` (share) and `loss` (nats per answer) per bin, and
        over all prompts `right_all`, `loss_all`, `n_all`. An empty bin has None.

    Raises:
        ValueError: the corpus is another, or has no stories.
    """
    if corpus.name != "microworld" or "stories" not in corpus.source["domains"]:
        raise ValueError(f"recall needs microworld with stories, got {corpus.name} {corpus.source.get('domains', '')}")
    asked = prompts(corpus.source["level"], 0, N_PROMPTS, domains=("stories",))
    right, loss = answer_scores(model, asked, corpus.tokenizer)
    bins = torch.bucketize(torch.tensor([p.distance for p in asked]), torch.tensor(EDGES), right=True) - 1
    told: dict[str, Any] = {"distance": list(EDGES), "n": [], "right": [], "loss": []}
    for number in range(len(EDGES)):
        here = bins == number
        told["n"].append(int(here.sum()))
        for name, values in (("right", right), ("loss", loss)):
            told[name].append(float(values[here].mean()) if here.any() else None)
    return told | {"right_all": float(right.mean()), "loss_all": float(loss.mean()), "n_all": len(asked)}


@torch.no_grad()
def answer_scores(
    model: GPT, asked: Sequence[Prompt], tokenizer: Tokenizer, *, batch_size: int = 50
) -> tuple[Tensor, Tensor]:
    """Of each prompt: 1.0 when the model's most likely answer is the right one, else 0.0; and the answer's loss, nats.

    A prompt longer than the context keeps its end. Both float64, (number of prompts,).
    """
    device, limit = model.wte.weight.device, model.config.block_size
    texts = []
    for prompt in asked:
        answer = tokenizer.encode(prompt.answer)
        ids = [tokenizer.eot_id, *tokenizer.encode(prompt.text), *answer]
        texts.append((ids[-limit - 1 :], len(answer)))
    right, loss = torch.zeros(len(texts), dtype=torch.float64), torch.zeros(len(texts), dtype=torch.float64)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i][0]))  # of similar length together: little padding
    was_training = model.training
    model.eval()
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        longest = max(len(texts[i][0]) for i in batch)
        idx = torch.full((len(batch), longest), tokenizer.eot_id, device=device)
        for row, i in enumerate(batch):
            idx[row, : len(texts[i][0])] = torch.tensor(texts[i][0])  # padded behind, where no answer looks
        log_p = model(idx[:, :-1]).float().log_softmax(-1)  # (B, T, V)
        for row, i in enumerate(batch):
            ids, n_answer = texts[i]
            here = log_p[row, len(ids) - 1 - n_answer : len(ids) - 1]  # (tokens of the answer, V)
            target = idx[row, len(ids) - n_answer : len(ids)]
            right[i] = float((here.argmax(-1) == target).all())
            loss[i] = -float(here.gather(1, target[:, None]).double().sum())
    model.train(was_training)
    return right, loss
