"""Questions about shards that a processor of rows answers, such as ray.data.llm's.

The answers to a shard's questions are kept beside its records; its job reads them when it does the shard. How
they come there: `ray_asking`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.dag.workspace import SCRATCH, Workspace

if TYPE_CHECKING:
    from ray.data import Dataset

    from pipelines.dag.shards import Shard

Row = dict[str, Any]
UNASKED = "__inference_error__"
"""The column in which ray.data.llm says why a row has no answer; it passes over rows that come with one."""

ADDRESS = ("place", "shard", "number", "lane")
"""Columns that a processor hands on."""


class Asking(ABC):
    """A frozen dataclass of settings: what a job asks, and who answers."""

    def setup(self) -> None:  # noqa: B027 (some need none)
        """Load what `questions` needs: once per process that asks."""

    @abstractmethod
    def questions(self, shard: Shard) -> Iterable[Row]:
        """Rows for the processor; one with a reason in `UNASKED` is not asked, and an answer all the same."""

    @abstractmethod
    def processor(self, workers: int) -> Callable[[Dataset], Dataset]:
        """Who answers, at most so many at a time; it hands on the columns of `ADDRESS`, and `UNASKED`."""

    @abstractmethod
    def answer(self, row: Row) -> Mapping[str, Any]:
        """What is kept of a row that has been through the processor; JSON values."""


def answers_file(index: int) -> str:
    """Name of the answers about a shard."""
    return f"{SCRATCH}/shards/answers/{index:06d}.json"


def write_answers(answers: Sequence[Mapping[str, Any]], index: int, out: Workspace) -> None:
    """Keep the answers about a shard, in the order of its questions."""
    out.folder.write_bytes(answers_file(index), json.dumps(answers).encode())


def read_answers(index: int, out: Workspace) -> list[dict[str, Any]]:
    """The answers about a shard.

    Raises:
        FileNotFoundError: there are none yet.
    """
    answers: list[dict[str, Any]] = json.loads(out.folder.read_bytes(answers_file(index)))
    return answers
