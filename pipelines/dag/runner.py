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
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.execution import execute, skipped
from pipelines.dag.metrics import board
from pipelines.dag.planner import PlannedStage, outdated_inputs, plan, workflow_digest
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
    cluster: ClusterConfig | None = None,
    tracking: TrackingConfig | None = None,
    name: str = "workflow",
    params: Mapping[str, str] = MappingProxyType({}),
    note: Callable[[Sequence[StageResult]], str] = lambda results: "",
) -> list[StageResult]:
    """Run the workflow and return what became of every stage, in order.

    A failing stage stops its descendants ("blocked"); the others finish. See `planner.plan` for `until`,
    `only` and `force`. In MLflow the run has `name`, `params`, the scores of its stages and, on its page,
    what `note` makes of the results. When nothing has to run, neither Ray nor MLflow is even imported.

    Raises:
        GraphError: the stages do not form a workflow; nothing was started.
        KeyboardInterrupt: after Ray and all processes of the stages have ended.
    """
    planned = plan(stages, root, until=until, only=only, force=force)
    if all(p.action == "skip" for p in planned):
        print("nothing to do: everything is published", flush=True)
        return [skipped(p) for p in planned]
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
        results = _Schedule(planned, root, cluster, tracker).run()
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
        self, planned: Sequence[PlannedStage], root: str, cluster: ClusterConfig, tracker: Tracker
    ) -> None:
        self._root, self._tracker = root, tracker
        self._order = list(planned)
        self._waiting = {p.stage.name: p for p in planned}
        self._scored = {p.stage.name: p.stage.scored for p in planned}
        self._outputs = {p.artifact.kind: p.stage.name for p in planned}
        self._capacity = self._free = cluster.capacity()
        self._occupied: dict[str, tuple[float, float]] = {}
        self._results: dict[str, StageResult] = {}
        self._finished: queue.Queue[StageResult] = queue.Queue()

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
            if any(source not in self._results for source in before):
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
            elif self._occupy(planned.stage):
                self._start(current)

    def _fresh_inputs(self, inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
        """The inputs as published by now (a manifest read while planning may have been replaced)."""
        return {
            kind: self._results[self._outputs[kind]].artifact or artifact
            if kind in self._outputs
            else artifact
            for kind, artifact in inputs.items()
        }

    def _start(self, planned: PlannedStage) -> None:
        del self._waiting[planned.stage.name]
        print(f"{planned.stage.name}: {planned.action} ({planned.reason})", flush=True)
        board.state(planned.stage.name, "running")
        threading.Thread(target=self._execute, args=(planned,), name=planned.stage.name, daemon=True).start()

    def _execute(self, planned: PlannedStage) -> None:
        """Run a stage in a thread of its own; there is a result whatever happens."""
        name = planned.stage.name
        result = StageResult(name=name, action="failed", stats={}, error="its thread ended without a result")
        try:
            result = execute(planned, self._root, self._tracker)
        finally:
            self._finished.put(result)

    def _take_result(self) -> None:
        result = self._finished.get()
        cpus, gpus = self._occupied.pop(result.name)
        self._free = (self._free[0] + cpus, self._free[1] + gpus)
        self._settle(result)

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

    def _occupy(self, stage: Stage) -> bool:
        """Take the stage's resources if they are free; one that wants more than there is gets everything."""
        cpus = min(stage.resources.cpus, self._capacity[0])
        gpus = min(stage.resources.gpus, self._capacity[1])
        if cpus > self._free[0] or gpus > self._free[1]:
            return False
        self._free = (self._free[0] - cpus, self._free[1] - gpus)
        self._occupied[stage.name] = (cpus, gpus)
        return True


def _is_current(planned: PlannedStage) -> bool:
    """Whether the stage's artifact is published and made from the inputs as they are now."""
    if planned.forced or not planned.artifact.published:
        return False
    return not outdated_inputs(planned.artifact, planned.inputs)
