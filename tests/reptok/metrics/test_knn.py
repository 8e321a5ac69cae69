"""Nearest neighbours on hand-made features."""

import pytest
import torch

from reptok.metrics.knn import knn_accuracy, knn_predict

BANK = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [-1.0, 0.0]])
LABELS = torch.tensor([0, 0, 1, 1, 2])


def test_the_nearest_direction_wins_whatever_its_length():
    queries = torch.tensor([[50.0, 1.0], [0.01, 0.2], [-3.0, 0.5]])
    assert knn_predict(BANK, LABELS, queries, k=1).tolist() == [0, 1, 2]
    assert knn_accuracy(BANK, LABELS, queries, torch.tensor([0, 1, 0]), k=1) == pytest.approx(2 / 3)


def test_a_close_neighbour_outvotes_several_far_ones():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1, 1, 1])
    query = torch.tensor([[1.0, 0.1]])
    assert knn_predict(bank, labels, query, k=4).tolist() == [0]
    assert knn_predict(bank, labels, query, k=4, temperature=1e3).tolist() == [1]


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match=r"1\.\.5"):
        knn_predict(BANK, LABELS, BANK, k=6)
    with pytest.raises(ValueError, match="labels"):
        knn_predict(BANK, LABELS[:3], BANK, k=1)
