"""Five workers, five drivers and five nodes die under Ray Train: the bytes are those of a quiet run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from tests.fixtures.killed_under_ray import BATCH, KILLS, LOG_EVERY, STEPS, kill_steps
from tests.fixtures.regression import ROWS

SCRIPT = Path(__file__).parents[2] / "fixtures" / "killed_under_ray.py"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def start(mode: str, root: Path) -> tuple[int, str]:
    foreign = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    command = [sys.executable, str(SCRIPT), mode, str(root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    root = tmp_path_factory.mktemp("quiet")
    status, output = start("nothing", root)
    assert status == 0, output
    return root


def weights(root: Path) -> bytes:
    (path,) = root.glob("numbers/*/weights.safetensors")
    return path.read_bytes()


def curve(root: Path) -> dict[int, float]:
    """The loss curve in the stage's only run; a step told twice must have been told the same."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("reptok").experiment_id
    (run,) = client.search_runs([experiment], "tags.stage = 'train_numbers'")
    found: dict[int, float] = {}
    for metric in client.get_metric_history(run.info.run_id, "train/loss"):
        assert found.setdefault(metric.step, metric.value) == metric.value
    return found


@pytest.mark.parametrize("mode", ["worker", "driver", "node"])
def test_killed_five_times(mode, quiet, tmp_path):
    status, output = start(mode, tmp_path)
    for _ in range(KILLS if mode == "driver" else 0):
        assert status == -signal.SIGKILL, output
        status, output = start(mode, tmp_path)
    assert status == 0, output
    killed = [int(path.name.rpartition("-")[2]) for path in sorted(tmp_path.glob("killed-*"))]
    assert killed == kill_steps(mode)
    assert weights(tmp_path) == weights(quiet)
    assert curve(tmp_path) == curve(quiet)
    check_order_and_curve(quiet)
    check_order_and_curve(tmp_path)


def test_with_half_of_the_nodes_an_elastic_training_goes_on(quiet, tmp_path):
    status, output = start("half", tmp_path)
    assert status == 0, output
    alone = [path for path in tmp_path.glob("read-*-0.json") if len(json.loads(path.read_text())) == BATCH]
    assert len(alone) == STEPS - kill_steps("half")[0]
    check_order_and_curve(tmp_path)
    ours, theirs = (load(weights(root)) for root in (tmp_path, quiet))
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-5) for name in theirs)


def check_order_and_curve(root: Path) -> None:
    """Every sample once per epoch, and a curve without a gap."""
    read = [sample for path in sorted(root.glob("read-*")) for sample in json.loads(path.read_text())]
    assert len(read) == STEPS * BATCH
    for epoch in range(0, STEPS * BATCH - ROWS, ROWS):
        assert sorted(read[epoch : epoch + ROWS]) == list(range(ROWS))
    assert sorted(curve(root)) == list(range(LOG_EVERY, STEPS + 1, LOG_EVERY))
