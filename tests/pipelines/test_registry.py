"""A package that brings a source and a workflow is known by its entry points alone."""

import json
import os
import subprocess
import sys

import pytest

from pipelines.dag.reference import HOME

MODULE = """
from dataclasses import dataclass
from pathlib import Path
from pipelines.dag.stage import Stage
from pipelines.filters.filter import Filter, Finding
from pipelines.registry import Source, Workflow
from reptok.bounds import Count

@dataclass(frozen=True, kw_only=True)
class Config:
    pictures: Count = 3

class Draw(Stage):
    name, output = "draw", "drawings"
    def run(self, inputs, out): return {}

class Refuse(Draw):
    name, output = "refuse", "refusals"

class Count_(Stage):
    name, inputs, output = "count", ("drawings",), "number"
    def run(self, inputs, out): return {}

@dataclass(frozen=True, kw_only=True)
class Blur(Filter):
    limit: Count = 1
    def judge(self, row): return Finding()

SOURCE = Source(key="data.drawn", config=Config, stages=lambda c: [Draw(c), Refuse(c)], classes=lambda c: 7,
                tables=lambda c: [], conf=Path(__file__).parent / "drawn_conf")
WORKFLOW = Workflow(key="counting", config=Config, build=lambda config, own: [Count_(own)],
                    stages=lambda c: [])
"""


@pytest.fixture
def installed(tmp_path):
    """A folder of packages with one that brings both, as an installer would leave it."""
    (tmp_path / "drawn.py").write_text(MODULE)
    (tmp_path / "drawn_conf" / "data").mkdir(parents=True)
    (tmp_path / "drawn_conf" / "data" / "drawn.yaml").write_text("drawn: {}\nfolder: 'artifact:drawings'\n")
    information = tmp_path / "drawn-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: drawn\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[reptok.sources]\ndrawn = drawn:SOURCE\n[reptok.workflows]\ncounting = drawn:WORKFLOW\n"
        "[reptok.filters]\nblur = drawn:Blur\n"
    )
    return tmp_path


def planned(installed, *overrides):
    command = [sys.executable, str(HOME / "pipelines" / "plan.py"), "format=json", f"root={installed}/runs"]
    return subprocess.run(
        [*command, *overrides],
        env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True,
    )  # fmt: skip


def test_a_source_takes_part_where_its_artifact_is_referred_to(installed):
    own = ("data=drawn", "generator=mixer_class_tiny")
    done = planned(installed, *own, "data.drawn.pictures=5")
    assert done.returncode == 0, done.stderr
    stages = {stage["name"]: stage for stage in json.loads(done.stdout)["stages"]}
    assert list(stages["import_images"]["inputs"]) == ["drawings"] and "refuse" not in stages
    other = planned(installed, *own, "data.drawn.pictures=6")
    assert json.loads(other.stdout)["stages"][0]["fingerprint"] != stages["draw"]["fingerprint"]
    assert (
        "data.drawn.pictures must be at least 1" in planned(installed, *own, "data.drawn.pictures=0").stderr
    )
    wrong = planned(installed, *own, "generator.num_classes=2").stderr
    assert "generator.num_classes=2 contradicts data.drawn, from which 7 follows" in wrong


def test_a_workflow_is_chosen_by_name(installed):
    done = planned(installed, "data=drawn", "workflow=counting", "counting.pictures=2")
    assert done.returncode == 0, done.stderr
    assert [stage["name"] for stage in json.loads(done.stdout)["stages"]] == ["draw", "count"]
    assert "did you mean counting.pictures?" in planned(installed, "counting.picture=2").stderr


def test_a_filter_looks_where_it_is_configured(installed):
    def stages(*overrides):
        done = planned(installed, *overrides)
        assert done.returncode == 0, done.stderr
        return {stage["name"]: stage["fingerprint"] for stage in json.loads(done.stdout)["stages"]}

    plain, one, other = (stages(*own) for own in ((), ("data.filter_images.blur={}",),
                                                  ("data.filter_images.blur.limit=5",)))  # fmt: skip
    assert one.keys() - plain.keys() == {"filter_images"}
    assert one["filter_images"] != other["filter_images"]
    assert plain["download"] == one["download"] and plain["shard"] != one["shard"] != other["shard"]
    wrong = planned(installed, "data.filter_images.blur.limits=5").stderr
    assert "did you mean data.filter_images.blur.limit?" in wrong


def test_what_is_not_installed_is_said(tmp_path):
    assert "workflow is one of reptok, evaluate, zoo, not 'counting'" in planned(
        tmp_path, "workflow=counting"
    ).stderr  # fmt: skip
    assert (
        "download.serve=drawn: no source of that name"
        in planned(tmp_path, "data.download.serve=drawn").stderr
    )
    assert "there is no data 'drawn'" in planned(tmp_path, "data=drawn").stderr
