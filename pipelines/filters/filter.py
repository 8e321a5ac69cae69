"""What a filter is: settings, perhaps weights, and a finding about each picture that it is shown.

A frozen dataclass of settings, which are its configuration as well. Packages bring their own by entry points:

    [project.entry-points."reptok.filters"]     name = "package.module:Class"

Such a one is configured, and takes part, at `data.filter_images.name`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from pipelines.dag.artifact import Artifact

Row = Mapping[str, Any]
"""A picture: `key`, and the columns that the filter reads."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a filter says of a picture.

    Attributes:
        scores: By name, of those that the filter declares; what it cannot score it leaves out.
        reason: Why the picture is not to be passed on, a word in snake_case; None if it may be.
        detail: More of that, such as the list that knew it.
        quarantined: Whether the picture, which then has a reason, is also to be seen by nobody who is not
            charged with it: it is shown nowhere and named by its key.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    detail: str | None = None
    quarantined: bool = False

    def __post_init__(self) -> None:
        if self.quarantined and not self.reason:
            raise ValueError("a picture is quarantined for a reason; name it")


class Filter:
    """Looks at pictures, one by one (`judge`) or some at a time (`judge_all`): override one of the two.

    A filter sees the pictures that those before it have left. What it says of one depends on that picture
    alone, unless it remembers (see `fresh`). A picture on which it raises is not passed on.

    Attributes:
        reads: Columns of `images` that it looks at, such as "jpg".
        scores: Names of the scores that it gives.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    scores: ClassVar[tuple[str, ...]] = ()

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Where a score begins to decide, by its name."""
        return {}

    def placed(self, inputs: Mapping[str, Artifact]) -> Self:
        """Return this filter for workers, who find its weights where it says, on any machine."""
        return self

    def setup(self) -> None:
        """Load weights, open clients: once per worker."""

    def fresh(self) -> Self:
        """Return this filter for the pictures of one table, which come in the order of their keys."""
        return self

    def judge(self, row: Row) -> Finding:
        """Look at one picture."""
        raise NotImplementedError(f"{type(self).__name__} has neither judge nor judge_all")

    def judge_all(self, rows: Sequence[Row]) -> Sequence[Finding]:
        """Look at some pictures; it may be asked again about one of them if that raises."""
        return [self.judge(row) for row in rows]
