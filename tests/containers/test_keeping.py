"""What must not be lost: MLflow's runs when their database is, artifacts on a volume that fills up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.containers.conftest import Cluster, NewCluster, run, succeeded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
RUNS = (
    "from mlflow import MlflowClient; import json; c = MlflowClient();"
    "runs = [r for e in c.search_experiments() for r in c.search_runs([e.experiment_id])];"
    "print(json.dumps({r.info.run_id: [r.info.status, r.data.metrics, r.data.params, r.data.tags,"
    " sorted(f.path for f in c.list_artifacts(r.info.run_id))] for r in runs}, sort_keys=True))"
)


def runs(cluster: Cluster) -> dict[str, list]:
    return json.loads(cluster.shell("head", f'python -c "{RUNS}"'))


def test_the_runs_come_back_after_the_loss_of_database_and_files(new_cluster: NewCluster, tmp_path: Path):
    cluster = new_cluster()
    cluster.up()
    succeeded(cluster.submit("experiment=smoke", "until=caption"))
    before = runs(cluster)
    assert len(before) >= 5 and any(files for *_, files in before.values())
    options = {"cwd": cluster.clone, "env": cluster.environment}
    succeeded(run(["make", "backup", f"TO={tmp_path / 'backup'}"], **options))
    again = run(["make", "backup", f"TO={tmp_path / 'backup'}"], **options)
    assert again.returncode != 0 and "exists" in again.stderr
    secrets = [name for name, value in cluster.values().items() if holds(tmp_path / "backup", value)]
    assert secrets == []

    succeeded(cluster.compose("rm", "--stop", "--force", "mlflow", "postgres", "init"))
    for volume in ("mlflow", "postgres"):
        succeeded(run(["docker", "volume", "rm", f"{cluster.project}_{volume}"]))
    cluster.up()
    assert runs(cluster) == {}
    succeeded(run(["make", "restore", f"FROM={tmp_path / 'backup'}"], **options))
    assert runs(cluster) == before
    log = succeeded(cluster.submit("experiment=smoke", "until=caption"))
    assert ": run (" not in log and runs(cluster).keys() >= before.keys()
    cluster.remove()  # two at a time want twice the memory


def holds(folder: Path, value: str) -> bool:
    return any(value.encode() in path.read_bytes() for path in folder.iterdir())


def test_a_full_volume_fails_with_the_sentence_and_harms_no_artifact(new_cluster: NewCluster, tmp_path: Path):
    """The volume of artifacts is 12 MB of memory: the photographs' web fits, what is made of it does not."""
    small = tmp_path / "small.yaml"
    small.write_text(
        "volumes: {data: {driver: local, driver_opts: {type: tmpfs, device: tmpfs, o: 'size=12m'}}}\n"
    )
    cluster = new_cluster(COMPOSE_FILE=f"compose.yaml:{small}")
    cluster.up()
    done = cluster.submit("experiment=smoke", "data.photographs.images=1200")
    assert done.returncode != 0
    assert "no space is left on the disk" in done.stdout, done.stdout[-3000:]
    assert "Traceback" not in done.stdout, "a sentence, not a stack"
    verified = cluster.submit("verify=true")
    assert verified.returncode == 0, verified.stdout[-3000:]
