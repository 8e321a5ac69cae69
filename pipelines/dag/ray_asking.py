"""Where a step asks questions, three pools stand before its workers: CPUs that ask, who answers, a collector.

    Asker (CPUs) -> processor (GPUs, such as ray.data.llm's) -> Collector (one) -> the step's workers

The rows of all shards flow through the processor as they come: it goes on with the next shard before the last
row of one is answered. Behind the rows of a lane comes one that it passes over, which says how many they are.
A shard with questions that the processor failed to answer fails: those alone are asked again when it comes
again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import ray
import ray.data

from pipelines.dag.asking import NOTHING, UNASKED, Row, kept_answers, write_answers
from pipelines.dag.failures import described
from pipelines.dag.shards import Shard, WorkerResources

if TYPE_CHECKING:
    from pipelines.dag.ray_shards import Step


def asked(
    dataset: ray.data.Dataset, step: Step, number: int, need: WorkerResources
) -> tuple[ray.data.Dataset, WorkerResources]:
    """Lanes with the answers that a step needs, before its own workers come; what one of those occupies.

    Of a worker's CPUs one is that of who answers, one is that of who does the shard then, and the rest ask.
    """
    asking = step.job.asking
    assert asking is not None
    askers = need.workers * max(1, int(need.cpus) - 2)
    dataset = dataset.flat_map(
        cast(Any, Asker),
        fn_constructor_args=(step, number),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=askers),
        num_cpus=min(1.0, need.cpus),
    )
    dataset = asking.processor(need.workers)(dataset)
    dataset = dataset.flat_map(
        cast(Any, Collector),
        fn_constructor_args=(step, number),
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=0,
    )
    return dataset, WorkerResources(workers=need.workers, cpus=min(1.0, need.cpus))


class Asker:
    """Asks what a step wants to know of the shards of a lane; what was answered before is not asked again."""

    def __init__(self, step: Step, number: int) -> None:
        assert step.job.asking is not None
        self._step, self._number, self._asking = step, number, step.job.asking
        self._asking.setup()

    def __call__(self, row: Mapping[str, Any]) -> Iterator[Row]:
        """The questions of a lane, and a last row with the lane itself."""
        lane, count = json.loads(row["lane"]), 0
        place, asked = lane["place"], []
        empty = {"place": place, "shard": -1, "number": -1, "lane": "", UNASKED: ""}
        shards = [Shard(**shard) for shard in lane["shards"][self._number]] if lane["open"] else []
        for shard in [] if shards and self._step.beyond(place) else shards:
            known = kept_answers(shard.index, self._step.out)
            due = known.due(self._step.invocation) if known else None
            if known and not due:
                continue
            asked.append(shard.index)
            try:
                for number, question in enumerate(self._asking.questions(shard)):
                    if due is None or number in due:
                        yield {**empty, "shard": shard.index, "number": number, **question}
                        count += 1
            except Exception as error:
                lane["outcomes"].append(_failed(self._number, shard.index, described(error), self._node()))
                lane["open"] = False
                break
        yield {**empty, "lane": json.dumps([lane, asked, count]), UNASKED: "the end of a lane"}

    def _node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


def _failed(step: int, index: int, failure: str, node: str) -> dict[str, Any]:
    """An outcome as workers give it; the node is "" where no machine is to blame."""
    where = {"step": step, "node": node, "final": False, "handed_back": False}
    return {"index": index, "record": "{}", "failure": failure, **where}


@dataclass
class _Lane:
    answers: dict[int, dict[int, Mapping[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    failed: dict[int, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    end: tuple[dict[str, Any], list[int], int] | None = None

    @property
    def count(self) -> int:
        """Questions that are through."""
        return sum(map(len, self.answers.values()))


class Collector:
    """Waits until all questions of a lane are through, keeps the answers, and sends the lane on.

    Should it die, the lanes that it had begun are lost, and come again in the next round.
    """

    def __init__(self, step: Step, number: int) -> None:
        assert step.job.asking is not None
        self._step, self._number, self._asking = step, number, step.job.asking
        self._lanes: dict[int, _Lane] = {}
        self._sent: set[int] = set()

    def __call__(self, row: Row) -> list[dict[str, str]]:
        """The lane that is complete with this row, if one is."""
        place = int(row["place"])
        if place in self._sent:  # Ray makes rows again that it has lost
            return []
        known = self._lanes.setdefault(place, _Lane())
        if row["lane"]:
            known.end = json.loads(row["lane"])
        else:
            shard, number = int(row["shard"]), int(row["number"])
            known.answers[shard][number] = self._asking.answer(row)
            if row[UNASKED] and self._asking.heals(row):
                known.failed[shard][number] = str(row[UNASKED])
        if known.end is None or known.count < known.end[2]:
            return []
        lane, asked, _ = known.end
        for index in asked if lane["open"] else ():
            if failure := self._kept(index, known.answers[index], known.failed[index]):
                lane["outcomes"].append(_failed(self._number, index, failure, ""))
        lane["open"] &= not any(outcome["failure"] for outcome in lane["outcomes"])
        self._sent.add(place)
        del self._lanes[place]
        return [{"lane": json.dumps(lane)}]

    def _kept(self, index: int, answers: Mapping[int, Mapping[str, Any]], failed: Mapping[int, str]) -> str:
        """Keep the answers about a shard; why it has to come again, "" if it need not."""
        step, invocation = self._step, self._step.invocation
        before = kept_answers(index, step.out) or NOTHING
        now = before.joined(answers, failed.keys(), invocation)
        write_answers(now, index, step.out)
        if not now.due(invocation):
            return ""
        return f"{len(failed)} questions have no answer yet ({min(failed.values(), default='')})"
