"""Exact match: ask a model the questions of a corpus, count the right final answers, and say how sure that count is.

- Greedy, so the same model gives the same number; it is asked with the beginning of documents as it was trained on.
- The band is Wilson's 95% interval for a share: it is honest at 0 right and at all right.
- The control always gives the most frequent answer of the training documents. A model that is not clearly above it has
  not been shown to reason.

Paper: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".

Shapes: B batch, T time.
"""

import math
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch
from tqdm import tqdm

from kancourse.gpt import GPT
from kancourse.lab.answers import is_right
from kancourse.lab.corpus import Corpus
from kancourse.lab.questions import Questions, load_questions
from kancourse.lab.tokenizers import Tokenizer

_BATCH = 64  # questions at a time


@dataclass(frozen=True, kw_only=True)
class ExactMatch:
    """How many questions were answered right.

    Attributes:
        questions: where they are from, as "gsm8k, test".
        n: how many were asked.
        right: how many answers were right.
        answered: how many texts had a final answer at all.
        low, high: the 95% band of the share that is right.
        control: the share that always giving `control_answer` gets right.
        control_answer: the most frequent answer of the training documents.
        sample: a question and what was written.
    """

    questions: str
    n: int
    right: int
    answered: int
    low: float
    high: float
    control: float
    control_answer: str
    sample: str

    @property
    def share(self) -> float:
        """Of the questions, those answered right."""
        return self.right / self.n

    def __str__(self) -> str:
        return (
            f"exact match {self.share:.1%} (95% band {self.low:.1%} to {self.high:.1%}): {self.right} of {self.n} "
            f"questions of {self.questions}, {self.answered} of them with a final answer; "
            f"always answering {self.control_answer!r} gets {self.control:.1%}"
        )


def exact_match(
    model: GPT, questions: Questions, tokenizer: Tokenizer, *, max_new_tokens: int = 200, progress: bool | None = None
) -> ExactMatch:
    """Ask every question, greedily.

    Args:
        model: in eval mode while it is asked; a text longer than its context goes on from its end, as in sampling.
        questions: see `load_questions`.
        tokenizer: the model's.
        max_new_tokens: the longest text; a model that ends the document is not asked on.
        progress: show a bar; None: on a terminal.

    Raises:
        ValueError: a question that the tokenizer cannot write.
    """
    prompts = [[tokenizer.eot_id, *tokenizer.encode(example.prompt)] for example in questions.examples]
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    batches = [order[i : i + _BATCH] for i in range(0, len(order), _BATCH)]
    show = sys.stderr.isatty() if progress is None else progress
    was_training = model.training
    model.eval()
    written: dict[int, str] = {}
    for batch in tqdm(batches, desc="asking", disable=not show, leave=False, mininterval=1):
        texts = _continued(model, [prompts[number] for number in batch], tokenizer, max_new_tokens)
        written |= dict(zip(batch, texts, strict=True))
    model.train(was_training)
    how = questions.answer_format
    right = sum(is_right(written[i], example.answers, how) for i, example in enumerate(questions.examples))
    usual = questions.usual_answer
    control = sum(usual in map(how.normalise, example.answers) for example in questions.examples)
    n = len(questions.examples)
    low, high = wilson(right, n)
    return ExactMatch(
        questions=f"{questions.corpus}, {questions.part}",
        n=n,
        right=right,
        answered=sum(how.extract(text) is not None for text in written.values()),
        low=low,
        high=high,
        control=control / n,
        control_answer=usual,
        sample=questions.examples[0].prompt + written[0],
    )


def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The interval of a share of which `right` of `n` were seen: Wilson's, 95% by default."""
    share, spread = right / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))  # rounding aside, the same


def exact_match_probe(model: GPT, corpus: Corpus, seed: int) -> dict[str, Any]:
    """A probe (see `probes.py`): up to 300 questions of the corpus the model was trained on."""
    questions = load_questions(corpus.name, domains=corpus.source.get("domains"), n_questions=300)
    found = exact_match(model, questions, corpus.tokenizer)
    return asdict(found) | {"share": found.share}


@torch.no_grad()
def _continued(model: GPT, prompts: list[list[int]], tokenizer: Tokenizer, max_new_tokens: int) -> list[str]:
    """What the model writes after each prompt, greedily, until all have ended.

    The prompts go in together, as far as the shortest; the rest of the longer ones is fed in place of what the model
    would say, so prompts of any lengths make one batch.
    """
    start, most = min(map(len, prompts)), max(map(len, prompts)) + max_new_tokens
    device, limit = model.wte.weight.device, model.context_limit
    seen = torch.tensor([ids[:start] for ids in prompts], device=device)  # (B, T)
    logits, state = model.step(seen if limit is None else seen[:, -limit:])
    ends = [most] * len(prompts)  # where each text ends
    for length in range(start, most):
        said = logits[:, -1].argmax(-1).tolist()
        new = [ids[length] if length < len(ids) else token for ids, token in zip(prompts, said, strict=True)]
        for row, ids in enumerate(prompts):
            if len(ids) <= length < ends[row] and (new[row] == tokenizer.eot_id or length == len(ids) + max_new_tokens):
                ends[row] = length
        column = torch.tensor(new, device=device)[:, None]
        seen = torch.cat((seen, column), dim=1)
        if all(end <= length for end in ends):
            break
        if limit is not None and state.length == limit:  # the window is full: go on from its last half
            logits, state = model.step(seen[:, -max(1, limit // 2) :])
        else:
            logits, state = model.step(column, state)
    rows = seen.tolist()
    return [tokenizer.decode(row[len(ids) : end]) for row, ids, end in zip(rows, prompts, ends, strict=True)]
