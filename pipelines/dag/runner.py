"""Runs a workflow: each unpublished stage as soon as its inputs are published and resources allow."""

from __future__ import annotations

import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from types import MappingProxyType

import psutil

from pipelines.dag import cluster as ray_cluster
from pipelines.dag import interruption, processes
from pipelines.dag.artifact import Artifact
from pipelines.dag.chain import Chain, Given, may_follow
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.execution import execute, skipped
from pipelines.dag.metrics import board
from pipelines.dag.planner import PlannedStage, outdated_inputs, plan, workflow_digest
from pipelines.dag.presence import working
from pipelines.dag.progress import duration
from pipelines.dag.revision import git_commit
from pipelines.dag.stage import Stage, StageResult
from pipelines.dag.tracking import Tracker, TrackingConfig

SAVE_SECONDS = 20.0  # clusters allow 30 s between SIGTERM and SIGKILL
STOP_SECONDS = 10.0
ENDS = {"run": "done", "resume": "done", "skip": "skipped"}


def run(
    stages: Sequence[Stage],
    *,
    root: str,
    until: str | None = None,
    only: str | None = None,
    force: str | None = None,
    chain: bool = True,
    cluster: ClusterConfig | None = None,
    tracking: TrackingConfig | None = None,
    name: str = "workflow",
    params: Mapping[str, str] = MappingProxyType({}),
    note: Callable[[Sequence[StageResult]], str] = lambda results: "",
) -> list[StageResult]:
    """Run the workflow and return what became of every stage, in order.

    A failing stage stops its descendants ("blocked"); the others finish. See `planner.plan` for `until`,
    `only` and `force`. With `chain`, stages that work shard by shard hand each shard on as it is done. In
    MLflow the run has `name`, `params`, the scores of its stages and, on its page, what `note` makes of the
    results. When nothing has to run, neither Ray nor MLflow is even imported.

    Raises:
        GraphError: the stages do not form a workflow; nothing was started.
        KeyboardInterrupt: after Ray and all processes of the stages have ended.
    """
    planned = plan(stages, root, until=until, only=only, force=force)
    if all(p.action == "skip" for p in planned):
        print("nothing to do: everything is published", flush=True)
        return [skipped(p) for p in planned]
    with working(root):
        planned = plan(stages, root, until=until, only=only, force=force)  # it may have waited for a deletion
        board.begin(p.stage.name for p in planned)
        load([p.stage for p in planned])
        cluster = cluster or ClusterConfig()
        ray_cluster.configure(cluster)
        tracker = Tracker(
            tracking or TrackingConfig(),
            root,
            {"git_commit": git_commit()},
            configuration=workflow_digest(stages),
            name=name,
            params=params,
        )
        interruption.reset()
        others = set(processes.children())
        try:
            results = _Schedule(planned, root, cluster, tracker, chain).run()
        except KeyboardInterrupt:
            _stop(tracker, others)
            raise
        tracker.note(note(results))
        tracker.close("FAILED" if any(result.error for result in results) else "FINISHED")
        ray_cluster.shutdown()
    return results


def load(stages: Sequence[Stage]) -> None:
    """Import what the stages import when they run, all in this thread."""
    for stage in stages:
        for module in stage.modules:
            import_module(module)


