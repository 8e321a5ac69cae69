"""What an op is: settings, weights loaded once, and a function from batch to batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

Batch = dict[str, Any]
"""Column name to the values of the batch's rows."""


class Op(ABC):
    """A frozen dataclass of settings that turns batches of some columns into batches with more columns.

    The result for a row does not depend on the other rows of its batch.

    Attributes:
        reads: Columns that a batch must have.
        writes: Columns that the op adds.
    """

    reads: ClassVar[tuple[str, ...]]
    writes: ClassVar[tuple[str, ...]]

    def setup(self) -> None:  # noqa: B027 - most ops load nothing
        """Load weights; called once per worker, before the first batch."""

    @abstractmethod
    def __call__(self, batch: Batch) -> Batch:
        """Return the batch's columns and those of `writes`."""
