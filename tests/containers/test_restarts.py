"""What ends everything, and what comes back: Ctrl-C, `down`, a restart of every container."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.containers.conftest import Cluster, NewCluster, run, succeeded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
WORKLOAD = "experiment=smoke"


@pytest.fixture(scope="module")
def cluster(new_cluster: NewCluster) -> Cluster:
    """A cluster in which the smallest workflow is done."""
    made = new_cluster()
    made.up()
    succeeded(made.submit(WORKLOAD))
    return made


def test_every_container_restarted_goes_on_with_the_same_tokens_and_artifacts(cluster):
    """As after a reboot: the engine starts what was running, in any order."""
    before = cluster.values(), cluster.digests()
    names = [c["Id"] for name, c in cluster.containers().items() if not name.startswith("init")]
    succeeded(cluster.compose("stop"))
    assert cluster.killed() == []
    succeeded(run(["docker", "start", *names]))
    cluster.up()
    assert ": run (" not in succeeded(cluster.submit(WORKLOAD))
    assert (cluster.values(), cluster.digests()) == before


def test_ctrl_c_ends_what_runs_in_the_foreground_within_the_grace_period(cluster):
    succeeded(cluster.compose("down"))
    foreground = subprocess.Popen(
        ["docker", "compose", "up", "--no-build"], cwd=cluster.clone, env=cluster.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while "(healthy)" not in cluster.compose("ps", "worker").stdout and time.monotonic() < deadline:
            time.sleep(2)
        begun = time.monotonic()
        os.killpg(foreground.pid, signal.SIGINT)
        foreground.wait(timeout=300)
        took = time.monotonic() - begun
    finally:
        if foreground.poll() is None:
            foreground.kill()
    print(f"Ctrl-C: {took:.1f} s")
    assert {c["State"]["Running"] for c in cluster.containers().values()} == {False}
    assert cluster.killed() == []
    cluster.up()
    assert ": run (" not in succeeded(cluster.submit(WORKLOAD))