def _stop(tracker: Tracker, others: set[psutil.Process]) -> None:
    """Let trainings save, then end Ray and every process started since; a second Ctrl-C disturbs nothing."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    interruption.interrupt(SAVE_SECONDS)
    ours = [process for process in processes.children() if process not in others]
    tracker.close("KILLED", seconds=STOP_SECONDS)
    shutdown = threading.Thread(target=ray_cluster.shutdown, daemon=True)
    shutdown.start()
    shutdown.join(STOP_SECONDS)
    processes.end(ours)


class _Schedule:
    """The state of one invocation: what waits, what runs and what is left of the resources."""

    def __init__(
        self,
        planned: Sequence[PlannedStage],
        root: str,
        cluster: ClusterConfig,
        tracker: Tracker,
        chain: bool,
    ) -> None:
        self._root, self._tracker = root, tracker
        self._alone = set() if chain else {p.stage.name for p in planned}  # of these, no chain is made
        self._order = list(planned)
        self._waiting = {p.stage.name: p for p in planned}
        self._scored = {p.stage.name: p.stage.scored for p in planned}
        self._outputs = {p.artifact.kind: p.stage.name for p in planned}
        self._capacity = self._free = cluster.capacity()
        self._occupied: dict[str, tuple[float, float]] = {}
        self._results: dict[str, StageResult] = {}
        self._finished: queue.Queue[Given] = queue.Queue()

    def run(self) -> list[StageResult]:
        while self._waiting or self._occupied:
            self._advance()
            if self._occupied:
                self._take_result()
        return [self._results[p.stage.name] for p in self._order]

    def _advance(self) -> None:
        """Settle or start every waiting stage that can be; what was skipped or blocked may free others."""
        for name, planned in list(self._waiting.items()):
            before = [self._outputs[kind] for kind in planned.stage.inputs if kind in self._outputs]
            if name not in self._waiting or any(source not in self._results for source in before):
                continue
            bad = [source for source in before if self._results[source].artifact is None]
            if bad:
                what = "failed" if self._results[bad[0]].action == "failed" else "did not run"
                error = f"not run, because {bad[0]} {what}"
                self._settle(StageResult(name=name, action="blocked", stats={}, error=error))
                continue
            current = replace(planned, inputs=self._fresh_inputs(planned.inputs))
            if _is_current(current):
                self._settle(skipped(current))
            elif chain := self._occupied_by(self._chain(current)):
                self._start(chain)

    def _chain(self, first: PlannedStage) -> list[PlannedStage]:
        """A stage that can start, and those that can go on with its shards meanwhile."""
        chain = [first]
        if first.stage.name in self._alone or not may_follow(first, ()):
            return chain
        for name, planned in self._waiting.items():
            made = {other.artifact.kind for other in chain}
            rest = [self._outputs.get(kind) for kind in planned.inputs if kind not in made]
            there = all(s is None or (s in self._results and self._results[s].artifact) for s in rest)
            if name not in self._alone and there and may_follow(planned, chain):
                chain.append(replace(planned, inputs=self._fresh_inputs(planned.inputs)))
        return chain

    def _fresh_inputs(self, inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
        """The inputs as published by now (a manifest read while planning may have been replaced)."""
        return {
            kind: self._results[source].artifact or artifact
            if (source := self._outputs.get(kind)) in self._results
            else artifact
            for kind, artifact in inputs.items()
        }

    def _start(self, chain: Sequence[PlannedStage]) -> None:
        for planned in chain:
            del self._waiting[planned.stage.name]
            print(f"{planned.stage.name}: {planned.action} ({planned.reason})", flush=True)
            board.state(planned.stage.name, "running")
        names = [planned.stage.name for planned in chain]
        if len(chain) > 1:
            print(f"shard by shard: {' -> '.join(names)}", flush=True)
        work = self._execute if len(chain) == 1 else self._execute_chain
        threading.Thread(target=work, args=(chain,), name=" ".join(names), daemon=True).start()

    def _execute(self, chain: Sequence[PlannedStage]) -> None:
        """Run a stage in a thread of its own; there is a result whatever happens."""
        (planned,) = chain
        name = planned.stage.name
        result = StageResult(name=name, action="failed", stats={}, error="its thread ended without a result")
        try:
            result = execute(planned, self._root, self._tracker)
        finally:
            self._finished.put((planned, result))

    def _execute_chain(self, chain: Sequence[PlannedStage]) -> None:
        """Run several stages at a time; each has a result in the end, or comes back."""
        Chain(chain, self._root, self._tracker, self._finished.put).run()

    def _take_result(self) -> None:
        planned, result = self._finished.get()
        name = planned.stage.name
        cpus, gpus = self._occupied.pop(name)
        self._free = (self._free[0] + cpus, self._free[1] + gpus)
        if result:
            self._settle(result)
        else:  # a chain gives it back, to run by itself
            self._alone.add(name)
            self._waiting[name] = replace(planned, reason="what its chain has left")
            board.state(name, "waiting")

    def _settle(self, result: StageResult) -> None:
        self._waiting.pop(result.name, None)
        self._results[result.name] = result
        board.state(result.name, ENDS.get(result.action, result.action))
        if result.error:
            print(f"error: {result.name} {result.action}: {result.error}", file=sys.stderr, flush=True)
        elif result.action == "skip":
            print(f"{result.name}: skip (published)", flush=True)
        else:
            print(f"{result.name}: done in {duration(result.seconds)}", flush=True)
        fingerprint = result.artifact.fingerprint if result.artifact else ""
        scored = result.stats if self._scored[result.name] else {}
        scores = {f"{result.name}/{metric}": value for metric, value in scored.items()}
        self._tracker.link(result.name, result.action, fingerprint, scores)

    def _occupied_by(self, chain: Sequence[PlannedStage]) -> Sequence[PlannedStage]:
        """The leading stages for which all that they need is free and now taken.

        Of those that want more than there is, the last ones get less.
        """
        left, taken = self._capacity, {}
        for planned in chain:
            wanted = planned.stage.resources
            cpus, gpus = min(wanted.cpus, left[0]), min(wanted.gpus, left[1])
            if cpus > self._free[0] or gpus > self._free[1]:
                break
            left = (left[0] - cpus, left[1] - gpus)
            self._free = (self._free[0] - cpus, self._free[1] - gpus)
            taken[planned.stage.name] = cpus, gpus
        self._occupied |= taken
        return chain[: len(taken)]


def _is_current(planned: PlannedStage) -> bool:
    """Whether the stage's artifact is published and made from the inputs as they are now."""
    if planned.forced or not planned.artifact.published:
        return False
    return not outdated_inputs(planned.artifact, planned.inputs)
