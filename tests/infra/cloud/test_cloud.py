"""Launcher files against Ray's own schema and checks, the SkyPilot task where SkyPilot is installed."""

from __future__ import annotations

import copy
import json
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import namespace
import pytest
import yaml

CLOUD = namespace.REPOSITORY / "infra" / "cloud"
LAUNCHERS = {name: yaml.safe_load((CLOUD / f"{name}.yaml").read_text()) for name in ("aws", "gcp")}
SPOT = {
    "aws": lambda node: node.get("InstanceMarketOptions") == {"MarketType": "spot"},
    "gcp": lambda node: node.get("scheduling", {}).get("provisioningModel") == "SPOT",
}


def schema() -> dict:
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    return json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_takes_the_file(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    jsonschema.validate(LAUNCHERS[name], schema())
    validate_config(prepare_config(copy.deepcopy(LAUNCHERS[name])))
    with pytest.raises(jsonschema.ValidationError, match="max_workerz"):
        jsonschema.validate({**LAUNCHERS[name], "max_workerz": 1}, schema())


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_head_is_on_demand_and_workers_are_spot(name):
    config = LAUNCHERS[name]
    for kind, node in config["available_node_types"].items():
        assert SPOT[name](node["node_config"]) == (kind != config["head_node_type"]), kind
        assert kind == config["head_node_type"] or node["min_workers"] == 0
    assert config["available_node_types"]["head"]["resources"]["CPU"] == 0


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_node_asks_for_the_token_that_was_copied(name):
    config = LAUNCHERS[name]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [command for command in config[key] if "ray start" in command]
        assert "RAY_AUTH_MODE=token" in start and "0.0.0.0" not in start
    excluded = {pattern.removeprefix("**/") for pattern in config["rsync_exclude"]}
    assert {".git", ".venv", "runs", ".secrets"} <= excluded


def test_the_skypilot_task_leaves_skypilots_own_ray_alone():
    task = yaml.safe_load((CLOUD / "skypilot.yaml").read_text())
    run = "\n".join(line for line in task["run"].splitlines() if not line.lstrip().startswith("#"))
    assert "ray stop" not in run and "6380" not in run and "8266" not in run
    assert "RAY_AUTH_MODE=token" in run and task["resources"]["use_spot"]


@pytest.mark.skipif(not find_spec("sky"), reason="SkyPilot is not installed")
def test_skypilot_takes_the_task():
    import sky

    task = sky.Task.from_yaml(str(CLOUD / "skypilot.yaml"))
    assert task.num_nodes == 2 and all(resources.use_spot for resources in task.resources)
