"""Batches: which tokens a step sees. Batch number i is a pure function of (seed, i), so there is no state to save.

- Resuming needs the step number only, and rank r of a data-parallel run takes its rows of the same global batch.
- A row's input is one token behind its target, so a document's first token is predicted from the end-of-text id of the
  document before it; the split is read as a ring, so the very first document has one, too.
- `RandomWindows` cuts anywhere (the usual choice for one long text); `DocumentWindows` starts rows where documents
  start, so the model sees what a reader would see (the right choice beside a floor that assumes whole documents).
- `evaluation_batches` scores every token of a split exactly once; padding has target -100 and never enters a loss.

Shapes: B batch rows, T block size, N tokens in the split.
"""

from collections.abc import Iterator

import numpy as np
import torch

from kancourse.gpt import IGNORE
from kancourse.lab.tokens import TokenArray


class _Windows:
    """Rows of T consecutive targets whose first positions are drawn from `_first_targets`."""

    def __init__(self, tokens: TokenArray, block_size: int, batch_size: int, seed: int = 0):
        if block_size < 1 or batch_size < 1:
            raise ValueError(f"block_size and batch_size must be at least 1, got {block_size} and {batch_size}")
        if seed < 0:
            raise ValueError(f"the data seed must be 0 or more, got {seed}")
        if len(tokens) < block_size:
            raise ValueError(
                f"a split of {len(tokens):,} tokens is shorter than one block of {block_size:,}; "
                "use a smaller block_size or more text"
            )
        self.tokens, self.block_size, self.batch_size, self.seed = tokens, block_size, batch_size, seed
        self._offsets = np.arange(-1, block_size)  # (T+1,) from the token before the first target to the last target

    def _first_targets(self, draw: np.random.Generator) -> np.ndarray:
        raise NotImplementedError

    def batch(self, i: int, *, rank: int = 0, world_size: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch number `i`, or rank's share of its rows: inputs and targets, both (B / world_size, T) int64.

        Raises:
            ValueError: the rows of a batch cannot be shared equally by `world_size`, or there is no such rank.
        """
        if self.batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size} cannot take an equal share of {self.batch_size} rows")
        rows = self.batch_size // world_size
        draw = np.random.Generator(np.random.Philox(key=np.array([self.seed, i], dtype=np.uint64)))
        first = self._first_targets(draw)[rank * rows : (rank + 1) * rows]
        positions = (first[:, None] + self._offsets) % len(self.tokens)  # (B, T+1)
        window = torch.from_numpy(self.tokens.ids[positions].astype(np.int64))  # (B, T+1)
        return window[:, :-1].contiguous(), window[:, 1:].contiguous()


class RandomWindows(_Windows):
    """Rows that start anywhere, all places equally likely; every token of the split can be a target.

    Arguments:
        tokens: the split, N >= block_size tokens.
        block_size: T.
        batch_size: B, the rows of the global batch.
        seed: of the data order, apart from every other seed.

    Raises:
        ValueError: sizes below 1, or a split shorter than one block.
    """

    def _first_targets(self, draw: np.random.Generator) -> np.ndarray:
        return draw.integers(0, len(self.tokens) - self.block_size + 1, size=self.batch_size)


class DocumentWindows(_Windows):
    """Rows that start where a document starts, all documents equally likely; the documents after it fill the row.

    - A document longer than the block also offers starts one block apart inside it, so all its tokens are trained on.
    - A row that reaches the end of the split goes on with its first document.

    Arguments and errors: as `RandomWindows`.
    """

    def __init__(self, tokens: TokenArray, block_size: int, batch_size: int, seed: int = 0):
        super().__init__(tokens, block_size, batch_size, seed)
        blocks = -(-tokens.document_lengths() // block_size)  # starts that each document offers
        number = np.arange(blocks.sum()) - np.repeat(np.cumsum(blocks) - blocks, blocks)  # 0, 1, … within a document
        self._starts = np.repeat(tokens.starts, blocks) + number * block_size

    def _first_targets(self, draw: np.random.Generator) -> np.ndarray:
        return self._starts[draw.integers(0, len(self._starts), size=self.batch_size)]


class EvaluationBatches:
    """See `evaluation_batches`. Iterates over (x, y); `len()` counts batches, `n_targets` scored tokens."""

    def __init__(self, tokens: TokenArray, block_size: int, batch_size: int, max_batches: int | None):
        if min(block_size, batch_size, 1 if max_batches is None else max_batches) < 1:
            raise ValueError(f"sizes must be at least 1, got {block_size=}, {batch_size=}, {max_batches=}")
        rows = evaluation_rows(tokens, block_size)
        if max_batches is not None and len(rows) > max_batches * batch_size:
            rows = rows[np.linspace(0, len(rows) - 1, max_batches * batch_size).round().astype(int)]
        self.tokens, self.block_size, self.batch_size, self.rows = tokens, block_size, batch_size, rows
        self.n_targets = int((rows[:, 1] - rows[:, 0]).sum())

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        offsets = np.arange(self.block_size)
        for begin in range(0, len(self.rows), self.batch_size):
            first, end = self.rows[begin : begin + self.batch_size].T[:, :, None]  # (B, 1) each
            targets = first + offsets  # (B, T) positions in the split
            real = targets < end
            ids = self.tokens.ids.take(np.stack([targets - 1, targets]), mode="wrap").astype(np.int64)  # (2, B, T)
            x = np.where(real, ids[0], self.tokens.eot_id)
            y = np.where(real, ids[1], IGNORE)
            yield torch.from_numpy(x), torch.from_numpy(y)


def evaluation_rows(tokens: TokenArray, block_size: int) -> np.ndarray:
    """(R, 2) first and one-past-last target of each evaluation row: together they cover the split, without overlap.

    A row takes as many whole documents as fit; a document longer than the block starts a row and goes on in the next.
    """
    ends = np.append(tokens.starts[1:], len(tokens))  # one past each document's end-of-text
    rows, first = [], 0
    while first < len(tokens):
        whole = np.searchsorted(ends, first + block_size, side="right")  # documents that end inside this row
        end = ends[whole - 1] if whole and ends[whole - 1] > first else first + block_size
        rows.append((first, end))
        first = end
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def evaluation_batches(
    tokens: TokenArray, block_size: int, batch_size: int, *, max_batches: int | None = None
) -> EvaluationBatches:
    """All of a split for evaluation, the same every time: each of its N tokens is a target exactly once.

    The mean loss over all targets is therefore in nats per token as `tokens.floor` is. A document is always read from
    its own beginning (only one longer than the block goes on in the next row, with one token of context at first).

    Arguments:
        tokens: the split.
        block_size: T.
        batch_size: B; the last batch may have fewer rows.
        max_batches: score only so many batches, their rows spread evenly over the split.

    Returns:
        An iterable of (x, y), both (B, T) int64; padding has x = end-of-text and y = -100. The batches hold different
        numbers of real targets, so average over targets, not over batches.

    Raises:
        ValueError: a size below 1.
    """
    return EvaluationBatches(tokens, block_size, batch_size, max_batches)
