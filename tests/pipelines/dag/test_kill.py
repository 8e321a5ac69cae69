"""Killed anywhere, two at once, interrupted: what is published is whole, and the next run completes it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from toy_stages import Toy, contents, run

HERE = Path(__file__).parent


@pytest.fixture
def memory_path(tmp_path):
    """A folder in memory where there is one: thousands of syncs take minutes on a slow disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def start(*arguments, script="toy_stages.py"):
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise TimeoutError(path)


@pytest.mark.parametrize("scenario", ["fresh", "force", pytest.param("twice", marks=pytest.mark.slow)])
def test_kill_9_at_every_file_system_call(memory_path, scenario):
    process = start(memory_path, scenario, script="kill_everywhere.py")
    output, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["points"] > 40
    assert result["faults"] == []


def test_two_processes_make_an_artifact_once(tmp_path, root):
    journal = tmp_path / "journal"
    first = start(root, journal, 1)
    wait_for(journal)
    second = start(root, journal, 1)
    outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert journal.read_text() == "ran\n"
    assert f"waiting for process {first.pid}" in outputs[1][0]


def test_the_lock_of_a_killed_process_does_not_bind(tmp_path, root):
    journal = tmp_path / "journal"
    killed = start(root, journal, 60)
    wait_for(journal)
    killed.kill()
    killed.wait()
    assert run([Toy("slow")], root) == {"slow": "resume"}
    clean = tmp_path / "clean"
    run([Toy("slow")], str(clean))
    assert contents(root) == contents(clean)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_says_so_and_leaves_nothing_trusted(tmp_path, root, number, status):
    journal = tmp_path / "journal"
    process = start(root, journal, 60)
    wait_for(journal)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "interrupted" in errors and "Traceback" not in errors
    assert not list(Path(root).rglob("manifest.json"))
    assert run([Toy("slow")], root) == {"slow": "resume"}
