"""Data stages killed at named points: what is trusted is whole, and the next run ends with the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_data_stages_killed_at_named_points(tmp_path, tiny_models):
    script = Path(__file__).with_name("kill_points.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(tiny_models)],
        env={**os.environ, "PYTHONPATH": str(script.parents[1] / "dag")},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(set(result["points"])) == 80
    assert result["faults"] == []
