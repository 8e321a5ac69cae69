"""Questions about shards that a processor of rows answers, such as ray.data.llm's.

The answers to a shard's questions are kept beside its records; its job reads them when it does the shard. How
they come there: `ray_asking`. A question that nobody could answer is asked `PASSES` times in each invocation,
the others once: until then its shard fails, and comes again.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
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

PASSES = 2
"""Times that a question is asked which an engine fails to answer: another may be well, or the same later."""


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

    def heals(self, row: Row) -> bool:
        """Whether a row that has no answer may have one if it is asked again: what asks was not at fault."""
        return False


def answers_file(index: int) -> str:
    """Name of the answers about a shard."""
    return f"{SCRATCH}/shards/answers/{index:06d}.json"


@dataclass(frozen=True)
class Answers:
    """What is known of the questions about a shard.

    Attributes:
        known: by the question's number, what is kept of it.
        failed: how often each of those was asked in vain that may still be answered.
        invocation: in which one.
    """

    known: Mapping[int, Mapping[str, Any]]
    failed: Mapping[int, int]
    invocation: str

    def due(self, invocation: str) -> set[int]:
        """The questions that are to be asked again in an invocation."""
        before = self.failed if invocation == self.invocation else dict.fromkeys(self.failed, 0)
        return {number for number, times in before.items() if times < PASSES}

    def joined(self, known: Mapping[int, Mapping[str, Any]], failed: Set[int], invocation: str) -> Answers:
        """These with what came since, some of it in vain."""
        before = self.failed if invocation == self.invocation else {}
        left = {number: before.get(number, 0) + 1 for number in failed}
        kept = {number: times for number, times in before.items() if number not in known}
        return Answers({**self.known, **known}, {**kept, **left}, invocation)


NOTHING = Answers({}, {}, "")


def write_answers(answers: Answers, index: int, out: Workspace) -> None:
    """Keep what is known of the questions about a shard."""
    known = [[number, answer] for number, answer in sorted(answers.known.items())]
    kept = {"known": known, "failed": sorted(answers.failed.items()), "invocation": answers.invocation}
    out.folder.write_bytes(answers_file(index), json.dumps(kept).encode())


def kept_answers(index: int, out: Workspace) -> Answers | None:
    """What is known of the questions about a shard; None where they were not asked."""
    try:
        kept = json.loads(out.folder.read_bytes(answers_file(index)))
    except FileNotFoundError:
        return None
    return Answers(dict(kept["known"]), dict(kept["failed"]), kept["invocation"])


def read_answers(index: int, out: Workspace) -> list[Mapping[str, Any]]:
    """The answers about a shard, in the order of its questions.

    Raises:
        FileNotFoundError: there are none yet.
    """
    answers = kept_answers(index, out)
    if answers is None:
        raise FileNotFoundError(f"{out.url_of(answers_file(index))}: nobody has asked yet")
    return list(answers.known.values())
