"""What a run tells Prometheus: the table, the closed label sets, and that it is nothing without Ray."""

import json
import math
import re
import sys
from dataclasses import asdict, dataclass
from typing import ClassVar

import pytest

from pipelines.crawl.reasons import CLASSES, REASONS
from pipelines.dag import metrics, runner
from pipelines.dag.metrics import OTHER, STATES, TABLE, Board
from pipelines.dag.shard_actor import ShardActor
from pipelines.dag.stage_log import StageLog
from pipelines.dag.tracking import TrackingConfig


@pytest.fixture
def board():
    made = Board()
    made.begin(["download", "train_tokenizer"])
    return made


def counts(board):
    return {(name, *labels): value for (name, labels), value in board._counts.items()}


def gauges(board, name):
    return {labels: value for (found, labels), value in board.snapshot().items() if found == name}


def test_the_table_follows_the_rules_of_prometheus():
    for name, metric in TABLE.items():
        assert re.fullmatch(r"reptok_[a-z_]+", name) and metric.help and metric.unit, name
        assert not name.endswith("_total"), "Ray adds it"
        assert metric.exported.endswith("_total") == (metric.kind == "counter"), name
        assert set(metric.labels) <= {"stage", "reason", "state", "cause"}, "no label without a closed set"


def test_a_row_counts_once_under_its_fate(board):
    stats = {"rows_in": 100.0, "rows_out": 90.0, "dropped_no_caption": 10.0}
    stats |= {"failed_http_404": 3.0, "failed_http_410": 2.0, "failed_timeout": 1.0, "rows_reused": 5.0}
    board.rows("download", stats, size=4096, reasons=CLASSES)
    assert counts(board) == {
        ("reptok_rows_read", "download"): 100, ("reptok_rows_kept", "download"): 84,
        ("reptok_written_bytes", "download"): 4096,
        ("reptok_rows_dropped", "download", "http_4xx"): 5,
        ("reptok_rows_dropped", "download", "timeout"): 1,
        ("reptok_rows_dropped", "download", OTHER): 10,
    }  # fmt: skip


def test_strangers_cannot_make_series(board):
    for number in range(1000):
        board.rows(f"stage-{number}", {"rows_in": 1, f"dropped_word{number}": 1}, reasons=CLASSES)
        board.rows("download", {f"failed_http_{number}": 1}, reasons=CLASSES)
    reasons = {labels[1] for (name, labels) in board._counts if name == "reptok_rows_dropped"}
    assert reasons == {OTHER} | {f"http_{digit}xx" for digit in range(1, 6)}
    assert {labels[0] for _, labels in board._counts} == {OTHER, "download"}


def test_every_word_of_the_download_has_a_series_of_its_own():
    assert set(REASONS) < CLASSES and len(CLASSES) < 50


def test_nothing_is_counted_as_zero(board):
    """Ray refuses it, and the shard would fail."""
    board.rows("download", {"rows_in": 0.0, "rows_out": 0.0, "dropped_a": 0.0})
    board.curves("download", {"train/skipped": 0.0, "train/loss": 1.0}, 1)
    assert counts(board) == {}


def test_a_stage_is_in_one_state_and_its_figures_end_with_it(board):
    board.state("train_tokenizer", "running")
    board.progress("train_tokenizer", 5, 10)
    board.curves("train_tokenizer", {"train/loss": 0.5, "speed/mfu": 0.4, "other": 1.0}, 5)
    assert gauges(board, "reptok_stage_state")["train_tokenizer", "running"] == 1
    assert gauges(board, "reptok_training_step") == {("train_tokenizer",): 5}
    assert gauges(board, "reptok_progress_age_seconds").keys() == {("train_tokenizer",)}
    board.state("train_tokenizer", "done")
    states = {state: value for (stage, state), value in gauges(board, "reptok_stage_state").items()
              if stage == "train_tokenizer"}  # fmt: skip
    assert states == {state: float(state == "done") for state in STATES}
    assert {name for name, _ in board.snapshot()} == {"reptok_stage_state"}


