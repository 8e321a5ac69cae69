"""An unforeseen exception is its row's, up to a few; ours are never a row's."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from pipelines.dag import shards
from pipelines.dag.rows import RowErrors, RowsFailed, is_internal
from pipelines.dag.shard_actor import ShardActor
from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.workspace import Workspace


class Unheard(Exception):
    pass


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(("rows", "borne"), [(1, 3), (10, 3), (399, 3), (400, 4), (10_000, 100)])
def test_few_rows_may_fail_unforeseen_and_one_more_fails_the_shard(rows: int, borne: int) -> None:
    errors = RowErrors("urls-00007", rows)
    for number in range(borne):
        assert errors.reason(f"row-{number}", raised(Unheard("why"))) == "internal_Unheard"
    with pytest.raises(
        RowsFailed, match=rf"more than {borne} of the {rows} .* urls-00007 .*'row-0': Unheard: 'why'"
    ):
        errors.reason("the last", raised(ValueError("another")))


def test_a_row_is_logged_with_its_name_and_traceback_and_cannot_forge_a_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    hostile = "\n\x1b[2J" + "x" * 5000
    RowErrors("s", 10).reason("http://a/" + hostile, raised(Unheard(hostile)))
    log = capfd.readouterr().err
    assert r"'http://a/\n\x1b[2Jxxx" in log and r"Unheard: '\n\x1b[2Jxxx" in log and "test_rows.py" in log
    assert "\x1b" not in log and len(log) < 2000


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ModuleNotFoundError("no PIL"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
)
def test_what_is_ours_is_raised_as_it_is_with_the_row_beside_it(error: Exception) -> None:
    errors = RowErrors("urls-00007", 1000)
    with pytest.raises(type(error)) as caught:
        errors.reason("http://a/b.jpg", raised(error))
    assert caught.value is error and caught.value.__notes__ == ["at row 'http://a/b.jpg' of urls-00007"]
    assert not errors.found


def test_a_connection_that_is_refused_is_the_rows() -> None:
    assert RowErrors("s", 9).reason("r", raised(ConnectionRefusedError(errno.ECONNREFUSED, ""))) == (
        "internal_ConnectionRefusedError"
    )


@pytest.mark.parametrize(
    ("word", "internal"),
    [("internal_ValueError", True), ("internal_", False), ("internal_a b", False), ("http_404", False)],
)
def test_the_words_can_be_told_from_others(word: str, internal: bool) -> None:
    assert is_internal(word) is internal


class Careless(ShardJob):
    def __call__(self, shard: Shard, out: Workspace) -> dict[str, float]:
        RowErrors(shard.name, shard.rows).reason("http://a/b.jpg", raised(MemoryError("no room")))
        return {}


def test_the_message_of_a_failed_shard_names_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "RETRY_SECONDS", 0.0)
    actor = ShardActor(Careless(), Workspace(str(tmp_path / "images" / "0")))
    failure = actor({"shard": json.dumps(asdict(Shard(3, "urls-00003", 5, {})))})["failure"]
    assert failure.startswith("MemoryError: no room (test_rows.py:")
    assert failure.endswith("at row 'http://a/b.jpg' of urls-00003")
