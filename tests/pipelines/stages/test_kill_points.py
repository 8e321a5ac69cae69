"""Stages killed at named points: what is trusted is whole, and the next run ends with the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("script", "points"), [("kill_points", 80), ("kill_scoring", 65)])
def test_stages_killed_at_named_points(script, points, tmp_path, tiny_models):
    file = Path(__file__).with_name(f"{script}.py")
    done = subprocess.run(
        [sys.executable, str(file), str(tmp_path), str(tiny_models)],
        env={**os.environ, "PYTHONPATH": str(file.parents[1] / "dag")},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(set(result["points"])) == points
    assert result["faults"] == []
