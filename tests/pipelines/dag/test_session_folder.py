"""Where a local Ray's session lies, whatever the temporary folder is like, and what becomes of it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.dag import session_folder
from pipelines.dag.session_folder import PREFIX, SOCKET_BYTES, SessionFolder
from pipelines.dag.writing import StorageError

SOCKET = "session_2026-11-24_19-21-59_123456_4194304/sockets/plasma_store"


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder with a short path, which pytest's own is not."""
    place = Path("/tmp", f"s{os.getpid()}")
    place.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(place))
    yield place
    subprocess.run(["rm", "-rf", str(place)], check=True)


def place_of(folder: SessionFolder) -> Path:
    return folder.path.parent.parent


def test_it_is_private_and_goes(short: Path) -> None:
    folder = SessionFolder()
    assert place_of(folder) == short
    assert stat.S_IMODE(folder.path.parent.stat().st_mode) == 0o700
    assert len(os.fsencode(folder.path / SOCKET)) <= SOCKET_BYTES
    (folder.path / "log").write_text("x")
    folder.remove()
    assert list(short.iterdir()) == []


@pytest.mark.parametrize("length", [30, 60, 107, 200])
def test_a_long_temporary_folder_is_passed_over(
    length: int, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = short / ("x" * (length - len(str(short)) - 1))
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    folder = SessionFolder()
    assert place_of(folder) in (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
    assert len(os.fsencode(folder.path / SOCKET)) <= SOCKET_BYTES
    folder.remove()


def test_so_is_one_of_few_letters_and_many_bytes(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = short / "дддддддддд"
    wide.mkdir()
    monkeypatch.setenv("TMPDIR", str(wide))
    folder = SessionFolder()
    assert place_of(folder) != wide
    folder.remove()


@pytest.mark.parametrize("what", ["missing", "a file", "renamable by all", "below one", "linked"])
def test_so_is_one_that_will_not_do(what: str, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = short / "t"
    if what == "a file":
        place.write_text("")
    elif what == "renamable by all":
        place.mkdir()
        place.chmod(0o777)
    elif what == "below one":
        place.mkdir(mode=0o700)
        short.chmod(0o777)
    elif what == "linked":
        (short / "x" / "long-enough-to-matter").mkdir(parents=True)
        place.symlink_to(short / "x" / "long-enough-to-matter")
    monkeypatch.setenv("TMPDIR", str(place))
    folder = SessionFolder()
    assert place_of(folder) in (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
    folder.remove()


def test_one_that_cannot_be_written_is_passed_over(short: Path) -> None:
    """In a process of another user: root writes everywhere."""
    if os.getuid() != 0:
        pytest.skip("only root becomes another user")
    short.chmod(0o755)
    program = (
        "import os, sys\nfrom pipelines.dag.session_folder import SessionFolder\n"
        "import tempfile, random\ntempfile._get_candidate_names()\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "folder = SessionFolder(); print(folder.path); folder.remove()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("/tmp/reptok", "/var/tmp/reptok", "/dev/shm/reptok"))


def test_without_any_place_the_sentence_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_folder, "_places", lambda: iter(()))
    with pytest.raises(StorageError, match="set TMPDIR"):
        SessionFolder()


def test_what_a_killed_one_left_is_removed_and_a_living_one_stays(short: Path) -> None:
    program = (
        "import os, sys\nfrom pipelines.dag.session_folder import SessionFolder\n"
        "folder = SessionFolder(); (folder.path / 'log').write_text('x'); print(folder.path, flush=True)\n"
        "sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    first, second = (subprocess.Popen([sys.executable, "-c", program], **pipes) for _ in range(2))
    places = [Path(process.stdout.readline().strip()) for process in (first, second)]
    assert all((place / "log").exists() for place in places)
    first.kill()
    first.wait()
    (short / f"{PREFIX}of-nobody-in-particular").write_text("a file")
    (short / f"{PREFIX}linked").symlink_to(places[1])
    SessionFolder().remove()
    assert [place.exists() for place in places] == [False, True]
    second.communicate()
