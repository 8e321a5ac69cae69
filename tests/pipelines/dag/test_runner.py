"""What runs, in which order, and what does not run again."""

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import toy_stages
from toy_stages import Barrier, Nested, Toy, ToyConfig, contents, diamond, run

from pipelines.dag import runner
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.execution import SCRATCH, lock_of
from pipelines.dag.graph import GraphError
from pipelines.dag.lock import locked
from pipelines.dag.planner import plan


@pytest.fixture(autouse=True)
def calls():
    toy_stages.CALLS.clear()
    return toy_stages.CALLS


def test_the_order_follows_from_the_names(root, calls):
    assert run(diamond(), root) == dict.fromkeys("abcd", "run")
    assert calls[0] == "a" and calls[-1] == "d" and set(calls[1:3]) == {"b", "c"}
    assert next(v for k, v in contents(root).items() if k.startswith("d_out")) == b"d(b(a()),c(a()))"


def test_what_a_stage_imports_is_loaded_before_any_stage_starts(root):
    class Late(Toy):
        modules = ("wave",)

    sys.modules.pop("wave", None)
    run([Toy("a", action=lambda: "wave" in sys.modules), Late("b", ("a_out",))], root)
    assert b"a()True" in contents(root).values()


def test_a_second_run_executes_nothing(root, calls):
    run(diamond(), root)
    calls.clear()
    assert set(run(diamond(), root).values()) == {"skip"}
    assert calls == []


def test_what_is_left_of_published_work_goes_unless_somebody_is_at_work_there(root):
    run([Toy("a")], root)
    (planned,) = plan([Toy("a")], root)
    planned.artifact.folder.write_bytes(f"{SCRATCH}/note", b"of a chain that goes on")
    with locked(root, lock_of(planned.artifact)):
        assert run([Toy("a")], root) == {"a": "skip"}
        assert planned.artifact.folder.exists(f"{SCRATCH}/note")
    run([Toy("a")], root)
    assert not planned.artifact.folder.exists(f"{SCRATCH}/note")


def test_a_significant_change_reruns_exactly_what_is_downstream(root, calls):
    run(diamond(), root)
    calls.clear()
    actions = run(diamond(b=ToyConfig(text="b", decoder=Nested(depth=8))), root)
    assert actions == {"a": "skip", "b": "run", "c": "skip", "d": "run"}
    calls.clear()
    assert set(run(diamond(), root).values()) == {"skip"}, "what was published before is still there"


def test_insignificant_fields_are_ignored(root):
    run(diamond(), root)
    assert set(run(diamond(a=ToyConfig(text="a", workers=64)), root).values()) == {"skip"}


def test_a_raised_version_reruns(root):
    run([Toy("a")], root)
    assert run([Toy("a", version=2)], root) == {"a": "run"}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([Toy("a"), Toy("b", ("nothing",))], "b reads nothing, which no stage"),
        ([Toy("a"), Toy("b", output="a_out")], "both a and b make a_out"),
        ([Toy("a"), Toy("a", output="other")], "two stages are called a"),
        (
            [Toy("a", ("b_out",)), Toy("b", ("a_out",)), Toy("c")],
            "wait for each other: (a -> b -> a|b -> a -> b)",
        ),
    ],
)
def test_a_workflow_that_cannot_run_is_refused_before_anything_starts(root, calls, stages, message):
    with pytest.raises(GraphError, match=message):
        run(stages, root)
    assert calls == [] and not Path(root).exists()


def test_independent_stages_overlap(root):
    meet = Barrier(2)  # broken, and the stages failed, unless both are inside at once
    stages = [Toy("a"), Toy("b", ("a_out",), action=meet), Toy("c", ("a_out",), action=meet)]
    assert run(stages, root) == dict.fromkeys("abc", "run")


def test_stages_wait_for_free_resources(root):
    inside, most, lock = [0], [0], threading.Lock()

    def busy():
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        with lock:
            inside[0] -= 1

    stages = [Toy(name, action=busy, cpus=2) for name in "abcde"]
    run(stages, root, cluster=ClusterConfig(num_cpus=4))
    assert most[0] == 2


def test_a_stage_that_wants_more_than_there_is_runs_alone(root):
    assert run([Toy("a", cpus=64), Toy("b")], root, cluster=ClusterConfig(num_cpus=2)) == dict.fromkeys(
        "ab", "run"
    )


def test_a_failure_stops_its_descendants_and_nothing_else(root, capsys):
    def fail():
        raise RuntimeError("the cup is empty")

    stages = [*diamond()[1:], Toy("d", ("b_out", "c_out"))]
    stages[0] = Toy("b", ("a_out",), action=fail)
    stages.append(Toy("e", ("c_out",)))
    stages.append(Toy("f", ("d_out",)))
    results = runner.run(stages, root=root, tracking=toy_stages.NO_TRACKING)
    actions = {r.name: r.action for r in results}
    assert actions == {"a": "run", "b": "failed", "c": "run", "d": "blocked", "e": "run", "f": "blocked"}
    message = capsys.readouterr().err
    assert (
        "b failed: RuntimeError: the cup is empty" in message
        and "d blocked: not run, because b failed" in message
    )
    assert "b" in next(r.error for r in results if r.name == "d")


def test_a_failed_stage_resumes_when_its_cause_is_gone(root):
    def fail():
        raise ValueError("no")

    assert run([Toy("a", action=fail), Toy("b", ("a_out",))], root) == {"a": "failed", "b": "blocked"}
    assert run([Toy("a"), Toy("b", ("a_out",))], root) == {"a": "resume", "b": "run"}
    assert not list(Path(root).rglob("_scratch"))


