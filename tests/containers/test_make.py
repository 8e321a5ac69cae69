"""What a person does with `make` on a cluster that is up: log in, submit, be refused."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import urllib.request

import pytest

from tests.containers.conftest import JOB_SECONDS, Cluster, NewCluster, run, succeeded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
# The clone's targets, with the Python of these tests and without an installation of their own.
MAKE = ["make", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.ready"]


@pytest.fixture(scope="module")
def cluster(new_cluster: NewCluster) -> Cluster:
    made = new_cluster()
    made.up()
    return made


def test_credentials_are_printed_to_a_terminal_alone(cluster):
    command = [*MAKE, "credentials"]
    piped = run(command, cwd=cluster.clone, env=cluster.environment)
    assert piped.returncode != 0 and "on a terminal only" in piped.stderr
    terminal = ["script", "--quiet", "--return", "--command", shlex.join(command), "/dev/null"]
    shown = succeeded(run(terminal, cwd=cluster.clone, env=cluster.environment))
    for name in ("ray-token", "mlflow-password", "grafana-password"):
        assert cluster.values()[name] in shown
        assert cluster.values()[name] not in piped.stdout + piped.stderr
    assert cluster.values()["postgres-password"] not in shown, "nobody logs in there"


def test_submit_goes_to_the_head_and_refuses_a_second_job_on_its_root(cluster):
    """Nothing is uploaded, the log is followed, the job's exit status is submit's."""
    submit, arguments = [*MAKE, "submit"], "experiment=smoke until=caption root=/data/submitted"
    first = subprocess.Popen(
        [*submit, f"ARGS={arguments}"], cwd=cluster.clone, env=cluster.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert first.stdout is not None
    log = ""
    while "select_urls: done" not in log:
        line = first.stdout.readline()
        assert line, log
        log += line
    second = run([*submit, f"ARGS={arguments}/"], cwd=cluster.clone, env=cluster.environment)
    assert second.returncode == 2 and "works on /data/submitted and is RUNNING" in second.stderr, second
    log += first.communicate(timeout=JOB_SECONDS)[0]
    assert first.returncode == 0 and "caption: done" in log and "SUCCEEDED" in log, log
    failed = run([*submit, f"ARGS={arguments} no.such.key=1"], cwd=cluster.clone, env=cluster.environment)
    assert failed.returncode == 2 and "FAILED" in failed.stdout, failed

    request = urllib.request.Request(
        f"http://127.0.0.1:{cluster.ports['DASHBOARD']}/api/jobs/",
        headers={"Authorization": f"Bearer {cluster.values()['ray-token']}"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        jobs = json.load(answer)
    assert len(jobs) == 2, "the refused one is none"
    for job in jobs:
        assert job["runtime_env"] in (None, {}) and str(cluster.clone) not in json.dumps(job)
