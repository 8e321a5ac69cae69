"""The machines of a cluster from outside: which are there, what they do, and what befalls them."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from collections.abc import Callable

from tests.containers.conftest import Cluster, run, succeeded

CUT_SECONDS, BACK_SECONDS = 90, 300
NOTICE_SECONDS = 60
"""The head finds a lost node by five heartbeats of 10 s; a busy machine needs longer."""


def nodes(cluster: Cluster) -> list[dict]:
    """What the dashboard knows of the nodes; nothing while it does not answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{cluster.ports['DASHBOARD']}/nodes?view=summary",
        headers={"Authorization": f"Bearer {cluster.values()['ray-token']}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["data"]["summary"]
    except OSError:
        return []


def alive(cluster: Cluster) -> set[str]:
    return {node["raylet"]["nodeId"] for node in nodes(cluster) if node["raylet"]["state"] == "ALIVE"}


def wait_for(condition: Callable[[], bool], seconds: float) -> float:
    """Wait until `condition`; the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(1)
    return time.monotonic() - begun


def restarts(cluster: Cluster, name: str) -> int:
    return cluster.containers()[name]["RestartCount"]


def kill(cluster: Cluster, name: str) -> None:
    """End a container's first process from outside; the restart policy has to bring it back."""
    before = restarts(cluster, name)
    os.kill(cluster.containers()[name]["State"]["Pid"], 9)
    wait_for(lambda: restarts(cluster, name) > before, 60)


def cut_link(cluster: Cluster, worker: str) -> None:
    """Take a worker out of the network until the head has missed it, and put it back."""
    network, name = f"{cluster.project}_cluster", f"{cluster.project}-{worker}"
    succeeded(run(["docker", "network", "disconnect", network, name]))
    time.sleep(CUT_SECONDS)
    try:
        noticed = wait_for(lambda: len(alive(cluster)) == 2, NOTICE_SECONDS)
    finally:
        succeeded(run(["docker", "network", "connect", "--alias", "worker", network, name]))
    took = wait_for(lambda: len(alive(cluster)) == 3, BACK_SECONDS)
    print(f"{worker} cut off for {CUT_SECONDS + noticed:.0f} s, back {took:.0f} s after")


def works(cluster: Cluster, name: str) -> bool:
    """Whether a process of a job runs in a container."""
    index = int(name.rpartition("-")[2])
    shown = cluster.shell(
        "worker", "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2> /dev/null; true", index
    )
    return bool(re.search(r"ray::(?!IDLE|Dashboard|RuntimeEnvAgent)\S*", shown))
