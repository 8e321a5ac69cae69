"""One of two machines is bad: the shards go to the other, and the bad one costs a few."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "fixtures" / "bad_node.py"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize(("kind", "most_tried"), [("setup", 0), ("shards", 12)])
def test_a_bad_machine_does_not_eat_the_queue(kind, most_tried, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kind, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith('{"stats'))
    found = json.loads(line)
    print(found)
    assert found["stats"] == {"rows_in": 60, "rows_out": 60}
    assert 1 <= found["setups"] <= 8  # three, and those that were on their way
    assert found["tried"] <= most_tried  # three of each of three workers, and what was in flight
