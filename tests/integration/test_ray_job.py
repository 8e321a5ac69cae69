"""The workflow as a Ray job: a head with token authentication, alone in a network namespace."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from tests.integration.conftest import REPOSITORY, artifact, environment

BIN = Path(sys.executable).parent
SCRIPT = textwrap.dedent(
    """
    ip link set lo up
    export HOME={home}
    cd {repository}
    {bin}/ray get-auth-token --generate > /dev/null
    {bin}/ray start --head --block --num-cpus=2 --temp-dir={home}/ray \\
        --disable-usage-stats > {home}/head.log 2>&1 &
    head=$!
    export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265  # and not a compose head of this machine
    make --no-print-directory -o .venv/.ready submit PY={python} \\
        ARGS="experiment=smoke until=caption root={home}/runs"
    echo "submit ended with $?"
    RAY_AUTH_MODE=disabled {bin}/ray job submit --address http://127.0.0.1:8265 \\
        -- python -c "print(6 * 7)" 2>&1
    echo "anonymous submit ended with $?"
    kill $head
    wait $head
    """
)


def _namespaces_allowed() -> bool:
    unshare = shutil.which("unshare")
    return bool(unshare) and subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0


@pytest.fixture
def home():
    """A folder with a short name: the paths of Ray's sockets must stay below 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="rt", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.skipif(not _namespaces_allowed(), reason="needs the right to make a network namespace (root)")
def test_submitted_with_a_token_and_refused_without(home):
    script = SCRIPT.format(home=home, repository=REPOSITORY, bin=BIN, python=sys.executable)
    done = subprocess.run(
        ["unshare", "-n", "--fork", "--pid", "--mount-proc", "bash", "-c", script],
        env={k: v for k, v in environment().items() if not k.startswith("RAY_")},
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert "\nsubmit ended with 0" in "\n" + output, output[-3000:]
    assert "caption: done in" in output, "the job's log was not followed"
    assert "anonymous submit ended with 1" in output and "Unauthorized" in output
    assert artifact(home / "runs", "captions")

    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home}/runs/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {"select_urls", "download", "caption"} <= {run.data.tags["mlflow.runName"] for run in runs}
