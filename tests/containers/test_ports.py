"""Every listening port of every container, asked by host and neighbour, before a training and during one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from tests.containers import ports
from tests.containers.conftest import IMAGE, Cluster, NewCluster, run, succeeded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
PROBE = Path(__file__).with_name("probe.py")
NETWORKS = ("cluster", "records")


@pytest.fixture(scope="module")
def cluster(new_cluster: NewCluster) -> Cluster:
    made = new_cluster()
    made.up()
    return made


def ask(cluster: Cluster, network: str | None) -> list[tuple[str, int, str, str]]:
    """The answers to the host, or to a neighbour in one of the cluster's networks."""
    asked = ports.targets(cluster.containers(), network)
    assert asked
    command = [sys.executable, str(PROBE)]
    if network:
        command = [
            "docker", "run", "--rm", "-i", "--read-only", "--entrypoint", "python",
            "--network", f"{cluster.project}_{network}", "-v", f"{PROBE}:/probe.py:ro", IMAGE, "/probe.py",
        ]  # fmt: skip
    return json.loads(succeeded(run(command, input=json.dumps(asked))))


def check(answers: list[tuple[str, int, str, str]]) -> None:
    assert ports.open_to_strangers(answers) == []
    results = {result for *_, result in answers}
    assert {"401", "403"} & results, "no server has refused anybody: was anything asked?"


@pytest.mark.parametrize("network", [None, *NETWORKS])
def test_nobody_is_let_in_before_a_training(cluster, network):
    answers = ask(cluster, network)
    check([*answers, ("", 0, "", "401")] if network == "records" else answers)
    asked = {(service, port) for service, port, *_ in answers}
    known = {("postgres", 5432), ("mlflow", 5000)}
    if network != "records":
        known = {("head", 8265), ("head", 6379), ("worker", 6380), ("worker", 8080), ("mlflow", 5000)}
    assert known <= asked


def test_nobody_is_let_in_during_a_training(cluster):
    """A training that would last for hours, so that it still runs when the last port has answered."""
    job = subprocess.Popen(
        ["docker", "compose", "exec", "-T", "head", "ray", "job", "submit", "--submission-id", "ports", "--",
         "python", "pipelines/run_all.py", "experiment=smoke", "train.tokenizer.steps=1000000",
         "until=train_tokenizer"],
        cwd=cluster.clone, env=cluster.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert job.stdout is not None
        log = ""
        for line in job.stdout:
            log += line
            if "train_tokenizer:" in line and "steps (" in line:
                break
        assert job.poll() is None, log[-3000:]
        drained = threading.Thread(target=job.stdout.read)
        drained.start()
        idle = {("worker", port) for port in (6380, 6381, 6382, 6383, 8080, 52365)}
        training = ports.targets(cluster.containers())
        assert {(service, port) for service, _, port in training if service == "worker"} > idle
        for network in (None, "cluster"):
            check(ask(cluster, network))
        assert job.poll() is None, "the training ended before the last question"
        succeeded(cluster.compose("exec", "-T", "head", "ray", "job", "stop", "ports"))
        job.wait(timeout=120)
        drained.join()
    finally:
        if job.poll() is None:
            job.kill()


def test_what_is_published_is_on_loopback_alone(cluster):
    """By the engine's own listeners: no other address of this host has the port."""
    for port in (cluster.ports["DASHBOARD"], cluster.ports["MLFLOW"]):
        listeners = run(["ss", "-Hltn", f"sport = :{port}"]).stdout.split("\n")
        addresses = {line.split()[3].rpartition(":")[0] for line in listeners if line}
        assert addresses == {"127.0.0.1"}


def test_the_probe_sees_an_open_server_and_the_allow_list_has_no_idle_entry(cluster):
    server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    target = json.dumps([["head", "127.0.0.1", server.server_address[1]]])
    answers = json.loads(succeeded(run([sys.executable, str(PROBE)], input=target)))
    server.shutdown()
    assert ("GET / none", "200") in {
        (request, result) for *_, request, result in ports.open_to_strangers(map(tuple, answers))
    }
    time.sleep(1)
    found = {
        ports.reason(service, port, request, result)
        for service, port, request, result in ask(cluster, None)
        if result not in ports.REFUSED | ports.UNKNOWN
    }
    default = {why for services, *_, why in ports.ALLOWED if not re.search("grafana|s3", services)}
    assert found >= default
