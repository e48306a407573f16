"""Who goes with whom: the one-to-one assignment with the greatest total score, exactly.

The Hungarian method by shortest augmenting paths: rows are placed one after another, and whoever stands in the way is
moved along the cheapest chain of replacements. Most rows find their place without a chain.

Papers: Kuhn 1955, "The Hungarian method for the assignment problem"; Jonker & Volgenant 1987, "A shortest augmenting
path algorithm for dense and sparse linear assignment problems".

Shapes: n rows and columns.
"""

import torch
from torch import Tensor


@torch.no_grad()
def assign(score: Tensor) -> Tensor:
    """The permutation p for which Σ_i score[i, p[i]] is greatest. Time at most as n³.

    Args:
        score: (n, n), of any real dtype; computed in float64.

    Returns:
        (n,) int64, on the CPU: the column of each row.

    Raises:
        ValueError: the scores are not square, or not finite.
    """
    if score.ndim != 2 or score.size(0) != score.size(1):
        raise ValueError(f"an assignment wants a square of scores, got shape {(*score.shape,)}")
    cost = -score.detach().to("cpu", torch.float64)
    if not bool(cost.isfinite().all()):
        raise ValueError("an assignment wants finite scores")
    n = len(cost)
    if n == 0:
        return torch.empty(0, dtype=torch.long)
    # Prices with cost[i, j] >= row_price[i] + column_price[j], equal where i has j: so no other assignment is cheaper.
    column_price = cost.amin(0)
    row_price, nearest = (cost - column_price).min(1)
    row_of, column_of = [-1] * n, [-1] * n
    for i, j in enumerate(nearest.tolist()):
        if row_of[j] < 0:
            row_of[j], column_of[i] = i, j
    for i in range(n):
        if column_of[i] < 0:
            _place(i, cost, row_price, column_price, row_of, column_of)
    return torch.tensor(column_of)


def _place(
    start: int, cost: Tensor, row_price: Tensor, column_price: Tensor, row_of: list[int], column_of: list[int]
) -> None:
    """Give row `start` a column: Dijkstra's search over reduced costs for the nearest free one."""
    n = len(cost)
    distance = cost.new_full((n,), torch.inf)  # of the shortest chain that ends by taking this column
    open_distance = distance.clone()  # the same, infinite for columns that are settled
    settled = torch.zeros(n, dtype=torch.bool)
    before = torch.full((n,), -1)  # the row that takes this column in that chain
    i, length, chain = start, 0.0, []
    while True:
        reached = cost[i] - column_price + (length - float(row_price[i]))
        shorter = (reached < distance) & ~settled
        distance = torch.where(shorter, reached, distance)
        open_distance = torch.where(shorter, reached, open_distance)
        before[shorter] = i
        j = int(open_distance.argmin())
        length = float(distance[j])
        settled[j] = True
        open_distance[j] = torch.inf
        if row_of[j] < 0:
            break
        i = row_of[j]
        chain.append(j)
    row_price[start] += length
    if chain:
        slack = length - distance[chain]
        row_price[[row_of[column] for column in chain]] += slack
        column_price[chain] -= slack
    while True:  # move everybody on the chain
        i = int(before[j])
        row_of[j], column_of[i], j = i, j, column_of[i]
        if i == start:
            return
