"""A lock file is written into, so what is put in its place must not lead that writing elsewhere."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.dag.lock import locked
from pipelines.dag.writing import StorageError

TREASURE = "what somebody else wrote\n"


def linked(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def linked_twice(place: Path, victim: Path) -> None:
    middle = victim.with_name("middle")
    middle.symlink_to(victim)
    place.symlink_to(middle)


def hard_linked(place: Path, victim: Path) -> None:
    place.hardlink_to(victim)


def dangling(place: Path, victim: Path) -> None:
    place.symlink_to(victim.with_name("made-by-following"))


def fifo(place: Path, victim: Path) -> None:
    os.mkfifo(place)


def folder(place: Path, victim: Path) -> None:
    place.mkdir()


def device(place: Path, victim: Path) -> None:
    place.symlink_to("/dev/zero")


def listening(place: Path, victim: Path) -> None:
    os.chdir(place.parent)  # the address of such a socket has 107 bytes at most
    socket.socket(socket.AF_UNIX).bind(place.name)


def linked_folder(place: Path, victim: Path) -> None:
    place.parent.rmdir()
    (victim.parent / "elsewhere").mkdir()
    place.parent.symlink_to(victim.parent / "elsewhere")


def file_as_folder(place: Path, victim: Path) -> None:
    place.parent.rmdir()
    place.parent.write_text("")


@pytest.mark.parametrize(
    "lay",
    [
        linked,
        linked_twice,
        hard_linked,
        dangling,
        fifo,
        folder,
        device,
        listening,
        linked_folder,
        file_as_folder,
    ],
)
@pytest.mark.timeout(20)
def test_what_is_no_plain_file_is_refused_and_untouched(
    lay: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text(TREASURE)
    place = tmp_path / "runs" / "_locks" / "images-0123"
    place.parent.mkdir(parents=True)
    lay(place, victim)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    refused = pytest.raises(StorageError, match="is no lock file")
    with refused as caught, locked(str(tmp_path / "runs"), "images-0123"):
        pass
    assert str(place) in str(caught.value)
    assert victim.read_text() == TREASURE
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_lock_says_who_holds_it_and_keeps_one_out(tmp_path: Path) -> None:
    root = str(tmp_path)
    inside, leave = multiprocessing.Event(), multiprocessing.Event()
    holder = multiprocessing.Process(target=_hold, args=(root, inside, leave))
    holder.start()
    assert inside.wait(30)
    assert f"process {holder.pid} on" in (tmp_path / "_locks" / "x").read_text()
    begun = time.monotonic()
    leave.set()
    with locked(root, "x"):
        assert not holder.is_alive() or time.monotonic() - begun < 10
        assert (tmp_path / "_locks" / "x").read_text().startswith(f"process {os.getpid()} on")
    holder.join()


def test_whatever_stands_in_a_held_lock_it_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "_locks").mkdir()
    place = tmp_path / "_locks" / "x"
    for content in (b"\xff\xfe\x1b[31mred", b"\x1b]0;title\x07", b"\0" * 5000, b"\xe2\x80\xae" * 300):
        place.write_bytes(content)
        with place.open("rb+") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            threading.Timer(0.3, fcntl.flock, (other, fcntl.LOCK_UN)).start()
            with locked(str(tmp_path), "x"):
                assert place.read_text().startswith(f"process {os.getpid()} on")
        said = capsys.readouterr().out
        assert "waiting for" in said and all(c.isprintable() or c == "\n" for c in said)


def _hold(
    root: str, inside: multiprocessing.synchronize.Event, leave: multiprocessing.synchronize.Event
) -> None:
    with locked(root, "x"):
        inside.set()
        leave.wait(30)
