"""The plan says what would run and why, and starts nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.dag.planner import plan
from pipelines.plan import as_json, as_mermaid, print_table

sys.path.insert(0, str(Path(__file__).parent / "dag"))
from toy_stages import Nested, Toy, ToyConfig, diamond, run


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "store")


def reasons(stages, root, **options):
    return {p.stage.name: (p.action, p.reason) for p in plan(stages, root, **options)}


def test_nothing_ever_ran(root):
    assert set(reasons(diamond(), root).values()) == {("run", "never ran")}
    assert not Path(root).exists()


def test_everything_is_published(root):
    run(diamond(), root)
    assert set(reasons(diamond(), root).values()) == {("skip", "published")}


def test_a_changed_value_is_named_with_before_and_after(root):
    run(diamond(), root)
    found = reasons(diamond(b=ToyConfig(text="b", decoder=Nested(depth=8), workers=7)), root)
    assert found["b"] == ("run", "b.decoder.depth 4 -> 8")
    assert found["a"] == found["c"] == ("skip", "published")
    assert found["d"] == ("run", "input b_out changed")


def test_the_comparison_is_with_the_newest_artifact(root):
    run(diamond(), root)
    run(diamond(b=ToyConfig(text="b", decoder=Nested(depth=8))), root)
    found = reasons(diamond(b=ToyConfig(text="B", decoder=Nested(depth=8))), root)
    assert found["b"] == ("run", 'b.text "b" -> "B"')


def test_a_raised_version_is_named(root):
    run([Toy("a")], root)
    assert reasons([Toy("a", version=2)], root) == {"a": ("run", "a version 1 -> 2")}


def test_an_interrupted_stage_resumes(root):
    def fail():
        raise RuntimeError

    run([Toy("a", action=fail)], root)
    assert reasons([Toy("a")], root) == {"a": ("resume", "interrupted")}


def test_force_until_and_only(root):
    run(diamond(), root)
    assert reasons(diamond(), root, force="b", until="d")["d"] == (
        "skip",
        "published; runs again only if b gives other bytes",
    )
    assert list(reasons(diamond(), root, until="c")) == ["a", "c"]
    assert reasons(diamond(), root, only="c") == {"c": ("skip", "published")}


def test_json_and_mermaid(root, capsys):
    run(diamond(), root, until="b")
    planned = plan(diamond(), root)
    stages = {stage["name"]: stage for stage in json.loads(as_json(planned))["stages"]}
    assert next(iter(stages)) == "a" and list(stages)[-1] == "d"
    assert stages["b"]["action"] == "skip" and stages["d"]["action"] == "run"
    assert stages["b"]["inputs"] == {"a_out": stages["a"]["fingerprint"]}
    assert set(stages["d"]) == {"name", "action", "reason", "fingerprint", "inputs"}
    diagram = as_mermaid(planned).splitlines()
    assert diagram[0] == "flowchart TD" and "  b -- b_out --> d" in diagram
    print_table(planned)
    assert "never ran" in capsys.readouterr().out


def test_planning_and_a_run_without_work_load_nothing_heavy(tmp_path):
    """They say what would run, or that nothing has to, while torch alone would take longer to load."""
    heavy = (
        "torch torchvision timm diffusers transformers lightly open_clip torchmetrics aiohttp imagehash "
        "scipy skimage sklearn pandas matplotlib ray mlflow"
    )
    program = (
        "import sys; from pipelines import plan, run_all, summary; from pipelines.dag import runner; "
        f"status = plan.main(['format=json', 'root={tmp_path}']); "
        f"print(status, [module for module in {heavy.split()} if module in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "0 []"
    assert json.loads(done.stdout)["stages"]
