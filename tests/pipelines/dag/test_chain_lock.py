"""A chain keeps the locks of what it has published, whose notes its workers still read."""

import json
import sys
import threading
import time
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from toy_chain import actions, run, stages

from pipelines.dag import chain, cluster
from pipelines.dag.artifact import Artifact
from pipelines.dag.execution import lock_of
from pipelines.dag.lock import Held, locked
from pipelines.dag.shard_actor import ShardActor


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Steps of a chain are done here, all shards of one before the next: Ray is not the matter."""

    def step(job, out, need, ends):
        return SimpleNamespace(job=job, out=out, announced={}, forget=lambda: None)

    def through(steps, lanes):
        for number, found in enumerate(steps):
            actor = ShardActor(found.job, found.out)
            for shard in (shard for lane in lanes for shard in lane[number]):
                row = actor({"shard": json.dumps(asdict(shard))})
                yield number, (row["index"], json.loads(row["record"]), row["failure"])

    ray = SimpleNamespace(Step=SimpleNamespace(of=step), through=through)
    monkeypatch.setitem(sys.modules, "pipelines.dag.ray_shards", ray)
    monkeypatch.setattr(cluster, "ensure", lambda: None)
    monkeypatch.setattr(cluster, "is_local", lambda: True)
    monkeypatch.setattr(chain, "alive", lambda need: {"here": (4.0, 0.0)})


@pytest.mark.timeout(60)
def test_the_notes_of_a_published_stage_are_the_chains_until_it_ends(tmp_path, capsys):
    """A worker that Ray begins again finds there what was done: nobody who skips the stage removes them."""
    root, done = tmp_path / "store", {}
    waits = {"waits": json.dumps({"shout-00007": [str(tmp_path), "go"]})}
    working = threading.Thread(target=lambda: done.update(run(stages(shout=waits)[:2], root)))
    working.start()
    try:
        while not (published := list(root.glob("words/*/manifest.json"))):
            assert working.is_alive()
            time.sleep(0.02)
        folder = published[0].parent
        words = Artifact("words", folder.name, str(folder))
        notes = sorted(path.name for path in (folder / "_scratch").rglob("*.json"))
        assert len(notes) >= 8
        with pytest.raises(Held), locked(str(root), lock_of(words), wait=False):
            pass
        assert actions(run(stages()[:1], root)) == {"write": "skip"}
        assert sorted(path.name for path in (folder / "_scratch").rglob("*.json")) == notes
    finally:
        (tmp_path / "go").touch()
        working.join()
    assert actions(done) == {"write": "run", "shout": "run"}
    assert "shard by shard: write -> shout" in capsys.readouterr().out
    assert not list(root.rglob("_scratch"))
    with locked(str(root), lock_of(words), wait=False):
        pass
