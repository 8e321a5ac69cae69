"""200 random kills of driver, workers and raylet: the published bytes are those of an undisturbed run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_200_random_kills():
    script = Path(__file__).with_name("random_kills.py")
    done = subprocess.run([sys.executable, str(script), "200"], capture_output=True, text=True, timeout=3500)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert sum(result["kills"].values()) >= 200 and set(result["kills"]) == {"driver", "worker", "raylet"}
    assert result["faults"] == []
