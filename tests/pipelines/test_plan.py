"""The plan says what would run and why, and starts nothing."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.configuration.costs import Estimate, EstimateConfig, StageRate, estimate
from pipelines.dag.planner import plan
from pipelines.plan import as_json, as_mermaid, print_table
from pipelines.plan import main as plan_main

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
        "import sys; from pipelines import plan, run_all; "
        "from pipelines.dag import runner; from pipelines.reports import summary; "
        f"status = plan.main(['format=json', 'root={tmp_path}']); "
        f"print(status, [module for module in {heavy.split()} if module in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "0 []"
    assert json.loads(done.stdout)["stages"]


def test_the_paper_run_is_reckoned_as_by_hand(capsys):
    """120 million pairs on one node of 8 GPUs and 64 cores: the planning figures, multiplied by hand."""
    assert plan_main(["experiment=t2i_coyo", "format=json", "estimate=h100_node"]) == 0
    stages = {stage["name"]: stage.get("estimate") for stage in json.loads(capsys.readouterr().out)["stages"]}
    urls, images = 747e6 * 0.23, 747e6 * 0.23 * 0.55
    assert stages["download"]["rows"] == pytest.approx(urls)
    assert stages["download"]["hours"] == pytest.approx(urls / (62.5 * 64) / 3600)
    assert stages["download"]["gpu_hours"] == 0 and stages["download"]["bound"] == "cpu"
    assert stages["caption"]["hours"] == pytest.approx(images / (250 * 8) / 3600)
    assert stages["caption"]["gpu_hours"] == pytest.approx(8 * stages["caption"]["hours"])
    assert stages["train_tokenizer"]["rows"] == 512e6
    assert stages["train_tokenizer"]["hours"] == pytest.approx(512e6 / (450 * 8) / 3600)
    assert stages["train_generator"]["rows"] == 51.2e6
    assert stages["evaluate_tokenizer"]["rows"] == 50_000
    assert stages["encode_latents"]["bytes_stored"] == pytest.approx(images * 39600)
    assert stages["encode_latents"]["cost"] == pytest.approx(24 * stages["encode_latents"]["hours"])


def test_a_slow_network_is_what_a_stage_waits_for():
    toy = plan([Toy("a")], "memory://estimates")
    config = EstimateConfig(
        nodes=2, cpus_per_node=1, gpus_per_node=0, network_gbit_per_node=0.008, price_per_node_hour=3.0,
        rows=7200, stages={"a": StageRate(rate=1, unit="cpu", keep=0.5, bytes_in=2000, bytes_out=10)},
    )  # fmt: skip
    (found,) = estimate(toy, config).values()
    assert found == Estimate(7200, 1.0, 0.0, 14.4e6, 36e3, 6.0, "cpu")
    slower = estimate(toy, replace(config, network_gbit_per_node=0.000_008))["a"]
    assert (slower.hours, slower.cost, slower.bound) == (2.0, 12.0, "network")  # 115.2 Mbit at 16 kbit/s


def test_gpus_that_the_nodes_lack_are_an_error():
    config = EstimateConfig(nodes=1, cpus_per_node=1, gpus_per_node=0, network_gbit_per_node=1, rows=1,
                            stages={"a": StageRate(rate=1, unit="gpu")})  # fmt: skip
    with pytest.raises(ValueError, match="the nodes have none"):
        estimate(plan([Toy("a")], "memory://estimates"), config)
