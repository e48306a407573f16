"""<pause> tokens: a model is given a moment to think before it answers.

A learned token that means nothing is put between the tokens of a text. What has to be predicted after it is what had
to be predicted before it; only there is a further position, with a block's work of its own, in between.

Notable points:
- Nobody is taught to say <pause>: wherever it would be the target, the loss looks away.
- It is not free. With n pauses after every k tokens the model runs over (1 + n/k) times the positions. A fair
  comparison gives the others as much work: more steps, or more layers.
- Positions count the pauses, too.

Paper: Goyal et al. 2023, "Think before you speak: Training Language Models With Pause Tokens".

Shapes: B batch, T text tokens, T' text tokens and pauses, V vocabulary.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from kancourse.gpt import GPT, IGNORE, GPTConfig

__all__ = ["PausingGPT", "insert_pauses", "pause_positions"]


def pause_positions(n_tokens: int, *, every: int = 1, n: int = 1) -> tuple[Tensor, Tensor]:
    """Where T tokens go when n pauses follow every k-th of them, and where each one's successor is predicted.

    Returns:
        (T,) the place of each token, and (T,) the place it is answered from: its own, or the last pause after it.
    """
    number = torch.arange(n_tokens)
    place = number + n * (number // every)
    paused = (number + 1) % every == 0
    return place, place + n * paused


def insert_pauses(idx: Tensor, targets: Tensor, pause_id: int, *, every: int = 1, n: int = 1) -> tuple[Tensor, Tensor]:
    """Put n pauses after every k-th token, and let each target be predicted after them.

    Args:
        idx: token ids, (B, T).
        targets: the ids that follow them, (B, T); -100 where nothing is to be predicted.
        pause_id: the id of <pause>.
        every: k, counted from the first token.
        n: pauses at a time.

    Returns:
        ids and targets, (B, T') each; the targets are -100 wherever a pause would be the answer.

    Raises:
        ValueError: `every` below 1 or `n` below 0.
    """
    if every < 1 or n < 0:
        raise ValueError(f"pauses come after every 1 or more tokens, 0 or more at a time; got every={every}, n={n}")
    T = idx.size(1)
    place, answer = (where.to(idx.device) for where in pause_positions(T, every=every, n=n))
    shape = (idx.size(0), T + n * (T // every))
    paused = idx.new_full(shape, pause_id).index_copy(1, place, idx)
    wanted = targets.new_full(shape, IGNORE).index_copy(1, answer, targets)
    return paused, wanted


class PausingGPT(nn.Module):
    """A GPT that pauses: to the outside a model of T text tokens, inside it runs over T' positions.

    Args:
        model: a GPT with one token more than the text has (the last id is <pause>) and room for T' positions.
        block_size: T, the text tokens it takes.
        every, n: n pauses after every k-th token.

    `config` is the model's with block_size T; the trainer and the evaluation ask for nothing else. Text is scored in
    blocks; `step` is not offered.

    Raises:
        ValueError: the model's block_size is too small for the pauses.
    """

    def __init__(self, model: GPT, *, block_size: int, every: int = 1, n: int = 1) -> None:
        super().__init__()
        needed = block_size + n * (block_size // every)
        if model.config.block_size < needed:
            raise ValueError(
                f"{block_size} tokens and their pauses are {needed} positions, more than the model's block_size "
                f"{model.config.block_size}"
            )
        self.model, self.every, self.n = model, every, n
        self.pause_id = model.config.vocab_size - 1
        self.config: GPTConfig = replace(model.config, block_size=block_size)

    def forward(self, idx: Tensor) -> Tensor:
        """Logits of the token after each text token, read after the pauses: ids (B, T) → (B, T, V)."""
        paused, _ = insert_pauses(idx, idx, self.pause_id, every=self.every, n=self.n)
        _, answer = pause_positions(idx.size(1), every=self.every, n=self.n)
        return self.model.lm_head(self.model.hidden(paused)[:, answer.to(idx.device)])

    def loss(self, idx: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats over the text's targets; pauses are none."""
        return self.model.loss(*insert_pauses(idx, targets, self.pause_id, every=self.every, n=self.n))
