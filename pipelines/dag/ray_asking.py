"""Where a step asks questions, three pools stand before its workers: CPUs that ask, who answers, a collector.

    Asker (CPUs) -> processor (GPUs, such as ray.data.llm's) -> Collector (one) -> the step's workers

The rows of all shards flow through the processor as they come: it goes on with the next shard before the last
row of one is answered. Behind the rows of a lane comes one that it passes over, which says how many they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import ray
import ray.data

from pipelines.dag.asking import UNASKED, Row, answers_file, write_answers
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
        fn_constructor_args=(step,),
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
            if self._step.out.exists(answers_file(shard.index)):
                continue
            asked.append(shard.index)
            try:
                for question in self._asking.questions(shard):
                    yield {**empty, "shard": shard.index, "number": count, **question}
                    count += 1
            except Exception as error:
                lane["outcomes"].append(self._failed(shard, described(error)))
                lane["open"] = False
                break
        yield {**empty, "lane": json.dumps([lane, asked, count]), UNASKED: "the end of a lane"}

    def _failed(self, shard: Shard, failure: str) -> dict[str, Any]:
        """An outcome as workers give it."""
        node = ray.get_runtime_context().get_node_id()
        where = {"step": self._number, "node": node, "final": False, "handed_back": False}
        return {"index": shard.index, "record": "{}", "failure": failure, **where}


@dataclass
class _Lane:
    answers: dict[tuple[int, int], Mapping[str, Any]] = field(default_factory=dict)
    end: tuple[dict[str, Any], list[int], int] | None = None


class Collector:
    """Waits until all questions of a lane are answered, keeps the answers, and sends the lane on.

    Should it die, the lanes that it had begun are lost, and come again in the next round.
    """

    def __init__(self, step: Step) -> None:
        assert step.job.asking is not None
        self._out, self._asking = step.out, step.job.asking
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
            known.answers[int(row["shard"]), int(row["number"])] = self._asking.answer(row)
        if known.end is None or len(known.answers) < known.end[2]:
            return []
        lane, asked, _ = known.end
        for index in asked if lane["open"] else ():
            own = [answer for key, answer in sorted(known.answers.items()) if key[0] == index]
            write_answers(own, index, self._out)
        self._sent.add(place)
        del self._lanes[place]
        return [{"lane": json.dumps(lane)}]
