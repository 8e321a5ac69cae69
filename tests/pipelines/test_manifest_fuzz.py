"""Whatever stands in a manifest, verify, purge and plan name it in a sentence and go on with the others."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipelines import purge
from pipelines.dag import runner
from pipelines.dag.planner import plan
from pipelines.dag.stage import Stage
from pipelines.dag.tracking import TrackingConfig
from pipelines.dag.verify import main as verify_main
from pipelines.dag.verify import verify

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 5.0


class Making(Stage):
    """Writes a file from its inputs."""

    def __init__(self, output: str, inputs: tuple[str, ...] = ()) -> None:
        super().__init__({"size": 5, "nested": {"a": [1, 2.5, "x"]}})
        self.name, self.output, self.inputs = f"make_{output}", output, inputs  # type: ignore[misc]

    def run(self, inputs: Any, out: Any) -> dict[str, float]:
        out.write_bytes("deep/content.txt", " ".join(source.digest for source in inputs.values()).encode())
        return {"rows_in": 5.0, "rows_out": 5.0}


def stages() -> list[Stage]:
    return [Making("first"), Making("dataset", ("first",)), Making("model", ("dataset",)), Making("other")]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    runner.run(stages(), root=str(root), tracking=TrackingConfig(enabled=False))
    (tmp_path / "opt_out.txt").write_text("theirs.test\n")
    return root


def one(root: Path, kind: str) -> Path:
    return next((root / kind).glob("*/manifest.json"))


def told(line: str) -> None:
    """One line, which a terminal only prints."""
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", line) and "Traceback" not in line, line


def through_all(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, int]:
    """Verify, purge and plan, in this process; the exit statuses of the first two."""
    begun = time.monotonic()
    status = verify_main([str(root)])
    purged = purge.main([f"root={root}", f"opt_out={root.parent / 'opt_out.txt'}", "delete=true"])
    planned = plan(stages(), str(root))
    assert {p.stage.name for p in planned} == {"make_first", "make_dataset", "make_model", "make_other"}
    assert time.monotonic() - begun < SECONDS
    said = capsys.readouterr()
    for line in (said.out + said.err).splitlines():
        told(line)
    for p in planned:
        told(p.reason)
    assert status in (0, 1) and purged in (0, 1)
    return status, purged


def fuzz(root: Path, mutants: ModuleType, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    seed = random.randrange(2**32)
    with capsys.disabled():
        print(f" [manifests from seed {seed}]", end="")
    originals = {kind: one(root, kind).read_bytes() for kind in ("first", "dataset", "model")}
    for number in range(count):
        kind = random.Random(seed + number).choice(sorted(originals))
        data = mutants.mutant(originals[kind], seed + number)
        one(root, kind).write_bytes(data)
        try:
            status, _ = through_all(root, capsys)
            sound = not [line for line in verify(str(root)) if f"/{kind}/" in line]
            assert status == 0 if sound else status == 1
            assert not [line for line in verify(str(root)) if "/other/" in line]
        except BaseException as error:
            raise AssertionError(f"seed {seed}, mutant {number} of {kind}: {data[:2000]!r}") from error
        one(root, kind).write_bytes(originals[kind])
    assert verify(str(root)) == []


def test_some_mutants(
    store: Path, load_fixture: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    fuzz(store, load_fixture("manifest_mutants"), 150, capsys)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_two_thousand_mutants(
    store: Path, load_fixture: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    fuzz(store, load_fixture("manifest_mutants"), 2000, capsys)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_thirty_mutants_through_the_commands(
    store: Path, load_fixture: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(2**32)
    with capsys.disabled():
        print(f" [manifests from seed {seed}]", end="")
    original = one(store, "dataset").read_bytes()
    photographs = store / "photographs" / ("0" * 16)
    photographs.mkdir(parents=True)
    commands = [
        ["run_all.py", "verify=true", f"root={store}"],
        ["purge.py", f"root={store}", f"opt_out={store.parent / 'opt_out.txt'}", "delete=true"],
        ["plan.py", f"root={store}"],
    ]
    for number in range(30):
        data = load_fixture("manifest_mutants").mutant(original, seed + number)
        one(store, "dataset").write_bytes(data)
        (photographs / "manifest.json").write_bytes(data)
        for script, *arguments in commands:
            done = subprocess.run(
                [sys.executable, str(REPOSITORY / "pipelines" / script), *arguments],
                capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            assert done.returncode in (0, 1), (seed, number, script, data[:500], done.stderr[-800:])
            for line in (done.stdout + done.stderr).splitlines():
                told(line)


@pytest.mark.parametrize("lay", ["a fifo", "a folder", "a link to itself", "a device"])
@pytest.mark.timeout(60)
def test_manifests_that_are_no_files(lay: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = one(store, "dataset")
    place.unlink()
    if lay == "a fifo":
        os.mkfifo(place)
    elif lay == "a folder":
        place.mkdir()
    else:
        place.symlink_to(place if lay == "a link to itself" else "/dev/zero")
    through_all(store, capsys)


def test_a_damaged_manifest_heals_by_the_next_run(store: Path) -> None:
    place = one(store, "dataset")
    sound = place.read_bytes()
    place.write_text('{"files": {}, "digest": 5}')
    [again] = [p for p in plan(stages(), str(store)) if p.stage.name == "make_dataset"]
    assert (again.action, again.reason) == ("run", "its manifest is damaged")
    runner.run(stages(), root=str(store), tracking=TrackingConfig(enabled=False))
    assert verify(str(store)) == []
    assert b'"digest"' in place.read_bytes() and len(place.read_bytes()) > 0.9 * len(sound)
    assert list(store.glob("_superseded/dataset/*/manifest.json"))


def test_the_exit_status_tells(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert through_all(store, capsys) == (0, 0)
    one(store, "dataset").write_text("{")
    assert through_all(store, capsys) == (1, 1)
