"""On how many a score was measured: where they are fewer than was asked for, every name says so.

A score of 8 images is not the score of 200, and must not be drawn over it in one curve or compared with it
by its name: `eval/psnr` of fewer is `eval/psnr_n8`, and in reports "PSNR, on 8 of 200 validation images". A
Frechet distance grows as images get fewer, so that its name always says of how many it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_DISTANCE = re.compile("eval/g?f(id|d_)")


@dataclass(frozen=True)
class Measured:
    """What scores were measured on.

    Attributes:
        count: how many there were.
        asked: how many were asked for.
        what: what was counted, in words.
    """

    count: int
    asked: int
    what: str = "validation images"

    @property
    def fewer(self) -> bool:
        """Whether there were not as many as was asked for."""
        return self.count < self.asked

    def metric(self, name: str) -> str:
        """The flat name of a metric: `eval/psnr_n8` of fewer than asked for, `eval/fd_vit_n200` always."""
        return f"{name}_n{self.count}" if self.fewer or _DISTANCE.match(name) else name

    def title(self, name: str) -> str:
        """The name of a score for people."""
        return f"{name}, on {self.count:,} of {self.asked:,} {self.what}" if self.fewer else name


Sizes = Mapping[str, Measured]
"""What metrics were measured on, by the beginning of their names; "" is the beginning of all others."""


def size_of(metric: str, sizes: Sizes) -> Measured:
    """What a metric was measured on: what the longest beginning of its name says."""
    return sizes[max((start for start in sizes if metric.startswith(start)), key=len)]


def named(metrics: Mapping[str, float], sizes: Sizes) -> dict[str, float]:
    """Metrics under names that say where there were fewer than was asked for."""
    return {size_of(name, sizes).metric(name): value for name, value in metrics.items()}


def shortfall(key: str, measured: Measured) -> list[str]:
    """A note on fewer than the configuration's `key` asks for; none if there were enough."""
    if not measured.fewer:
        return []
    return [
        f"{key} asks for {measured.asked:,} {measured.what}, and the dataset has {measured.count:,}. The "
        "scores' names say so: they compare only with those of as many."
    ]
