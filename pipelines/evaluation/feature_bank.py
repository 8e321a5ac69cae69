"""Training images as the evaluations see them: their frozen features, subjects and mean image per subject."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.evaluation.dataset_view import DatasetView
from reptok.metrics.features import FeatureExtractor
from reptok.metrics.knn import knn_predict


@dataclass(frozen=True)
class FeatureBank:
    """Features of known images, for recognition, nearest neighbours and baselines.

    Attributes:
        view: the images.
        features: (N, D) float32.
        subjects: names of the subjects, sorted; empty where the dataset names none.
        labels: (N,) positions in `subjects`, -1 for an image without one.
        mean_images: (S, 3, H, W), the mean over all images of each subject; the overall mean in one row where
            there are no subjects.
        neighbours: k of the k-nearest-neighbour vote.
    """

    view: DatasetView
    features: Tensor
    subjects: list[str]
    labels: Tensor
    mean_images: Tensor
    neighbours: int

    @classmethod
    def build(
        cls,
        view: DatasetView,
        extractor: FeatureExtractor,
        neighbours: int,
        batch_size: int,
        progress: Callable[[int], None] = lambda done: None,
        *,
        device: str = "cpu",
    ) -> FeatureBank:
        """Run over all images of a view once; `device` is the extractor's."""
        subjects = view.subjects
        labels = labels_of([example.subject for example in view.examples], subjects)
        size = view.image_size
        sums = torch.zeros(max(len(subjects), 1), 3, size, size, dtype=torch.float64)
        counts = torch.zeros(len(sums), dtype=torch.float64)
        features = []
        for positions, images in view.batches(batch_size):
            features.append(extractor(images.to(device)).cpu())
            rows = (
                labels[positions].clamp(min=0) if subjects else torch.zeros(len(positions), dtype=torch.long)
            )
            counted = labels[positions] >= 0 if subjects else torch.ones(len(positions), dtype=torch.bool)
            sums.index_add_(0, rows[counted], images[counted].double())
            counts += torch.bincount(rows[counted], minlength=len(counts))
            progress(positions[-1] + 1)
        means = (sums / counts.clamp(min=1).view(-1, 1, 1, 1)).float()
        return cls(view, torch.cat(features), subjects, labels, means, neighbours)

    def labels_of(self, view: DatasetView) -> Tensor:
        """Positions in `subjects` of another view's samples, -1 for a subject that is not here."""
        return labels_of([example.subject for example in view.examples], self.subjects)

    def mean_image_of(self, labels: Tensor) -> Tensor:
        """Mean image (B, 3, H, W) of each label's subject."""
        return self.mean_images[labels.clamp(min=0)]

    def recognise(self, features: Tensor) -> Tensor:
        """Subject (B,) of features (B, D) by a vote of the nearest training images."""
        named = self.labels >= 0
        k = min(self.neighbours, int(named.sum()))  # of a small dataset all vote
        votes: Tensor = knn_predict(self.features[named], self.labels[named], features, k=k)
        return votes

    @property
    def vote(self) -> str:
        """How images are recognised, in words."""
        named = int((self.labels >= 0).sum())
        nearest = min(self.neighbours, named)
        return f"vote of the {nearest} nearest of {named:,} training images, frozen encoder's features"

    def sample(self, count: int) -> Tensor:
        """Features of `count` evenly spread images of the bank, to compare with as many others."""
        rows = torch.linspace(0, len(self.features) - 1, min(count, len(self.features))).round().long()
        return self.features[rows]

    def nearest(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine similarity to, and position of, the most similar training image, (B,) each."""
        similarity = F.normalize(features, dim=1) @ F.normalize(self.features, dim=1).T
        best = similarity.max(1)
        return best.values, best.indices


def labels_of(subjects: Sequence[str | None], known: Sequence[str]) -> Tensor:
    """Position of each subject in `known`, -1 where it is not there."""
    position = {name: number for number, name in enumerate(known)}
    return torch.tensor(
        [position.get(subject, -1) if subject else -1 for subject in subjects], dtype=torch.long
    )
