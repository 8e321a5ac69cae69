"""What MLflow is told; and that nothing waits for it when it is away."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from toy_stages import Nested, Toy, ToyConfig

from pipelines.dag import runner
from pipelines.dag.stage_log import StageLog
from pipelines.dag.tracking import Tracker, TrackingConfig


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


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database for several tests, each with an experiment of its own: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/mlflow.db"


def runs(client, within="toys", **tags):
    experiment = client.get_experiment_by_name(within).experiment_id
    query = " and ".join(f"tags.`{key.replace('__', '.')}` = '{value}'" for key, value in tags.items())
    return client.search_runs([experiment], query)


def test_one_parent_goes_on_and_each_stage_has_one_nested_run(recorded):
    _, client, first, second = recorded
    assert [r.action for r in first] == ["run", "failed"] and [r.action for r in second] == ["skip", "resume"]
    (parent,) = runs(client, mlflow__runName="workflow")  # of both invocations
    assert parent.info.status == "FINISHED"
    (a,), (b,) = runs(client, stage="a"), runs(client, stage="b")  # the resumed stage continued its run
    assert a.info.status == b.info.status == "FINISHED"
    assert a.data.tags["mlflow.parentRunId"] == b.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert b.data.tags["fingerprint"] == second[1].artifact.fingerprint
    assert b.data.tags["input.a_out"] == second[0].artifact.fingerprint and b.data.tags["git_commit"]
    assert parent.data.tags["stage.a"] == f"skip {a.info.run_id}", (
        "a skipped stage links to the run that made it"
    )
    assert parent.data.tags["stage.b"] == f"resume {b.info.run_id}"
    assert second[1].artifact.manifest["run_id"] == b.info.run_id
    assert b.data.tags["artifact.uri"] == second[1].artifact.url
    assert b.data.tags["artifact.digest"] == second[1].artifact.digest


def test_the_parent_is_that_of_root_and_configuration(database, tmp_path):
    """What cannot change a byte, and which stages an invocation runs, leave it; the rest does not."""
    tracking = TrackingConfig(uri=database, experiment="parents")

    def parents(count, root="one", until=None, **values):
        stages = [Toy("a", config=ToyConfig(**values)), Toy("b", ("a_out",))]
        runner.run(stages, root=str(tmp_path / root), tracking=tracking, until=until, name="mine")
        assert len(runs(client, "parents", mlflow__runName="mine")) == count

    from mlflow import MlflowClient

    client = MlflowClient(tracking.uri)
    parents(1, until="a")
    parents(1, workers=9)
    parents(2, text="other")
    parents(3, root="two")
    parents(3, root="two", decoder=Nested())
    found = {
        run.data.tags["root"].rsplit("/", 1)[1] for run in runs(client, "parents", mlflow__runName="mine")
    }
    assert found == {"one", "two"}
    (first, *_) = runs(client, "parents", mlflow__runName="mine")
    client.delete_run(first.info.run_id)  # by the user
    parents(3, root="two", text="again")


def test_a_parent_that_was_killed_runs_again(database, tmp_path):
    tracking = TrackingConfig(uri=database, experiment="killed")
    from mlflow import MlflowClient

    client = MlflowClient(tracking.uri)
    statuses = []

    def look():
        (run,) = runs(client, "killed", mlflow__runName="workflow")
        statuses.append(run.info.status)

    log = Tracker(tracking, str(tmp_path), {}, configuration="c")
    log.link("a", "run", "")
    log.close("KILLED")
    look()
    log = Tracker(tracking, str(tmp_path), {}, configuration="c")
    log.link("a", "run", "")
    log._log.flush()
    look()
    log.close("FINISHED")
    look()
    assert statuses == ["KILLED", "RUNNING", "FINISHED"]


def test_a_large_file_is_recorded_by_reference(database, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.dag.stage_log.FILE_LIMIT_BYTES", 10)
    tracking = TrackingConfig(uri=database, experiment="large")
    (tmp_path / "small.txt").write_text("0123456789")
    (tmp_path / "large.bin").write_bytes(bytes(11))

    class Filing(Toy):
        def run(self, inputs, out):
            out.log.file(tmp_path / "small.txt")
            out.log.file(tmp_path / "large.bin", "weights")
            return super().run(inputs, out)

    runner.run([Filing("a")], root=str(tmp_path / "store"), tracking=tracking)
    from mlflow import MlflowClient

    client = MlflowClient(tracking.uri)
    (run,) = runs(client, "large", stage="a")
    assert "small.txt" in {f.path for f in client.list_artifacts(run.info.run_id)}
    (only,) = client.list_artifacts(run.info.run_id, "weights")
    assert only.path == "weights/large.bin.reference.json"
    reference = json.loads(Path(client.download_artifacts(run.info.run_id, only.path)).read_text())
    assert reference == {"uri": (tmp_path / "large.bin").as_uri(), "size": 11}


@pytest.mark.parametrize("where", ["file", "environment"])
def test_credentials_reach_the_server_and_nothing_else(tmp_path, where, monkeypatch, capfd):
    """A server that asks for a login: MLflow's own file or environment has it, no output and no record."""
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Authorization"])
            self.send_error(401)

        do_POST = do_GET

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if where == "file":
        (tmp_path / ".mlflow").mkdir()
        lines = "[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = sesame\n"
        (tmp_path / ".mlflow" / "credentials").write_text(lines)
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "sesame")
    uri = f"http://127.0.0.1:{server.server_port}"
    (result,) = runner.run([Toy("a")], root=str(tmp_path / "store"), tracking=TrackingConfig(uri=uri))
    server.shutdown()
    assert result.action == "run", "a refused login stops no work"
    assert set(asked) == {"Basic " + base64.b64encode(b"me:sesame").decode()}
    printed = capfd.readouterr()
    written = [path.read_text() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert "401" in printed.out and not any("sesame" in text for text in (*printed, *written))


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


def test_what_the_machine_does_is_told_to_the_stages_in_work(database, tmp_path, monkeypatch):
    import psutil
    from mlflow import MlflowClient

    from pipelines.dag import machine

    monkeypatch.setattr(machine, "INTERVAL_SECONDS", 0.1)
    client = MlflowClient(database)

    def work():
        end = time.monotonic() + 20  # MLflow is imported meanwhile
        while time.monotonic() < end and not client.get_experiment_by_name("machine"):
            time.sleep(0.1)
        while time.monotonic() < end and not (told := runs(client, "machine", stage="busy")):
            time.sleep(0.1)
        while time.monotonic() < end and not {k for k in told[0].data.metrics if k.startswith("system/")}:
            time.sleep(0.1)
            told = runs(client, "machine", stage="busy")

    stages = [Toy("busy", action=work)]
    runner.run(stages, root=str(tmp_path), tracking=TrackingConfig(uri=database, experiment="machine"))
    (run,) = runs(client, "machine", stage="busy")
    memory = client.get_metric_history(run.info.run_id, "system/system_memory_usage_megabytes")
    assert [entry.step for entry in memory] == list(range(len(memory))) and memory
    assert memory[0].value == pytest.approx(psutil.virtual_memory().used / 1e6, rel=0.5)
    assert 0 <= run.data.metrics["system/cpu_utilization_percentage"] <= 100
    (parent,) = runs(client, "machine", mlflow__runName="workflow")
    assert not [key for key in parent.data.metrics if key.startswith("system/")]


def test_two_runs_compare_by_what_they_set_and_what_they_scored(database, tmp_path):
    tracking = TrackingConfig(uri=database, experiment="compared")

    class Scored(Toy):
        scored = True

        def run(self, inputs, out):
            return {
                **super().run(inputs, out),
                "eval/psnr": float(self.config.text),
                "eval/odd": float("nan"),
            }

    for text in ("18.5", "19.5"):
        results = runner.run(
            [Toy("a"), Scored("judge", ("a_out",), config=ToyConfig(text=text))],
            root=str(tmp_path), tracking=tracking, name="demo", params={"experiment": "demo", "text": text},
            note=lambda results: f"# {len(results)} stages",
        )  # fmt: skip
    again = runner.run(
        [Toy("a"), Scored("judge", ("a_out",), config=ToyConfig(text="19.5")), Toy("c", ("judge_out",))],
        root=str(tmp_path), tracking=tracking, name="demo", params={"text": "other"},
    )  # fmt: skip
    assert [r.action for r in results] == ["skip", "run"] and [r.action for r in again] == [
        "skip",
        "skip",
        "run",
    ]
    from mlflow import MlflowClient

    client = MlflowClient(database)
    parents = runs(client, "compared", mlflow__runName="demo")
    found = {run.data.params["text"]: run.data.metrics for run in parents}
    assert {text: metrics["judge/eval/psnr"] for text, metrics in found.items()} == {
        "18.5": 18.5, "19.5": 19.5, "other": 19.5
    }, "a stage that another run made counts, too"  # fmt: skip
    assert "judge/eval/odd" not in found["18.5"] and not any(key.startswith("a/") for key in found["18.5"])
    notes = {run.data.params["text"]: run.data.tags.get("mlflow.note.content") for run in parents}
    assert notes == {"18.5": "# 2 stages", "19.5": "# 2 stages", "other": None}
    kind = client.get_experiment_by_name("compared").tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"
