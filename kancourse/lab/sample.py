"""Sampling text from a model: greedy, temperature, top-k, top-p; seeded; the same code for every kind of mixer state.

Notable points:
- Decoding goes by `model.step`: the prompt once, then token by token. A model whose context ends (attention) starts
  again from the last half of its window when it is full, so a sample can be as long as you like.
- `entropy_slope` is an exact law: dH/dT = Var(ℓ)/T³ for the entropy H of softmax(ℓ/T). Sampling code that is right
  obeys it.
- Decoding bytes to text never raises: what is not valid UTF-8 becomes U+FFFD.

Paper: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration" (top-p).

Shapes: B batch, T time, V vocabulary.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kancourse.gpt import GPT
from kancourse.lab.tokenizers import Tokenizer


def next_token_probabilities(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The distribution the next token is drawn from.

    Args:
        logits: (..., V).
        temperature: logits are divided by it; 0 puts everything on the largest logit.
        top_k: keep only the k most likely tokens; None or a k beyond V keeps all.
        top_p: after that, keep the fewest most likely tokens whose probabilities reach p.

    Returns:
        Probabilities, float32, (..., V), summing to 1.

    Raises:
        ValueError: temperature below 0, top_k below 1, or top_p outside (0, 1].
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be 0 (greedy) or more, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p}")
    logits = logits.float()
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.size(-1)).float()
    probabilities = (logits / temperature).softmax(-1)
    if top_k is not None and top_k < logits.size(-1):
        smallest_kept = probabilities.topk(top_k, dim=-1).values[..., -1:]
        probabilities = probabilities.where(probabilities >= smallest_kept, 0.0)
    if top_p is not None and top_p < 1:
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        kept = ranked.where(ranked.cumsum(-1) - ranked < top_p, 0.0)  # all tokens before this one fall short of p
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, kept)
    return probabilities / probabilities.sum(-1, keepdim=True)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of softmax(logits/temperature): (..., V) → (...)."""
    log_p = (logits.double() / temperature).log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def entropy_slope(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """dH/dT of that entropy, exactly: Var(ℓ)/T³, the variance of the logits under softmax(ℓ/T). (..., V) → (...)."""
    p = (logits.double() / temperature).softmax(-1)
    mean = (p * logits.double()).sum(-1, keepdim=True)
    return (p * (logits.double() - mean) ** 2).sum(-1) / temperature**3


@torch.no_grad()
def generate_ids(
    model: GPT,
    idx: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield the new tokens one step at a time, (B,) each, for a batch of prompts of one length.

    Args:
        model: used in eval mode; its mode is put back at the end.
        idx: prompts, (B, T), T ≥ 1; a prompt longer than the context keeps its end.
        max_new_tokens: how many to draw.
        temperature, top_k, top_p: see `next_token_probabilities`.
        generator: draws the samples; default: one seeded with 0, so the same call gives the same text.

    Raises:
        ValueError: an empty prompt, or a setting out of range.
    """
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be 0 or more, got {max_new_tokens}")
    if idx.ndim != 2 or idx.size(1) == 0:
        raise ValueError(f"prompts must be (B, T) with T at least 1, got shape {tuple(idx.shape)}")
    generator = generator or torch.Generator().manual_seed(0)
    limit, was_training = model.context_limit, model.training
    model.eval()
    try:
        seen = idx if limit is None else idx[:, -limit:]
        logits, state = model.step(seen)
        for i in range(max_new_tokens):
            p = next_token_probabilities(logits[:, -1], temperature=temperature, top_k=top_k, top_p=top_p)
            new = torch.multinomial(p.to(generator.device), 1, generator=generator).to(idx.device)  # (B, 1)
            yield new[:, 0]
            if i + 1 == max_new_tokens:
                return
            seen = torch.cat((seen, new), dim=1)  # (B, T+1)
            if limit is not None and state.length == limit:  # the window is full: go on from its last half
                seen = seen[:, -max(1, limit // 2) :]
                logits, state = model.step(seen)
            else:
                logits, state = model.step(new, state)
    finally:
        model.train(was_training)


def generate(
    model: GPT,
    prompt: str,
    *,
    tokenizer: Tokenizer,
    max_new_tokens: int = 100,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    begin_document: bool = True,
    stop_at_end: bool = True,
) -> str:
    """Continue a text.

    Args:
        prompt: the text so far; may be empty when it begins a document.
        begin_document: the prompt is the beginning of a document (False: it is from the middle of one).
        stop_at_end: stop where the model ends the document.
        Others: see `generate_ids`.

    Returns:
        The continuation without the prompt.

    Raises:
        ValueError: a setting out of range, or a prompt the tokenizer cannot write.
    """
    pieces = generate_stream(
        model,
        prompt,
        tokenizer=tokenizer,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        generator=generator,
        begin_document=begin_document,
        stop_at_end=stop_at_end,
    )
    return "".join(pieces)


def generate_stream(
    model: GPT,
    prompt: str,
    *,
    tokenizer: Tokenizer,
    max_new_tokens: int = 100,
    begin_document: bool = True,
    stop_at_end: bool = True,
    **sampling,
) -> Iterator[str]:
    """As `generate`, but yields the text as it comes: each piece once its bytes make whole characters."""
    start = [tokenizer.eot_id] if begin_document else []  # a document begins where another has ended
    idx = torch.tensor([start + tokenizer.encode(prompt)], dtype=torch.long, device=model.wte.weight.device)
    ids: list[int] = []
    written = ""
    for new in generate_ids(model, idx, max_new_tokens, **sampling):
        if stop_at_end and int(new) == tokenizer.eot_id:
            break
        ids.append(int(new))
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):  # the last character may still be missing bytes
            yield text[len(written) :]
            written = text
    yield tokenizer.decode(ids)[len(written) :]


def generate_documents(
    model: GPT,
    n: int,
    *,
    tokenizer: Tokenizer,
    max_new_tokens: int = 100,
    generator: torch.Generator | None = None,
    **sampling,
) -> list[str]:
    """Draw n documents from their beginning, as one batch; each is cut where the model ends it."""
    idx = torch.full((n, 1), tokenizer.eot_id, device=model.wte.weight.device)
    steps = list(generate_ids(model, idx, max_new_tokens, generator=generator, **sampling))
    rows = torch.stack(steps, dim=1).tolist()  # (B, T)
    return [tokenizer.decode(row[: row.index(tokenizer.eot_id)] if tokenizer.eot_id in row else row) for row in rows]
