"""The sbatch script under a real Slurm: slurmctld and two slurmd, each with a network of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import namespace
import pytest

HERE = Path(__file__).parent
REPOSITORY = namespace.REPOSITORY
SCRIPT = REPOSITORY / "infra" / "slurm" / "ray.sbatch"
JOB = """
export REPTOK_SHARED=$FOLDER/shared
id=$(sbatch --parsable --output=$FOLDER/job.log infra/slurm/ray.sbatch experiment=smoke until=caption \\
    root=$FOLDER/runs)
for number in $(seq 1000); do
    state=$(scontrol show job $id | grep -o 'JobState=[A-Z]*')
    if [ "$1" = preempted ] && [ ! -e $FOLDER/sent ] && grep -qs "select_urls: done" $FOLDER/job.log; then
        touch $FOLDER/sent
        for secret in $FOLDER/shared/*/token; do stat -c %a $secret; cp $secret $FOLDER/token; done
        scancel --batch --signal=USR1 $id
    fi
    [ -e $FOLDER/token ] && for pid in $(ps -eo pid=); do
        grep -qsaF -f $FOLDER/token /proc/$pid/cmdline && echo "token in a command line"
    done
    # A job that is requeued waits two minutes; the administrator need not.
    [ $state = JobState=PENDING ] && scontrol update JobId=$id StartTime=now > /dev/null 2>&1
    case $state in *COMPLETED | *FAILED | *CANCELLED | *TIMEOUT) break ;; esac
    sleep 1
done
scontrol show job $id
echo "left: $(ls $FOLDER/shared)"
"""


def test_shellcheck_finds_nothing():
    found = [SCRIPT, HERE / "cluster.sh"]
    subprocess.run([Path(namespace.BIN) / "shellcheck", *found], check=True, timeout=60)


def test_it_is_for_a_shared_machine():
    lines = [line for line in SCRIPT.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines)
    assert "symmetric-run" not in text and "ray stop" not in text and "pkill" not in text
    assert "umask 077" in text and text.index("umask 077") < text.index("/dev/urandom")
    assert text.index("RAY_AUTH_MODE=token") < text.index("start --head")


@pytest.mark.slow
@pytest.mark.skipif(not namespace.allowed(), reason="needs the right to make a network namespace (root)")
@pytest.mark.skipif(
    not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))),
    reason="Slurm is not installed (Debian: slurmctld slurmd slurm-client munge)",
)
@pytest.mark.parametrize("fate", ["undisturbed", "preempted"])
def test_two_nodes_run_the_workflow(home, fate):
    flags = ["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "SLURM_"))}
    done = subprocess.run(
        ["unshare", *flags, HERE / "cluster.sh", home, "bash", "-c", JOB, "job", fate],
        env=kept | {"FOLDER": str(home)}, cwd=REPOSITORY, capture_output=True, text=True, timeout=590,
    )  # fmt: skip
    log = (home / "job.log").read_text()
    told = done.stdout[-3000:] + done.stderr[-2000:] + log[-4000:]
    assert "JobState=COMPLETED" in done.stdout, told
    assert "caption: done in" in log and list((home / "runs" / "captions").glob("*/manifest.json")), told
    assert "joining the Ray cluster at 10.77.0.1:" in log, told
    assert "left: \n" in done.stdout, "the token goes with the job"
    assert "token in a command line" not in done.stdout
    if fate == "preempted":
        assert "Restarts=1" in done.stdout and "saving, then waiting" in log, told
        assert "600" in done.stdout.split(), "nobody else reads the token"
        assert "select_urls: skip (published)" in log, "what was finished was kept"
