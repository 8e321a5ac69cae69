"""k-nearest-neighbour classification by cosine similarity: what a frozen representation knows.

N bank rows, M queries, D feature width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def knn_predict(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Predict each query's class by its k most similar bank rows' votes, exp(similarity / temperature).

    Args:
        bank: features (N, D).
        bank_labels: classes (N,), integers from 0.
        queries: features (M, D).
        k: number of neighbours, at most N.
        temperature: how fast a neighbour's vote falls with its distance.

    Returns:
        Predicted classes (M,), int64.

    Raises:
        ValueError: `k` is not within 1..N, or bank and labels differ in length.
    """
    if len(bank) != len(bank_labels):
        raise ValueError(f"the bank has {len(bank)} features but {len(bank_labels)} labels")
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be within 1..{len(bank)} (the size of the bank), not {k}")
    similarity = F.normalize(queries.float(), dim=-1) @ F.normalize(bank.float(), dim=-1).T  # (M, N)
    nearest = similarity.topk(k, dim=-1)
    votes = torch.exp((nearest.values - nearest.values[:, :1]) / temperature)
    classes = int(bank_labels.max()) + 1
    tally = votes.new_zeros(len(queries), classes)
    tally.scatter_add_(1, bank_labels.long()[nearest.indices], votes)
    return tally.argmax(-1)


def knn_accuracy(bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor, k: int = 20) -> float:
    """Share of queries (M, D) whose predicted class is their label (M,); see `knn_predict`."""
    return (knn_predict(bank, bank_labels, queries, k) == labels).float().mean().item()
