"""Places that cannot be written end in a sentence that says what to do."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.dag import cluster, embedded_tracking
from pipelines.dag.lock import locked
from pipelines.dag.workspace import Workspace
from pipelines.dag.writing import StorageError

NEEDS_MOUNTS = shutil.which("unshare") is None or bool(
    subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode
)

WRITE = """
from pipelines.dag.workspace import Workspace
import sys
try:
    for number in range(200):
        Workspace("/mnt/store/a/b").write_bytes(f"{number}", b"x")
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(NEEDS_MOUNTS, reason="needs a mount namespace")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("nr_inodes=50", "the file system holds no more files (`df -i`)"),
        ("size=64k,nr_inodes=0", "no space is left on the disk"),
        ("ro", "the file system is read-only"),
    ],
)
def test_a_full_or_read_only_file_system(options: str, words: str) -> None:
    mount = f"mount -t tmpfs -o {options} none /mnt"
    command = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, WRITE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "cannot write /mnt/store" in done.stdout and words in done.stdout, done.stdout + done.stderr
    assert "root=" in done.stdout and "Traceback" not in done.stderr


PLACES = ["a file", "a pipe", "a link to nothing", "a link to itself", "below a file", "/proc"]


@pytest.mark.parametrize("lay", PLACES)
def test_a_root_that_is_no_folder_is_named_as_that(lay: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    if lay in ("a file", "below a file"):
        root.write_text("kept")
    elif lay == "a pipe":
        os.mkfifo(root)
    elif lay != "/proc":
        root.symlink_to("root" if lay == "a link to itself" else "nothing")
    asked = {"below a file": root / "runs", "/proc": Path("/proc/runs")}.get(lay, root)
    words = r"is no folder, nor can it become one.*root="
    with pytest.raises(StorageError, match=words), locked(str(asked), "x"):
        pass
    assert lay not in ("a file", "below a file") or root.read_text() == "kept"


@pytest.mark.parametrize("lay", ["a file for a folder", "a folder for a file", "a long name"])
def test_what_lies_in_the_way(lay: str, tmp_path: Path) -> None:
    name = "x"
    if lay == "a file for a folder":
        (tmp_path / "kind").write_text("")
    elif lay == "a folder for a file":
        (tmp_path / "kind" / "x").mkdir(parents=True)
    else:
        name = "n" * 250
    with pytest.raises(StorageError, match=r"cannot write .*root="):
        Workspace(str(tmp_path / "kind")).write_bytes(name, b"1")


@pytest.mark.parametrize("content", [b"no database at all, but a text of some length", b""])
def test_a_record_of_runs_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)
    if content:
        with pytest.raises(StorageError, match=r"cannot be used .*tracking=off"):
            embedded_tracking.relocate(str(tmp_path))
    else:
        embedded_tracking.relocate(str(tmp_path))


def record(place: Path, told: Path) -> None:
    with sqlite3.connect(place / "mlflow.db") as connection:
        connection.execute("CREATE TABLE experiments (artifact_location TEXT)")
        connection.execute("CREATE TABLE runs (artifact_uri TEXT)")
        connection.execute("INSERT INTO experiments VALUES (?)", (f"{told}/mlartifacts",))
        connection.execute("INSERT INTO runs VALUES (?)", (f"{told}/mlartifacts/abc/artifacts",))
        connection.execute("INSERT INTO runs VALUES (?)", (f"{told}-other/mlartifacts/abc/artifacts",))


def test_a_copied_record_leads_into_the_copy(tmp_path: Path) -> None:
    old, new = tmp_path / "it's old", tmp_path / "größe"
    new.mkdir()
    record(new, old)
    for _ in range(2):  # and stays so
        embedded_tracking.relocate(str(new))
        with sqlite3.connect(new / "mlflow.db") as connection:
            assert connection.execute("SELECT * FROM experiments").fetchall() == [(f"{new}/mlartifacts",)]
            assert connection.execute("SELECT * FROM runs").fetchall() == [
                (f"{new}/mlartifacts/abc/artifacts",), (f"{old}-other/mlartifacts/abc/artifacts",),
            ]  # fmt: skip


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_copy_whose_record_is_a_link_does_not_take_the_originals_runs(link: str, tmp_path: Path) -> None:
    """As `cp -rs`, `cp -al`, and a plain `cp -a` of a record that was a link, leave it."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    record(old, old)
    before = (old / "mlflow.db").read_bytes()
    getattr(new / "mlflow.db", link)(old / "mlflow.db")
    with pytest.raises(StorageError, match=r"is a link to the record of runs of .*old"):
        embedded_tracking.relocate(str(new))
    assert (old / "mlflow.db").read_bytes() == before
    embedded_tracking.relocate(str(old))


@pytest.mark.parametrize("value", [b"\xff/mlartifacts", 5, None, "", "s3://bucket/x", "mlflow-artifacts:/1"])
def test_places_that_are_no_folders_stay(value: object, tmp_path: Path) -> None:
    record(tmp_path, tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("INSERT INTO experiments VALUES (?)", (value,))
        before = connection.execute("SELECT * FROM experiments").fetchall()
    embedded_tracking.relocate(str(tmp_path))
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("SELECT * FROM experiments").fetchall() == before


@pytest.mark.parametrize("character", "?%")
def test_a_root_that_no_address_holds_is_refused(character: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another root="):
        embedded_tracking.uri(str(tmp_path / f"a{character}41"))


def test_without_shared_memory_blocks_lie_in_the_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cluster._shared_memory(tmp_path) == str(tmp_path)
    assert f"Ray's blocks lie in {tmp_path}" in capsys.readouterr().out