def test_the_age_is_that_of_the_last_step_further(board, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: clock[0])
    board.state("download", "running")
    clock[0] = 110.0
    board.progress("download", 0, 10)
    clock[0] = 130.0
    board.progress("download", 0, 10)  # told again, and no further
    assert gauges(board, "reptok_progress_age_seconds") == {("download",): 20.0}
    board.progress("download", 1, 10)
    assert gauges(board, "reptok_progress_age_seconds") == {("download",): 0.0}


def test_what_is_not_finite_is_counted_and_the_last_finite_loss_stays(board):
    board.curves("train_tokenizer", {"train/loss": 0.5}, 1)
    board.curves("train_tokenizer", {"train/loss": math.nan, "val/loss": math.inf, "train/skipped": 3.0}, 2)
    assert counts(board) == {("reptok_nonfinite", "train_tokenizer"): 5}
    assert gauges(board, "reptok_training_loss") == {("train_tokenizer",): 0.5}
    assert gauges(board, "reptok_training_step") == {("train_tokenizer",): 2}


def test_a_run_fills_the_board(root, monkeypatch):
    """The hooks: stages' states, rows of stages without shards, records that MLflow did not get."""
    from toy_stages import Toy

    board = Board()
    for module in (
        runner,
        sys.modules["pipelines.dag.stage_log"],
        sys.modules["pipelines.dag.mlflow_writer"],
    ):
        monkeypatch.setattr(module, "board", board)

    class Rows(Toy):
        def run(self, inputs, out):
            out.log.progress(2, 4)
            assert gauges(board, "reptok_stage_state")[self.name, "running"] == 1
            return {**super().run(inputs, out), "rows_in": 7.0, "rows_out": 7.0}

    def fail():
        raise RuntimeError("no")

    stages = [Rows("a"), Toy("b", ("a_out",), action=fail), Toy("c", ("b_out",))]
    runner.run(stages, root=root, tracking=TrackingConfig(uri="http://127.0.0.1:9"))
    states = gauges(board, "reptok_stage_state")
    now = {key for key, value in states.items() if value}
    assert now == {("a", "done"), ("b", "failed"), ("c", "blocked")}
    found = counts(board)
    assert found["reptok_rows_read", "a"] == found["reptok_rows_kept", "a"] == 7
    assert found["reptok_tracking_dropped", "server_away"] > 0
    runner.run([Rows("a")], root=root, tracking=TrackingConfig(enabled=False))
    assert board._thread is None, "nothing ticks where no Ray is"


def test_shards_are_counted_as_they_are_done_and_not_again(tmp_path, monkeypatch):
    from toy_shards import Shout, shards

    from pipelines.dag.shards import map_shards
    from pipelines.dag.workspace import Workspace

    @dataclass(frozen=True)
    class Explained(Shout):
        reasons: ClassVar[frozenset[str]] = frozenset({"empty"})

    board = Board()
    board.begin(["shout"])
    monkeypatch.setattr(sys.modules["pipelines.dag.stage_log"], "board", board)
    monkeypatch.setattr("pipelines.dag.shards._stream", in_this_process)
    for _ in range(2):
        out = Workspace(str(tmp_path), log=StageLog("shout"))
        map_shards(shards(2), Explained(str(tmp_path / "journal")), out)
    size = sum(path.stat().st_size for path in tmp_path.glob("*.txt"))
    assert counts(board) == {
        ("reptok_rows_read", "shout"): 20, ("reptok_rows_kept", "shout"): 16,
        ("reptok_rows_dropped", "shout", "empty"): 4, ("reptok_written_bytes", "shout"): size,
    }  # fmt: skip


def in_this_process(shards, job, out, resources):
    actor = ShardActor(job, out)
    for shard in shards:
        row = actor({"shard": json.dumps(asdict(shard))})
        yield row["index"], json.loads(row["record"]), row["failure"]
