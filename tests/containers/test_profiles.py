"""The profiles on their servers: monitoring that scrapes every node, and S3 that the workflow writes to."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from base64 import b64encode

import pytest

from tests.containers import ports
from tests.containers.conftest import Cluster, NewCluster, run, succeeded
from tests.containers.test_ports import ask, check
from tests.docker import policy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def bases(cluster: Cluster, profile: str) -> None:
    """The profile's images: from a registry, or stand-ins."""
    done = run(["docker/bases/make.sh", "make", profile], cwd=cluster.clone, env=cluster.environment)
    if done.returncode and "registry" not in done.stderr:
        pytest.skip(f"NOT RUN: {done.stderr.strip()}")


def get(cluster: Cluster, service: str, path: str, password: str = "") -> tuple[int, bytes]:
    login = (
        {"Authorization": "Basic " + b64encode(f"reptok:{password}".encode()).decode()} if password else {}
    )
    url = f"http://127.0.0.1:{cluster.ports[service]}{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=login), timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def test_monitoring_scrapes_every_node_and_asks_for_its_login(new_cluster: NewCluster):
    cluster = new_cluster(COMPOSE_PROFILES="monitoring", REPTOK_WORKERS="2")
    bases(cluster, "monitoring")
    without = []  # Compose pulls what a profile names, even at `--scale grafana=0`
    (grafana,) = [i for i in succeeded(cluster.compose("config", "--images")).split() if "grafana" in i]
    if run(["docker", "image", "inspect", grafana]).returncode:
        without = ["head", "worker", "mlflow", "prometheus", "alertmanager"]
    cluster.up(*without)
    password = cluster.values()["prometheus-password"]
    for name, container in cluster.containers().items():
        assert policy.broken(policy.from_inspect(name.rpartition("-")[0], container)) == {}, name
    for service in ("PROMETHEUS", "ALERTMANAGER"):
        assert get(cluster, service, "/api/v1/status/buildinfo")[0] == 401
        assert get(cluster, service, "/", "wrong")[0] == 401
    status, body = get(cluster, "ALERTMANAGER", "/api/v2/status", cluster.values()["alertmanager-password"])
    assert status == 200 and json.loads(body)["cluster"]["status"] == "disabled"

    import time

    deadline, up = time.monotonic() + 120, []
    while len(up) < 3 and time.monotonic() < deadline:
        time.sleep(3)
        status, body = get(cluster, "PROMETHEUS", "/api/v1/query?query=up", password)
        up = [s for s in json.loads(body)["data"]["result"] if s["value"][1] == "1"]
    assert len(up) == 3, "head and both workers"
    status, body = get(cluster, "PROMETHEUS", "/api/v1/alertmanagers", password)
    assert len(json.loads(body)["data"]["activeAlertmanagers"]) == 1
    status, body = get(cluster, "PROMETHEUS", "/api/v1/rules", password)
    assert all(r["health"] != "err" for g in json.loads(body)["data"]["groups"] for r in g["rules"])
    check(ask(cluster, None))
    assert 9094 not in {port for service, _, port in ports.targets(cluster.containers())}


def test_the_workflow_writes_to_the_s3_server(new_cluster: NewCluster):
    cluster = new_cluster(COMPOSE_PROFILES="s3")
    bases(cluster, "s3")
    cluster.up()
    for name, container in cluster.containers().items():
        assert policy.broken(policy.from_inspect(name.rpartition("-")[0], container)) == {}, name
    log = succeeded(cluster.submit("experiment=smoke", "root=s3://reptok/runs", "until=shard"))
    assert "shard: done" in log
    succeeded(cluster.submit("verify=true", "root=s3://reptok/runs"))
    assert ": run (" not in succeeded(
        cluster.submit("experiment=smoke", "root=s3://reptok/runs", "until=shard")
    )
    answers = ask(cluster, None)
    check(answers)
    for request in ("3900, 'GET /reptok?list-type=2 none'", "3903, 'GET /v2/GetClusterStatus wrong'"):
        assert f"'s3', {request}, '403'" in str(answers), "a call that the server knows"
