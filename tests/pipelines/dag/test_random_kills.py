"""Random kills of driver, workers and raylet: the published bytes are those of an undisturbed run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KINDS = {"driver", "worker", "raylet"}


def kill(kills, seed, kind, seconds):
    script = Path(__file__).with_name("random_kills.py")
    command = [sys.executable, str(script), str(kills), str(seed), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert sum(result["kills"].values()) >= kills and result["faults"] == []
    return set(result["kills"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_200_random_kills_of_a_stage():
    assert kill(200, 0, "words", 3500) == KINDS


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_100_random_kills_of_a_chain():
    assert kill(100, 1, "chain", 3500) == KINDS
