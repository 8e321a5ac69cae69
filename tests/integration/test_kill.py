"""kill -9 in each stage, and of whatever works on a chain: the bytes are those of an undisturbed run."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import psutil
import pytest

from tests.integration.conftest import DATA_ARTIFACTS, manifest, wait_for
from tests.integration.test_workflow import STAGES

pytestmark = pytest.mark.slow

CHAIN = ("download", "caption", "shard", "encode_latents")
KILLS, PEACEFUL_ATTEMPT = 20, 6
WORDS = {"worker": "ray::Map", "raylet": "raylet"}
"""In the command of a process of such a kind; with its raylet all workers of a machine end."""


@pytest.mark.timeout(3000)
def test_killed_in_every_stage(smoke, started, tmp_path):
    undisturbed = [json.loads(path.read_text()) for path in smoke.glob("*/*/manifest.json")]
    seconds = {published["stage"]: published["seconds"] for published in undisturbed}
    root, draw, killed = tmp_path / "root", random.Random(0), []
    for stage in STAGES:
        process, log = started("run_all.py", "experiment=smoke", f"root={root}", f"until={stage}")
        if wait_for(process, log, rf"{stage}: (run|resume) \("):
            time.sleep(draw.uniform(0.0, 0.5) * seconds[stage])
            if process.poll() is None and f"{stage}: done" not in log.read_text():
                killed.append(stage)
            process.send_signal(signal.SIGKILL)
        process.wait()
    process, log = started("run_all.py", "experiment=smoke", f"root={root}")
    assert process.wait() == 0, log.read_text()[-3000:]
    assert len(killed) >= len(STAGES) - 1, f"only {killed} were in the middle of their work"
    for kind in (*DATA_ARTIFACTS, "tokenizer", "tokens", "generator"):
        assert manifest(root, kind)["files"] == manifest(smoke, kind)["files"], kind


@pytest.mark.timeout(5400)
def test_20_random_kills_up_to_the_latents(smoke, started, tmp_path):
    undisturbed = [json.loads(path.read_text()) for path in smoke.glob("*/*/manifest.json")]
    seconds = next(published["seconds"] for published in undisturbed if published["stage"] == CHAIN[-1])
    draw, counts, runs = random.Random(1), Counter(), 0
    while counts.total() < KILLS:
        runs += 1
        root = tmp_path / f"root-{runs}"
        for attempt in range(PEACEFUL_ATTEMPT + 1):
            process, log = started("run_all.py", "experiment=smoke", f"root={root}", "until=encode_latents")
            if wait_for(process, log, "shard by shard") and attempt < PEACEFUL_ATTEMPT:
                strike(process, draw, counts, seconds)
            if process.wait() == 0:
                break
        assert process.returncode == 0, log.read_text()[-3000:]
        for kind in DATA_ARTIFACTS:
            assert manifest(root, kind)["files"] == manifest(smoke, kind)["files"], (runs, kind)
        assert not [*root.glob("*/*/_scratch"), *root.rglob("*.part")]
        print(f"{dict(counts)} in {runs} runs", file=sys.stderr, flush=True)
    assert set(counts) == {"driver", *WORDS}


def strike(process: subprocess.Popen[str], draw: random.Random, counts: Counter[str], seconds: float) -> None:
    """Kill two processes of a run, each of a kind and at a moment that are drawn, where there is one then.

    The moments lie in the time that a chain takes, a good part of which Ray needs to start.
    """
    for _ in range(2):
        with suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0.0, seconds))
        kind = draw.choice(("driver", "worker", "worker", "raylet"))
        with suppress(psutil.Error):
            victims = [driver := psutil.Process(process.pid)]
            if word := WORDS.get(kind):
                victims = [p for p in driver.children(recursive=True) if word in (p.cmdline() or [""])[0]]
            if process.poll() is None and victims:
                draw.choice(victims).kill()
                counts[kind] += 1
