"""What this machine does while stages run, as MLflow's own system metrics of their runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.dag.stage_log import StageLog

INTERVAL_SECONDS = 10.0
PREFIX = "system/"
"""Under which MLflow's pages look for them."""


class MachineRecord:
    """A thread that tells the runs of the stages in work how busy this machine is.

    Told are processor, memory, disk, network and GPUs. The machine is the one that `run_all.py` runs on; of
    the others of a cluster Ray's dashboard tells.
    """

    def __init__(self, logs: Callable[[], Sequence[StageLog]]) -> None:
        """Begin; `logs` gives those of the stages that are in work at the time."""
        self._logs = logs
        self._ended = threading.Event()
        threading.Thread(target=self._work, name="machine", daemon=True).start()

    def end(self) -> None:
        """Record nothing from now on."""
        self._ended.set()

    def _work(self) -> None:
        monitors: list[Any] = []
        steps: dict[StageLog, int] = {}
        while not self._ended.wait(INTERVAL_SECONDS):
            monitors = monitors or _monitors()
            values: dict[str, float] = {}
            for monitor in monitors:
                with suppress(Exception):  # a figure less, and nothing else
                    monitor.collect_metrics()
                    values |= monitor.aggregate_metrics()
                    monitor.clear_metrics()
            now = int(time.time() * 1000)
            for log in self._logs():
                steps[log] = steps.get(log, -1) + 1
                log.write([(PREFIX + name, float(value), now, steps[log]) for name, value in values.items()])


def _monitors() -> list[Any]:
    """MLflow's, of what this machine has."""
    import psutil
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    psutil.cpu_percent()  # the first answer is 0, whatever the machine does
    found = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(Exception):  # there is no GPU, or no driver that tells of it
        found.append(GPUMonitor())
    return found
