"""Run the real program in processes of its own, as a user does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DATA_ARTIFACTS = ("web", "urls", "images", "captions", "dataset", "latents")
"""What does not come out of a training, in the order of the workflow."""

Program = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """Two threads are all there is, and a running cluster is none of ours."""
    foreign = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    return {k: v for k, v in os.environ.items() if k not in foreign} | {"PYTHONUNBUFFERED": "1"}


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(REPOSITORY / "pipelines" / script), *arguments]


@pytest.fixture(scope="session")
def program() -> Program:
    """`program("run_all.py", "experiment=smoke", ...)` runs a script from the repository's root."""

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(script, *arguments), cwd=REPOSITORY, env=environment(), capture_output=True, text=True
        )

    return run


@pytest.fixture(scope="session")
def smoke(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of an undisturbed run of the smallest workflow.

    Where it has a choice, a stage has one worker: each takes longer to start than to do its share.
    """
    root = tmp_path_factory.mktemp("smoke")
    one = [f"{stage}.workers.workers=1" for stage in ("captioner", "data.shard", "encode")]
    done = program("run_all.py", "experiment=smoke", f"root={root}", *one)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (root / "output.txt").write_text(done.stdout)
    return root


def artifact(root: Path, kind: str) -> Path:
    """The one published folder of a kind."""
    (manifest,) = (root / kind).glob("*/manifest.json")
    return manifest.parent


def manifest(root: Path, kind: str) -> dict:
    return json.loads((artifact(root, kind) / "manifest.json").read_text())


def wait_for(process: subprocess.Popen[str], log: Path, pattern: str, seconds: float = 300) -> bool:
    """Wait until the process has printed what matches `pattern`; False if it ended before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if re.search(pattern, log.read_text()):
            return True
        if process.poll() is not None:
            return bool(re.search(pattern, log.read_text()))
        time.sleep(0.05)
    raise AssertionError(f"{pattern!r} was not printed within {seconds} s:\n{log.read_text()[-2000:]}")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], Path]]]:
    """Start a script in the background; what still runs at the end of the test is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: str) -> tuple[subprocess.Popen[str], Path]:
        log = tmp_path / f"log-{len(processes)}.txt"
        process = subprocess.Popen(
            command(script, *arguments), cwd=REPOSITORY, env=environment(), text=True,
            stdout=log.open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        processes.append(process)
        return process, log

    yield start
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
