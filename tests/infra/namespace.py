"""A head of Ray, alone in a network namespace, for tests that talk to a real one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]


def allowed() -> bool:
    """Whether this user may make one (root)."""
    unshare = shutil.which("unshare")
    return bool(unshare) and subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0


def run(script: str, home: Path, *, seconds: float, mode: str = "token") -> subprocess.CompletedProcess[str]:
    """Run a bash script in a namespace of its own; all its processes end with it.

    It finds `start_head [OPTION...]` (which waits until the head takes jobs), `$BIN`, `$PYTHON`, `$HOME`,
    which has a short name for the paths of Ray's sockets, and Ray in the given authentication mode.
    """
    functions = """
        ip link set lo up
        HEALTH=http://127.0.0.1:8265/api/gcs_healthz
        start_head() {
            for _ in 1 2 3; do  # a busy machine takes longer than the minute that Ray allows itself
                $BIN/ray start --head --block --num-cpus=2 --temp-dir=$HOME/ray --metrics-export-port=8080 \\
                    --disable-usage-stats "$@" > $HOME/head.log 2>&1 &
                HEAD=$!
                while kill -0 $HEAD 2> /dev/null; do
                    $PYTHON -c 'import urllib.request as r; r.urlopen("'$HEALTH'")' 2> /dev/null &&
                        grep -q "Ray runtime started" $HOME/head.log && sleep 3 && kill -0 $HEAD && return
                    sleep 1
                done
            done
            echo "the head did not start"; cat $HOME/head.log; exit 1
        }
        [ $RAY_AUTH_MODE = token ] && $BIN/ray get-auth-token --generate > /dev/null 2>&1
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_"))}
    isolated = ["unshare", "-n", "--fork", "--pid", "--kill-child", "--mount-proc"]
    return subprocess.run(
        [*isolated, "bash", "-c", functions + script],
        env=kept | {
            "HOME": str(home), "BIN": str(BIN), "PYTHON": sys.executable, "RAY_AUTH_MODE": mode,
            "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1",
            "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:8265",  # and not a compose head of this machine
        },
        cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
