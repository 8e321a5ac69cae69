"""`docker compose up` in a fresh clone, the whole demo as a Ray job, and what is left of it afterwards."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import browser
from tests.containers.conftest import PRINT_DIGESTS, REPOSITORY, Cluster, NewCluster, run, succeeded
from tests.docker import policy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
DATA = ("web", "urls", "images", "captions", "dataset", "latents", "tokens")
WEIGHTS = (".safetensors",)


@pytest.fixture(scope="module")
def cluster(new_cluster: NewCluster) -> Cluster:
    made = new_cluster()
    made.up()
    return made


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[browser.Page]:
    if browser.program() is None:
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"])
    if browser.program() is None:
        pytest.skip("NOT RUN: no browser, and apt-get brings no chromium")
    with browser.page(tmp_path) as opened:
        yield opened
        (tmp_path / "page.png").write_bytes(b64decode(opened.picture()))


@pytest.fixture(scope="module")
def demo(cluster: Cluster) -> str:
    """The log of the whole demo."""
    done = cluster.submit(options=["--workdir", "/tmp"])
    return succeeded(done)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Digests of the demo on this machine; REPTOK_HOST_DEMO names the root of one that has run already."""
    root = os.environ.get("REPTOK_HOST_DEMO") or str(tmp_path_factory.mktemp("host"))
    if "REPTOK_HOST_DEMO" not in os.environ:
        succeeded(run([sys.executable, str(REPOSITORY / "pipelines/run_all.py"), f"root={root}"]))
    return json.loads(succeeded(run([sys.executable, "-c", PRINT_DIGESTS, root])))


def test_every_container_obeys_and_each_rule_refuses_its_mutant(cluster):
    containers = cluster.containers()
    for name, container in containers.items():
        service = policy.from_inspect(name.rpartition("-")[0], container)
        assert policy.broken(service) == {}, name
    head = containers["head-1"]
    mutants = {
        "loopback": ("HostConfig", "PortBindings", {"8265/tcp": [{"HostIp": "", "HostPort": "1"}]}),
        "read_only_root": ("HostConfig", "ReadonlyRootfs", False),
        "capabilities": ("HostConfig", "CapAdd", ["CAP_SYS_ADMIN"]),
        "no_new_privileges": ("HostConfig", "SecurityOpt", []),
        "own_namespaces": ("HostConfig", "PidMode", "host"),
        "non_root": ("Config", "User", ""),
        "limits": ("HostConfig", "Memory", 0),
        "restarts": ("HostConfig", "RestartPolicy", {"Name": "always"}),
        "health": ("Config", "Healthcheck", None),
        "exact_tag": ("Config", "Image", "reptok:latest"),
        "no_secret_in_environment": ("Config", "Env", [*head["Config"]["Env"], "RAY_AUTH_TOKEN=x"]),
        "no_secret_in_arguments": ("Config", "Cmd", ["head", "--password=x"]),
        "shared_memory": ("HostConfig", "ShmSize", 2**26),
        "apart": ("NetworkSettings", "Networks", {"p_cluster": {}, "p_records": {}}),
        "no_engine": ("", "Mounts", [{"Source": "/var/run/docker.sock"}]),
        "logs_rotate": ("HostConfig", "LogConfig", {"Config": {}}),
    }
    assert mutants.keys() == {rule.__name__ for rule in policy.RULES}
    for rule, (section, key, value) in mutants.items():
        mutant = json.loads(json.dumps(head))
        (mutant[section] if section else mutant)[key] = value
        assert list(policy.broken(policy.from_inspect("head", mutant))) == [rule]


def test_the_whole_demo_gives_the_hosts_bytes(cluster, demo, host):
    """Data, tokens and trained weights; reports and the model's card print durations."""
    here = cluster.digests()
    assert here.keys() == host.keys()
    for kind in DATA:
        assert here[kind] == host[kind], kind
    for kind in ("tokenizer", "generator", "model"):
        ours = {name: digest for name, digest in here[kind].items() if name.endswith(WEIGHTS)}
        theirs = {name: digest for name, digest in host[kind].items() if name.endswith(WEIGHTS)}
        assert ours and ours == theirs, kind


def test_its_run_is_in_mlflow_and_the_servers_ask_who_is_there(cluster, demo):
    script = (
        "from mlflow import MlflowClient; c = MlflowClient();"
        "e = c.get_experiment_by_name('reptok');"
        "print(*[(r.data.tags['mlflow.runName'], r.info.status) for r in c.search_runs([e.experiment_id])])"
    )
    shown = cluster.shell("head", f'python -c "{script}"')
    for stage in ("download", "encode_latents", "train_tokenizer", "train_generator", "publish"):
        assert f"('{stage}', 'FINISHED')" in shown
    for port in (cluster.ports["MLFLOW"], cluster.ports["DASHBOARD"]):
        path = "api/2.0/mlflow/experiments/search" if port == cluster.ports["MLFLOW"] else "api/jobs/"
        url = f"http://127.0.0.1:{port}/{path}"
        assert run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url]).stdout in ("401", "403")


