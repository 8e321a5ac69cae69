"""Secrets planted wherever a user could put them are afterwards in no file, no output and no process list."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines import dry_run, plan, purge, run_all, ui
from pipelines.dag import verify

REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = "pLaNtEd0123456789"
KEYS = ("root", "tracking.uri", "data.select_urls.opt_out", "data.download.fetch.contact", "cluster.address")
URLS = (
    f"https://user:{SECRET}@example.org/x",
    f"s3://AKIAEXAMPLE:{SECRET}@bucket/x",
    f"https://bucket.example.org/x?X-Amz-Signature={SECRET}",
    f"postgresql://mlflow:{SECRET}@db/mlflow",
)


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def nothing_in(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert SECRET not in str(path)
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def refused(command: object, arguments: list[str], capsys: pytest.CaptureFixture[str], place: Path) -> None:
    assert command(arguments) == 2  # type: ignore[operator]
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert "credentials" in said.err and "***" in said.err and said.err.count("\n") == 1
    nothing_in(place)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("url", URLS)
def test_a_configuration_that_holds_one_is_refused(
    key: str, url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    refused(run_all.main, [f"{key}={url}"], capsys, tmp_path)


@pytest.mark.parametrize("command", [plan.main, dry_run.main, run_all.main])
def test_so_is_one_in_a_list_and_by_way_of_a_reference(
    command: object, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(command, [f"data.select_urls.sources=['a.parquet', '{URLS[0]}']"], capsys, tmp_path)
    monkeypatch.setenv("MY_URL", URLS[1])
    refused(command, ["root=${oc.env:MY_URL}"], capsys, tmp_path)


@pytest.mark.parametrize(
    "wrong", [URLS[1], f"no_such.key={URLS[0]}", f"data.image_size={URLS[2]}", f"encoder={URLS[0]}"]
)
def test_a_wrong_argument_is_not_repeated_with_it(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main([wrong]) == 2
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err and said.err.startswith("error: ")


def test_purge_does_not_repeat_one_either(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("theirs.test\n")
    for arguments in (
        [f"root={URLS[1]}", "opt_out=list.txt"],
        [f"root={tmp_path}", f"opt_out={URLS[0]}"],
        [f"root={tmp_path}", "opt_out=list.txt", f"tracking.uri={URLS[3]}"],
    ):
        purge.main(arguments)
        said = capsys.readouterr()
        assert SECRET not in said.out + said.err


@pytest.mark.parametrize(
    "root",
    [
        f"s3://AKIAEXAMPLE:{SECRET[:5]}/{SECRET}@bucket/x",
        f"https://127.0.0.1:1/x?X-Amz-Signature={SECRET}",
        f"http://user:{SECRET}@127.0.0.1:1/x",
    ],
)
def test_a_store_whose_address_holds_one_is_refused_by_every_command(
    root: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("theirs.test\n")
    named = f"root={root}"
    for command, arguments in (
        (verify.main, [root]),
        (ui.main, [named]),
        (purge.main, [named, "opt_out=list.txt"]),
    ):
        assert command(arguments) == 2
        said = capsys.readouterr()
        assert "holds no credentials" in said.err and SECRET[:5] not in said.out + said.err


@pytest.mark.slow
def test_a_run_with_secrets_in_its_environment_leaves_them_nowhere(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"http://user:{SECRET}@127.0.0.1:1/?token={SECRET}",
        "MLFLOW_TRACKING_PASSWORD": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"https://user:{SECRET}@127.0.0.1:1",
        "HTTPS_PROXY": f"http://user:{SECRET}@127.0.0.1:1",
        "TMPDIR": str(tmp_path / "tmp"),
        "RAY_ADDRESS": "",
    }
    (tmp_path / "tmp").mkdir()
    command = [
        sys.executable,
        str(REPOSITORY / "pipelines/run_all.py"),
        f"root={tmp_path / 'runs'}",
        "until=download",
    ]
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(place.read_text(errors="replace"))
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    ended.set()
    watcher.join()
    assert done.returncode == 0, done.stderr[-2000:]
    assert "warning: MLflow at http://***@127.0.0.1:1/?token=***" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert any("run_all.py" in line for line in seen) and not [line for line in seen if SECRET in line]
    assert (tmp_path / "runs" / "images").is_dir()
    nothing_in(tmp_path)
