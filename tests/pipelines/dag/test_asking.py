"""What an engine fails to answer is asked again, that alone, and in the end it is an answer of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from pipelines.dag.asking import UNASKED, Asking, read_answers
from pipelines.dag.ray_asking import Asker, Collector
from pipelines.dag.ray_shards import Step
from pipelines.dag.shards import Shard, ShardJob, WorkerResources
from pipelines.dag.workspace import Workspace

WORDS = ["a", "bb", "ccc", "unreadable"]
SHARD = Shard(3, "words-00003", 4, {})


@dataclass(frozen=True)
class Spell(Asking):
    def questions(self, shard: Shard) -> Iterator[dict[str, Any]]:
        for word in WORDS:
            yield {"word": word, UNASKED: "unreadable" if word == "unreadable" else ""}

    def processor(self, workers: int) -> Callable[[Any], Any]:
        raise NotImplementedError

    def answer(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"said": row.get("said", ""), "failure": row[UNASKED]}

    def heals(self, row: dict[str, Any]) -> bool:
        return bool(row[UNASKED]) and row[UNASKED] != "unreadable"


@dataclass(frozen=True)
class SpellJob(ShardJob):
    @property
    def asking(self) -> Spell:
        return Spell()

    def __call__(self, shard: Shard, out: Workspace) -> dict[str, float]:
        raise NotImplementedError


class Engine:
    """Spells words; is away while it is asked for one of `failing`."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.asked: list[str] = []

    def once(self, step: Step) -> dict[str, Any]:
        """The lane of the shard, after its questions have gone through."""
        lane = {"place": 3, "shards": [[asdict(SHARD)]], "outcomes": [], "open": True}
        collector, through = Collector(step, 0), []
        for row in reversed(list(Asker(step, 0)({"lane": json.dumps(lane)}))):
            if not row[UNASKED]:
                self.asked.insert(0, row["word"])
                failed = row["word"] in self.failing
                row |= {UNASKED: "EngineDeadError: gone"} if failed else {"said": row["word"].upper()}
            through += collector(row)
        (sent,) = through
        return dict(json.loads(sent["lane"]))


@pytest.fixture
def out(tmp_path: Any) -> Workspace:
    return Workspace(str(tmp_path / "said"))


def step(out: Workspace) -> Step:
    return Step.of(SpellJob(), out, WorkerResources())


def said(out: Workspace) -> list[str]:
    return [answer["said"] or answer["failure"] for answer in read_answers(SHARD.index, out)]


def test_what_the_engine_failed_to_answer_is_asked_again_alone(out: Workspace) -> None:
    engine, one = Engine(), step(out)
    engine.failing = {"bb"}
    lane = engine.once(one)
    assert not lane["open"] and engine.asked == ["a", "bb", "ccc"]
    (outcome,) = lane["outcomes"]
    assert outcome["index"] == 3 and not outcome["final"] and not outcome["handed_back"]
    assert outcome["failure"] == "1 questions have no answer yet (EngineDeadError: gone)"
    engine.failing, engine.asked = set(), []
    lane = engine.once(one)
    assert lane["open"] and not lane["outcomes"] and engine.asked == ["bb"]
    assert said(out) == ["A", "BB", "CCC", "unreadable"]
    engine.asked = []
    assert engine.once(one)["open"] and engine.asked == []


def test_in_an_invocation_the_second_failure_is_the_answer_and_in_the_next_one_it_is_asked_anew(
    out: Workspace,
) -> None:
    engine, one = Engine(), step(out)
    engine.failing = {"ccc"}
    assert [engine.once(one)["open"] for _ in range(3)] == [False, True, True]
    assert engine.asked == ["ccc", "a", "bb", "ccc"]
    assert said(out) == ["A", "BB", "EngineDeadError: gone", "unreadable"]
    engine.failing, engine.asked = set(), []
    assert engine.once(step(out))["open"] and engine.asked == ["ccc"], "its shard is not done yet"
    assert said(out) == ["A", "BB", "CCC", "unreadable"]
