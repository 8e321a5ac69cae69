"""A chain: consecutive stages that work shard by shard, each shard handed on as soon as it is done.

A chain does what can be done early, and nothing else: the shards of its stages, through one pipeline of
pools, with the plans, done records and locks that each stage has by itself. A stage of which all shards are
done is finished and published, in order. The others go back to the runner, which runs them by themselves
from where they are: that is where shards are tried again, given up or named in an error. So nothing of an
artifact tells whether it was made in a chain, and either way goes on with the work of the other.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.dag import cluster, interruption
from pipelines.dag.artifact import MANIFEST, Artifact
from pipelines.dag.coming import Coming
from pipelines.dag.execution import Attempt
from pipelines.dag.failures import described
from pipelines.dag.falls import alive
from pipelines.dag.planner import PlannedStage
from pipelines.dag.pools import allotted
from pipelines.dag.redaction import redacted
from pipelines.dag.shard_stage import ShardStage
from pipelines.dag.shards import Outcome, Shard, ShardWork, WorkerResources
from pipelines.dag.stage import StageResult
from pipelines.dag.tally import Tally
from pipelines.dag.tracking import Tracker
from pipelines.dag.wanted import place_of

if TYPE_CHECKING:
    from pipelines.dag.ray_shards import Lane, Step

LOOK_SECONDS = 1.0
LOOKING = 20
"""Looking at the records takes at most the so many-th part of the time."""

Given = tuple[PlannedStage, StageResult | None]
"""A stage with its result, or to run by itself."""


def may_follow(planned: PlannedStage, before: Sequence[PlannedStage]) -> bool:
    """Whether a stage can work in a chain, behind others of it if there are some."""
    stage = planned.stage
    if not isinstance(stage, ShardStage) or planned.forced or planned.artifact.folder.exists(MANIFEST):
        return False
    made = {other.artifact.kind for other in before}
    followed = {stage.instead.get(kind, kind) for kind in planned.inputs if kind in made}
    return bool(followed or not before) and followed <= set(stage.by_shard)


@dataclass(frozen=True)
class Link:
    """A stage of a chain whose shards are planned."""

    planned: PlannedStage
    stage: ShardStage
    attempt: Attempt
    work: ShardWork
    tally: Tally


class Chain:
    """Several stages at work.

    Args:
        stages: in order; what they do not read from each other is published.
        root: the artifact store.
        tracker: gets their runs.
        give: gets each stage's result as soon as there is one, and each stage that is left to the runner.
    """

    def __init__(
        self, stages: Sequence[PlannedStage], root: str, tracker: Tracker, give: Callable[[Given], None]
    ) -> None:
        self._stages, self._root, self._tracker = list(stages), root, tracker
        self._given = give
        self._links: list[Link] = []
        self._outcomes: queue.Queue[tuple[int, Outcome] | None] = queue.Queue()
        self._ended = threading.Event()
        self._broken = False
        self._published: list[Link] = []
        self._last: Given | None = None

    def run(self) -> None:
        """Do what can be done; every stage has been given when this returns."""
        try:
            self._plan(self._opened())
            self._finish()
            if self._worth_it() and self._fitting():
                self._work()
        except Exception as error:
            _tell(error)
        finally:
            for link in self._published:  # a worker that Ray began again found there what was done
                link.attempt.clean()
                link.tally.discard()  # what was begun before its stage was published
                link.attempt.close()
            if self._last:
                self._give(*self._last)
            for link in self._links:
                link.attempt.leave()
            for planned in list(self._stages):
                self._give(planned, None)

    def _give(self, planned: PlannedStage, result: StageResult | None) -> None:
        self._stages.remove(planned)
        self._given((planned, result))

    def _opened(self) -> dict[str, Attempt]:
        """The stages whose artifacts are locked now, by name; the order of locks is everybody's."""
        attempts = {}
        for planned in sorted(self._stages, key=lambda p: (p.artifact.kind, p.artifact.fingerprint)):
            attempt = Attempt(planned, self._root, self._tracker)
            try:
                attempts[planned.stage.name] = attempt.__enter__()
            except Exception:
                continue  # by itself the stage meets the same, and says it
        return attempts

    def _plan(self, attempts: dict[str, Attempt]) -> None:
        """Plan shards, as far as stages can plan before their input is there."""
        coming: dict[str, Artifact] = {}
        for planned in list(self._stages):
            attempt = attempts.get(planned.stage.name)
            if attempt is None:
                break
            stage = attempt.stage
            if attempt.skipped:
                self._give(planned, attempts.pop(stage.name).skipped)
                continue
            assert isinstance(stage, ShardStage)
            inputs = {kind: coming.get(kind, artifact) for kind, artifact in planned.inputs.items()}
            try:
                work = stage.work(stage.as_read(inputs), attempt.out)
                tally = Tally(work, attempt.out)
            except Exception:
                break  # likewise
            names = [name for shard in work.shards for name in work.job.files_of(shard)]
            coming[stage.output] = Coming(planned.artifact, [*attempt.out.digests, *names], work.facts)
            self._links.append(Link(planned, stage, attempts.pop(stage.name), work, tally))
        self._cut()
        for attempt in attempts.values():
            attempt.leave()
        for planned in [p for p in self._stages if all(p is not link.planned for link in self._links)]:
            self._give(planned, None)

    def _cut(self) -> None:
        """Leave out of each stage what follows shards that those it reads from leave out."""
        ends = {link.stage.output: link.tally.end for link in self._links}
        for link in self._links:
            for kind in link.planned.inputs:
                link.tally.cut(ends.get(kind))
            ends[link.stage.output] = link.tally.end

    def _ends(self, link: Link) -> list[str]:
        """Workspaces of the stages that decide where a stage ends, its own among them."""
        made = {other.stage.output: other for other in self._links}
        before = [url for kind in link.planned.inputs if kind in made for url in self._ends(made[kind])]
        return [*dict.fromkeys(before), *([link.attempt.out.url] if link.work.wanted else [])]

    def _worth_it(self) -> bool:
        """Whether there is something to hand on, and more than a process of its own would do."""
        busy = [link for link in self._links if not link.tally.complete]
        shards = sum(len(link.tally.missing) for link in busy)
        return len(busy) > 1 and (shards > len(busy) or cluster.at_hand())

    def _fitting(self) -> bool:
        """Leave to the runner what cannot work beside the rest; whether a chain remains."""
        cluster.ensure()
        busy = [link for link in self._links if not link.tally.complete]
        machines = alive(WorkerResources(cpus=0)).values()
        pools = allotted([link.work.workers for link in busy], machines, shared=cluster.is_local())
        if len(pools) < len(busy):
            first = self._links.index(busy[len(pools)])
            name = busy[len(pools)].stage.name
            print(
                f"  {name}: no room for a worker beside those of the stages before it; it waits", flush=True
            )
            for link in self._links[first:]:
                link.attempt.leave()
                self._give(link.planned, None)
            del self._links[first:]
        self._pools = dict(zip((link.stage.name for link in busy), pools, strict=False))
        return len(pools) > 1

    def _work(self) -> None:
        """Send the shards through, and finish stages meanwhile."""
        from pipelines.dag.ray_shards import Step

        busy = [link for link in self._links if not link.tally.complete]
        steps = [
            Step.of(link.work.job, link.attempt.out, self._pools[link.stage.name], self._ends(link))
            for link in busy
        ]
        sent = lanes([link.tally.missing for link in busy])
        thread = threading.Thread(target=self._send, args=(steps, sent), name="chain", daemon=True)
        thread.start()
        look = time.monotonic() + LOOK_SECONDS
        try:
            while self._finish():
                try:
                    found = self._outcomes.get(timeout=max(0.0, look - time.monotonic()))
                except queue.Empty:
                    look = self._look(busy, steps)
                    continue
                if found is None:
                    break
                number, outcome = found
                self._take(busy[number], outcome)
        finally:
            self._ended.set()
            thread.join()
        self._look(busy, steps)
        self._finish()
        for step in steps:
            step.forget()

    def _take(self, link: Link, outcome: Outcome) -> None:
        end = link.tally.end
        link.tally.take(*outcome)
        if link.tally.end != end:
            self._cut()

    def _send(self, steps: Sequence[Step], sent: Sequence[Lane]) -> None:
        from pipelines.dag.ray_shards import through

        try:
            for found in through(steps, sent):
                if found:
                    self._outcomes.put(found)
                if self._ended.is_set():
                    return
        except Exception as error:
            _tell(error)
        finally:
            self._outcomes.put(None)

    def _look(self, busy: Sequence[Link], steps: Sequence[Step]) -> float:
        """See which shards are done that are still on their way through later steps; when to look again."""
        begun = time.monotonic()
        for link, step in zip(busy[:-1], steps, strict=False):
            if not link.tally.complete:
                link.tally.look(step.announced)
        self._cut()
        now = time.monotonic()
        return now + max(LOOK_SECONDS, LOOKING * (now - begun))

    def _finish(self) -> bool:
        """Publish the first stages of which all shards are done; whether the chain goes on."""
        while self._links and self._links[0].tally.complete and not self._broken:
            link = self._links.pop(0)
            result = self._result(link)
            self._broken = result.artifact is None
            for other in self._links:
                other.attempt.record_origin()
            if self._links:
                self._give(link.planned, result)
            else:  # the runner may end with it: not before what is left here is cleaned away
                self._last = (link.planned, result)
        return bool(self._links) and not self._broken

    def _result(self, link: Link) -> StageResult:
        stage, attempt = link.stage, link.attempt
        try:
            inputs = stage.as_read(link.planned.inputs)
            stats = stage.finish(inputs, attempt.out, link.tally.work, link.tally.stats())
            result = attempt.published(stats)
            self._published.append(link)  # its lock is kept: workers still read its notes
            return result
        except BaseException as error:
            attempt.close()
            return attempt.failed(error)


def _tell(error: Exception) -> None:
    """Say why a chain ended early, unless the whole program does."""
    if not interruption.interrupted():
        note = redacted(described(error)).partition("\n")[0]
        print(f"  the chain ended early ({note}); what is left is done stage by stage", flush=True)


def lanes(missing: Sequence[Sequence[Shard]]) -> list[list[list[Shard]]]:
    """Shards that follow each other: for each shard of the input, what each stage makes of it, in order."""
    found: dict[int, list[list[Shard]]] = {}
    for number, shards in enumerate(missing):
        for shard in shards:
            found.setdefault(place_of(shard), [[] for _ in missing])[number].append(shard)
    return [found[place] for place in sorted(found)]
