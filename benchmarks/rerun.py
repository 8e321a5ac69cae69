"""C3: the second run of a finished workflow, which has nothing to do and must find that out at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.compare import Comparison
from benchmarks.stub_stage import StubConfig, StubStage
from pipelines.dag.planner import plan

SHARDS, STAGES, PAIRS = 1000, 10, 5
GOAL_FIXED, GOAL_PER_SHARD = 1.0, 0.0003
PROGRAM = """
import json, resource, sys
from benchmarks.rerun import run_again
actions = run_again(sys.argv[1], int(sys.argv[2]))
used = resource.getrusage(resource.RUSAGE_SELF)
loaded = [name for name in ("ray", "mlflow", "torch") if name in sys.modules]
print(json.dumps([used.ru_utime + used.ru_stime, sorted(set(actions)), loaded]))
"""


def run() -> Comparison:
    """Whole processes, interpreter and imports included: ten stages of 1,000 shards against ten of one."""
    with tempfile.TemporaryDirectory() as folder:
        for shards in (1, SHARDS):
            publish(f"{folder}/{shards}", shards)
        times = [(_seconds(folder, SHARDS), _seconds(folder, 1)) for _ in range(PAIRS)]
    many, one = (median(side) for side in zip(*times, strict=True))
    per_shard = median(a - b for a, b in times) / SHARDS
    goal = GOAL_FIXED + GOAL_PER_SHARD * SHARDS
    return Comparison(
        name=f"C3 second run of a finished workflow, {STAGES} stages of {SHARDS:,} shards",
        ours=many,
        peer=f"goal: {GOAL_FIXED:.0f} s + {1e3 * GOAL_PER_SHARD} ms a shard",
        theirs=goal,
        checked=f"{one:.2f} s + {1e3 * per_shard:.3f} ms a shard; Ray, MLflow and torch were not loaded",
        ratio=goal / many,
    )


def publish(root: str, shards: int) -> None:
    """Write the manifests that a finished workflow leaves; a second run reads nothing else."""
    for planned in plan(stages(shards), root):
        files = {
            f"{split}-{shard:05d}.{kind}": {"size": 12345678, "sha256": "0" * 64}
            for shard in range(shards)
            for split in ("train", "val")
            for kind in ("tar", "parquet")
        }
        manifest = {
            "stage": planned.stage.name, "version": 1, "config": {}, "stats": {"rows_in": 1.0},
            "files": files,
            "inputs": {kind: artifact.fingerprint for kind, artifact in planned.inputs.items()},
            "input_digests": {kind: artifact.digest for kind, artifact in planned.inputs.items()},
            "digest": "0" * 64,
        }  # fmt: skip
        planned.artifact.folder.write_bytes("manifest.json", json.dumps(manifest, indent=1).encode())


def stages(shards: int) -> list[StubStage]:
    """A chain of stubs."""
    return [StubStage(StubConfig(shards=shards), number) for number in range(STAGES)]


def run_again(root: str, shards: int) -> list[str]:
    """Run the workflow and return what became of its stages."""
    from pipelines.dag import runner

    return [result.action for result in runner.run(stages(shards), root=root)]


def _seconds(folder: str, shards: int) -> float:
    command = [sys.executable, "-c", PROGRAM, f"{folder}/{shards}", str(shards)]
    here = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": here}
    )
    seconds, actions, loaded = json.loads(done.stdout.splitlines()[-1])
    if actions != ["skip"] or loaded:
        raise RuntimeError(f"a finished workflow ran {actions} and loaded {loaded}")
    return float(seconds)
