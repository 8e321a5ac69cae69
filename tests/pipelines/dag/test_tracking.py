"""What MLflow is told; and that nothing waits for it when it is away."""

import json

import pytest
from toy_stages import Nested, Toy, ToyConfig

from pipelines.dag import runner
from pipelines.dag.tracking import StageLog, TrackingConfig


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A workflow whose second stage fails at first: (root, client, results of the two invocations)."""
    from PIL import Image

    root = str(tmp_path_factory.mktemp("store"))
    tracking = TrackingConfig(experiment="toys")

    class Logging(Toy):
        def run(self, inputs, out):
            for step in range(3):
                out.log.metrics({"train/loss": 1.0 / (step + 1)}, step=step)
            out.log.picture("grid", Image.new("RGB", (4, 4)))
            worker = StageLog.attach(out.log.handle(), self.name)
            worker.metrics({"from/worker": 7.0}, step=5)
            worker.flush()
            return super().run(inputs, out)

    def fail():
        raise RuntimeError("not yet")

    config = ToyConfig(text="b", decoder=Nested(depth=6))
    first = runner.run(
        [Toy("a"), Logging("b", ("a_out",), action=fail, config=config)], root=root, tracking=tracking
    )
    second = runner.run([Toy("a"), Logging("b", ("a_out",), config=config)], root=root, tracking=tracking)
    from mlflow import MlflowClient

    return root, MlflowClient(f"sqlite:///{root}/mlflow.db"), first, second


def runs(client, **tags):
    experiment = client.get_experiment_by_name("toys").experiment_id
    query = " and ".join(f"tags.`{key.replace('__', '.')}` = '{value}'" for key, value in tags.items())
    return client.search_runs([experiment], query)


def test_one_parent_per_invocation_and_one_nested_run_per_stage(recorded):
    _, client, first, second = recorded
    assert [r.action for r in first] == ["run", "failed"] and [r.action for r in second] == ["skip", "resume"]
    parents = runs(client, mlflow__runName="workflow")
    assert sorted(run.info.status for run in parents) == ["FAILED", "FINISHED"]
    (a,), (b,) = runs(client, stage="a"), runs(client, stage="b")  # the resumed stage continued its run
    assert a.info.status == b.info.status == "FINISHED"
    assert b.data.tags["mlflow.parentRunId"] in {run.info.run_id for run in parents}
    assert b.data.tags["fingerprint"] == second[1].artifact.fingerprint
    assert b.data.tags["input.a_out"] == second[0].artifact.fingerprint and b.data.tags["git_commit"]
    done = next(run for run in parents if run.info.status == "FINISHED")
    assert done.data.tags["stage.a"] == f"skip {a.info.run_id}", (
        "a skipped stage links to the run that made it"
    )
    assert done.data.tags["stage.b"] == f"resume {b.info.run_id}"
    assert second[1].artifact.manifest["run_id"] == b.info.run_id


def test_config_stats_curves_lineage_and_files_are_recorded(recorded):
    _, client, _, second = recorded
    (b,) = runs(client, stage="b")
    assert b.data.params == {"text": "b", "decoder.depth": "6", "workers": "2"}
    assert b.data.metrics["characters"] == second[1].stats["characters"]
    assert b.data.metrics["from/worker"] == 7.0
    curve = [(m.step, m.value) for m in client.get_metric_history(b.info.run_id, "train/loss")]
    assert sorted(set(curve)) == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    (entry,) = b.inputs.dataset_inputs
    assert entry.dataset.name == "a_out" and entry.dataset.digest == second[0].artifact.digest[:36]
    assert json.loads(entry.dataset.source)["uri"] == second[0].artifact.url
    assert {"manifest.json", "grid.png"} <= {f.path for f in client.list_artifacts(b.info.run_id)}


def test_work_goes_on_without_a_server(root, capsys):
    tracking = TrackingConfig(uri="http://127.0.0.1:9")
    results = runner.run([Toy("a"), Toy("b", ("a_out",))], root=root, tracking=tracking)
    assert [r.action for r in results] == ["run", "run"]
    assert results[0].artifact.manifest["run_id"] is None
    assert capsys.readouterr().out.count("warning: MLflow") == 1


def test_without_a_run_every_call_does_nothing(capsys):
    log = StageLog("quiet")
    log.metrics({"x": 1.0})
    log.text("a.txt", "b")
    log.tags({"k": "v"})
    log.flush()
    assert log.handle() is None and StageLog.attach(None).handle() is None
    log.progress(10, 10)
    assert "quiet: 10 of 10 rows (100 %)" in capsys.readouterr().out
