"""The plan says what would run and why, and starts nothing."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.configuration.costs import Estimate, EstimateConfig, StageRate, estimate, totals
from pipelines.dag.planner import plan
from pipelines.dag.shards import WorkerResources
from pipelines.plan import as_json, as_mermaid, print_table
from pipelines.plan import main as plan_main

sys.path.insert(0, str(Path(__file__).parent / "dag"))
from toy_chain import stages as chained_stages
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


def estimates(capsys, *arguments):
    assert plan_main([*arguments, "format=json"]) == 0
    return {stage["name"]: stage.get("estimate") for stage in json.loads(capsys.readouterr().out)["stages"]}


def test_the_paper_run_is_reckoned_as_by_hand(capsys):
    """COYO's pairs on one node of 8 GPUs and 64 cores: the planning figures, multiplied by hand."""
    stages = estimates(capsys, "experiment=t2i_coyo", "estimate=h100_node")
    images, wanted = 57_000_000, 51_230_000  # enough for the filter, and for training
    urls = images / 0.55  # of 172 million that the list has
    assert stages["select_urls"]["rows"] == 747e6 and stages["download"]["rows"] == pytest.approx(urls)
    assert stages["download"]["hours"] == pytest.approx(urls / (62.5 * 64) / 3600)
    assert stages["download"]["gpu_hours"] == 0 and stages["download"]["bound"] == "cpu"
    assert stages["filter_images"]["rows"] == pytest.approx(images)
    assert stages["caption"]["rows"] == stages["shard"]["rows"] == stages["encode_latents"]["rows"] == wanted
    looked = 0.75 * wanted  # the others have their alt-text
    assert stages["caption"]["hours"] == pytest.approx(looked / (40 * 8) / 3600)
    assert stages["caption"]["gpu_hours"] == pytest.approx(8 * stages["caption"]["hours"])
    assert stages["train_tokenizer"]["rows"] == 512e6
    assert stages["train_tokenizer"]["hours"] == pytest.approx(512e6 / (450 * 8) / 3600)
    assert stages["train_generator"]["rows"] == 51.2e6 and stages["train_generator"]["units"] == 4
    assert stages["evaluate_tokenizer"]["rows"] == 50_000
    assert stages["encode_latents"]["bytes_stored"] == pytest.approx(wanted * 39600)
    assert stages["encode_latents"]["cost"] == pytest.approx(24 * stages["encode_latents"]["hours"])


def test_what_nobody_captions_is_not_downloaded(capsys):
    """Without a filter the captioner's number is known to be enough; what is typed stands."""
    own = ("experiment=t2i_coyo", "data.filter_images.listed_hash=null", "captioner.mix=0.5")
    stages = estimates(capsys, *own, "data.download.limit_samples=null")
    assert stages["download"]["rows"] == pytest.approx(51_230_000 / 0.55)
    assert stages["caption"]["hours"] == pytest.approx(0.5 * 51_230_000 / (40 * 8) / 3600)
    more = estimates(capsys, *own, "data.download.limit_samples=60000000")
    assert more["download"]["rows"] == pytest.approx(60_000_000 / 0.55)
    every = estimates(capsys, "experiment=t2i_coyo", "data.download.limit_samples=null")
    assert every["download"]["rows"] == pytest.approx(747e6 * 0.23)


def test_a_stage_computes_on_what_its_workers_occupy(capsys):
    """Four nodes: as many captioners as there are GPUs, or the number that is typed."""
    four = ("experiment=t2i_coyo_nodes",)
    assert [estimates(capsys, *four)[name]["units"] for name in ("download", "caption")] == [256, 32]
    some = estimates(capsys, *four, "captioner.workers.workers=8", "data.download.workers.cpus=48")
    assert some["caption"]["units"] == 8
    assert some["download"]["units"] == 4 * 48, "one worker of 48 cores finds room on each node of 64"
    assert estimates(capsys, *four, "captioner.workers.cpus=16")["caption"]["units"] == 4 * 4


def test_captions_that_come_with_the_pictures_are_no_work_for_gpus(capsys):
    stages = estimates(capsys, "experiment=t2i_pd")
    assert stages["caption"] is None and stages["shard"]["rows"] == stages["encode_latents"]["rows"] > 1e6


def test_every_rate_names_its_source(capsys):
    assert plan_main(["experiment=t2i_coyo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("caption: 40 rows/s a GPU; borrowed: 35 to 45 images/s") for line in lines)
    assert any(line.startswith("download: 62.5 rows/s a core; borrowed: ") for line in lines)


TOY = EstimateConfig(
    nodes=2, cpus_per_node=1, gpus_per_node=0, network_gbit_per_node=0.008, price_per_node_hour=3.0,
    rows=7200,
    stages={"a": StageRate(rate=2, source="toy", unit="cpu", keep=0.5, bytes_in=2000, bytes_out=10)},
)  # fmt: skip


def test_a_slow_network_is_what_a_stage_waits_for():
    toy = plan([Toy("a")], "memory://estimates")
    (found,) = estimate(toy, TOY).values()
    assert found == Estimate(7200, 1.0, 0.0, 14.4e6, 36e3, 6.0, "cpu", 1)
    slower = estimate(toy, replace(TOY, network_gbit_per_node=0.000_008))["a"]
    assert (slower.hours, slower.cost, slower.bound) == (2.0, 12.0, "network")  # 115.2 Mbit at 16 kbit/s


def test_stages_of_a_chain_take_as_long_as_all_their_work_on_the_same_cores(tmp_path):
    """Two chained stages, each on one core of two: 1 h and 2 h together take 2 h, on one core of one 3 h."""
    chained = plan(chained_stages(workers=WorkerResources(workers=1, cpus=1)), str(tmp_path))
    names = [p.stage.name for p in chained][:2]
    stages = {
        n: StageRate(rate=rate, source="toy", unit="cpu") for n, rate in zip(names, (2, 1), strict=True)
    }
    config = replace(TOY, stages=stages, network_gbit_per_node=1)
    found = estimate(chained, config)
    assert [entry.hours for entry in found.values()] == [1.0, 2.0]
    assert "at least 2.0 h (3.0 h one stage after the other)" in totals(chained, found, config, chain=True)
    assert "at least 3.0 h, 0 GPU-hours, 18 USD" in totals(chained, found, config, chain=False)
    small = replace(config, nodes=1)
    assert "at least 3.0 h, 0 GPU-hours, 9 USD" in totals(
        chained, estimate(chained, small), small, chain=True
    )


def test_gpus_that_the_nodes_lack_are_an_error():
    config = EstimateConfig(nodes=1, cpus_per_node=1, gpus_per_node=0, network_gbit_per_node=1, rows=1,
                            stages={"a": StageRate(rate=1, source="toy", unit="gpu")})  # fmt: skip
    with pytest.raises(ValueError, match="the nodes have none"):
        estimate(plan([Toy("a")], "memory://estimates"), config)