def test_no_secret_is_seen_anywhere_but_in_its_file(cluster, demo):
    """Environment, command lines of processes, logs, the job's metadata, MLflow's database."""
    places = {"inspect": json.dumps(cluster.containers())}
    places["logs"] = cluster.compose("logs").stdout
    places["ray's logs"] = cluster.shell("head", "find /ray -name '*.log' -o -name '*.out' | xargs cat")
    for service in ("head", "worker", "mlflow", "postgres"):
        places[f"arguments of {service}"] = cluster.shell(
            service, "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; done 2> /dev/null; true"
        )
    places["jobs"] = cluster.shell("head", "ray job list --log-style record; ray job list")
    places["mlflow"] = cluster.shell("postgres", "pg_dump -U mlflow mlflow")
    for place, text in places.items():
        seen = [name for name, value in cluster.values().items() if value in text]
        assert seen == [] and len(text) > 100, place


def test_a_worker_can_compile(cluster):
    """`compile: true` wants a compiler, Python's headers, and a folder that may hold programs."""
    script = (
        "import torch; f = torch.compile(lambda x: torch.sin(x) + 1); print(f(torch.zeros(8)).sum().item())"
    )
    assert cluster.shell("worker", f'python -c "{script}"').strip().endswith("8.0")
    assert ".so" in cluster.shell("worker", "find /cache/inductor -name '*.so' | head -n 1")


def test_its_runs_are_seen_in_mlflow_by_a_real_browser(cluster, demo, tab):
    """A run's page, its curves, two runs side by side; after a login, without an error on the console."""
    script = (
        "from mlflow import MlflowClient; import json; c = MlflowClient();"
        "e = c.get_experiment_by_name('reptok').experiment_id;"
        "print(json.dumps([e, {r.data.tags['mlflow.runName']: [r.info.run_id, sorted(r.data.metrics)]"
        " for r in c.search_runs([e])}]))"
    )
    experiment, runs = json.loads(cluster.shell("head", f'python -c "{script}"'))
    (tokenizer, metrics), (generator, _) = runs["train_tokenizer"], runs["train_generator"]
    address = f"http://127.0.0.1:{cluster.ports['MLFLOW']}"
    tab.open(address)
    tab.wait_for()
    assert any(problem.startswith("401") for problem in tab.problems), "nobody was asked for a login"
    tab.login = ("reptok", cluster.values()["mlflow-password"])
    run_page, both = f"experiments/{experiment}/runs/{tokenizer}", f'["{tokenizer}","{generator}"]'
    for path, shown in {
        run_page: [tokenizer, *metrics[:3]],
        f"{run_page}/model-metrics": metrics[:1],
        f"{run_page}/artifacts": [],
        f'compare-runs?runs={both}&experiments=["{experiment}"]': ["train_generator"],
    }.items():
        tab.open(f"{address}/#/{path}")
        tab.wait_for("train_tokenizer", *shown)
        assert tab.problems == [], path
        assert tab.hosts == {"127.0.0.1"}, "a page loads something from elsewhere"


def test_its_job_is_seen_in_the_dashboard_by_a_real_browser(cluster, demo, tab):
    address = f"http://127.0.0.1:{cluster.ports['DASHBOARD']}"
    tab.open(address)
    tab.wait_for("Authentication Token Required")
    tab.enter("wrong")
    tab.wait_for("Invalid authentication token")
    tab.open(address)
    tab.wait_for("Authentication Token Required")
    tab.enter(cluster.values()["ray-token"])
    tab.wait_for("Cluster")
    for path, shown in {"jobs": ["run_all.py", "SUCCEEDED"], "cluster": ["ALIVE"]}.items():
        tab.open(f"{address}/#/{path}")
        tab.wait_for(*shown)
        # The page looks for monitoring, which is another profile, and for events that no head here keeps.
        absent = re.compile(r"platform_events|grafana_health|prometheus_health")
        assert [problem for problem in tab.problems if not absent.search(problem)] == [], path
        assert tab.hosts == {"127.0.0.1"}, "a page loads something from elsewhere"


def test_results_are_copied_to_the_host(cluster, demo):
    shown = succeeded(run(["make", "results"], cwd=cluster.clone, env=cluster.environment))
    report = Path(cluster.clone) / shown.split("Report:")[1].split()[0]
    assert report.exists() and report.stat().st_uid == os.getuid()
    model = json.loads((report.parent / "manifest.json").read_text())
    assert {name for name in model["files"]} <= {
        str(path.relative_to(report.parent)) for path in report.parent.rglob("*") if path.is_file()
    }


def test_a_second_submission_after_down_and_up_runs_nothing(cluster, demo):
    before = cluster.values(), cluster.digests()
    succeeded(cluster.compose("stop"))
    assert cluster.killed() == []
    succeeded(cluster.compose("down"))
    cluster.up()
    begun = time.monotonic()
    log = succeeded(cluster.submit())
    print(f"second submission: {time.monotonic() - begun:.1f} s")
    assert ": run (" not in log
    assert (cluster.values(), cluster.digests()) == before