def test_until_leaves_out_what_the_stage_does_not_need(root):
    assert run(diamond(), root, until="b") == {"a": "run", "b": "run"}
    with pytest.raises(GraphError, match="did you mean b"):
        run(diamond(), root, until="bb")


def test_only_runs_one_stage_and_says_what_it_needs(root):
    with pytest.raises(FileNotFoundError, match=r"only=d needs b_out, c_out.*until=b and until=c"):
        run(diamond(), root, only="d")
    run(diamond(), root, until="b")
    run(diamond(), root, until="c")
    assert run(diamond(), root, only="d") == {"d": "run"}


def test_force_with_equal_bytes_leaves_what_is_downstream(root):
    run(diamond(), root)
    assert run(diamond(), root, force="b") == {"a": "skip", "b": "run", "c": "skip", "d": "skip"}
    assert len(list(Path(root, "_superseded", "b_out").iterdir())) == 1


def test_force_with_other_bytes_reruns_what_is_downstream(root):
    count = [0]

    def other():
        count[0] += 1
        return count[0]

    stages = [Toy("a"), Toy("b", ("a_out",), action=other), Toy("c", ("b_out",)), Toy("d", ("a_out",))]
    run(stages, root)
    before = contents(root)
    assert run(stages, root, force="b") == {"a": "skip", "b": "run", "c": "run", "d": "skip"}
    old = {n: p.read_bytes() for p in Path(root, "_superseded").rglob("*.txt") for n in [p.name]}
    assert old["1.txt"] in before.values(), "what was published is kept aside, not overwritten"
    assert set(run(stages, root).values()) == {"skip"}


def test_the_manifest_says_how_the_artifact_was_made(root):
    results = runner.run(diamond(), root=root, tracking=toy_stages.NO_TRACKING)
    manifest = results[-1].artifact.manifest
    inputs = {p.stage.output: p.artifact.fingerprint for p in plan(diamond(), root)}
    assert manifest["stage"] == "d" and manifest["version"] == 1
    assert manifest["inputs"] == {"b_out": inputs["b_out"], "c_out": inputs["c_out"]}
    assert manifest["config"] == {"text": "d", "decoder": {"depth": 4}, "workers": 2}
    assert set(manifest["files"]) == {"0.txt", "nested/1.txt"}
    assert manifest["stats"] == {"characters": 16.0}
    assert len(manifest["git_commit"]) >= 7 and manifest["created"].endswith("Z")


def test_a_remote_store_gives_the_same_files(root):
    import fsspec

    run(diamond(), "memory://store/runs")
    run(diamond(), root)
    memory = fsspec.filesystem("memory")
    remote = {k.removeprefix("/store/runs/"): memory.cat(k) for k in memory.find("/store/runs")}
    assert {k: v for k, v in remote.items() if not k.endswith("manifest.json")} == contents(root)
    assert set(run(diamond(), "memory://store/runs").values()) == {"skip"}
    assert run(diamond(), "memory://store/runs", force="a")["a"] == "run"
    memory.rm("/store", recursive=True)


def test_plan_and_run_agree(root):
    changed = diamond(c=replace(ToyConfig(), text="other"))
    run(diamond(), root)
    assert {p.stage.name: p.action for p in plan(changed, root)} == run(changed, root)


def test_what_a_kill_after_publishing_left_of_the_work_goes_with_the_next_run(root):
    run([Toy("a")], root)
    (folder,) = Path(root, "a_out").iterdir()
    (folder / "_scratch" / "shards").mkdir(parents=True)
    (folder / "_scratch" / "shards" / "plan.json").write_text("[]")
    assert run([Toy("a")], root) == {"a": "skip"}
    assert not (folder / "_scratch").exists()


def test_what_a_killed_worker_left_beside_its_file_is_not_published(root):
    def leave():
        (folder,) = Path(root, "a_out").iterdir()
        (folder / ".0.txt.0123456789ab.part").write_bytes(b"half")

    run([Toy("a", action=leave)], root)
    assert not list(Path(root).rglob("*.part"))


@pytest.mark.parametrize("raised", [SystemExit("saved"), GeneratorExit(), KeyboardInterrupt()])
def test_a_stage_may_raise_anything_and_the_run_ends_says_so_and_resumes(root, raised, capsys):
    def leave():
        raise raised

    failing = [Toy("a", action=leave), Toy("b", ("a_out",)), Toy("c")]
    assert run(failing, root) == {"a": "failed", "b": "blocked", "c": "run"}
    assert f"a failed: {type(raised).__name__}" in capsys.readouterr().err
    assert run([Toy("a"), *failing[1:]], root) == {"a": "resume", "b": "run", "c": "skip"}


def test_a_figure_that_is_no_number_leaves_a_manifest_that_can_be_read(tmp_path, capsys):
    class Odd(Toy):
        def run(self, inputs, out):
            return {**super().run(inputs, out), "psnr": float("inf"), "loss": float("nan"), "ssim": 0.5}

    (first,) = runner.run([Odd("a")], root=str(tmp_path), tracking=toy_stages.NO_TRACKING)
    assert "psnr inf, loss nan" in capsys.readouterr().out
    (again,) = runner.run([Odd("a")], root=str(tmp_path), tracking=toy_stages.NO_TRACKING)
    assert (first.action, again.action) == ("run", "skip")
    assert first.stats == again.stats and first.stats["ssim"] == 0.5 and "psnr" not in first.stats
