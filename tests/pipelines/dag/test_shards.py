"""Shard jobs: every row counted, done shards never done twice, the same bytes whatever happens."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from toy_shards import COUNT, Shout, map_words, shards

from pipelines.dag import cluster
from pipelines.dag import shards as shards_module
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.shard_actor import Beginnings, ShardActor, do_shard
from pipelines.dag.shard_records import checked_stats, read_done, write_plan
from pipelines.dag.shards import Shard, WorkerResources, map_shards
from pipelines.dag.storage import LocalFolder
from pipelines.dag.tally import QUARANTINE, ShardError
from pipelines.dag.workspace import Workspace
from reptok.data import index

EXPECTED = {"rows_in": 60.0, "rows_out": 48.0, "dropped_empty": 12.0}


@pytest.fixture(scope="module")
def local_ray():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for the workers to find toy_shards
        cluster.configure(ClusterConfig(num_cpus=2))
        cluster.ensure()
        yield
        cluster.shutdown()


def files(url):
    return {path.name: path.read_bytes() for path in Path(url).glob("*.txt")}


def test_every_row_must_be_accounted_for():
    shard = Shard(0, "s", 10, {})
    good = {"rows_in": 10, "rows_out": 7, "dropped_a": 2, "dropped_b": 1, "bytes": 99}
    assert checked_stats(shard, good)["bytes"] == 99.0
    with pytest.raises(ValueError, match="10 rows in are not 7 rows out and 2 dropped"):
        checked_stats(shard, {**good, "dropped_b": 0})
    with pytest.raises(ValueError, match="read 9 rows where the plan says 10"):
        checked_stats(shard, {**good, "rows_in": 9, "rows_out": 6})
    with pytest.raises(ValueError, match="no rows_in and no rows_out"):
        checked_stats(shard, {})


def test_another_plan_for_the_same_artifact_is_refused(tmp_path):
    out = Workspace(str(tmp_path))
    write_plan(shards(), out)
    write_plan(shards(), out)
    for other in (shards(COUNT + 1), shards()[1:], [*shards()[:-1], replace(shards()[-1], rows=1)]):
        with pytest.raises(ValueError, match="another plan"):
            write_plan(other, out)


def test_when_all_shards_are_done_ray_is_not_needed(tmp_path):
    url, journal = str(tmp_path / "out"), tmp_path / "journal"
    actor = ShardActor(Shout(str(journal)), Workspace(url))
    write_plan(shards(), Workspace(url))
    for shard in shards():
        assert not actor({"shard": json.dumps(asdict(shard))})["failure"]
    program = (
        "import json, sys, toy_shards; print(json.dumps(toy_shards.map_words(*sys.argv[1:])));"
        "assert 'ray' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, url, str(journal)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == EXPECTED


@pytest.fixture
def five_done(tmp_path):
    """A job of six shards of which one is left to do; called, it does that from another program."""
    url, journal = str(tmp_path / "out"), tmp_path / "journal"
    actor = ShardActor(Shout(str(journal)), Workspace(url))
    for shard in shards()[:5]:
        assert not actor({"shard": json.dumps(asdict(shard))})["failure"]

    def go_on(**settings):
        program = (
            "import json, sys, toy_shards\n"
            "try: print(json.dumps(toy_shards.map_words(*sys.argv[1:3], **json.loads(sys.argv[3]))))\n"
            "finally: assert 'ray' not in sys.modules"
        )
        return subprocess.run(
            [sys.executable, "-c", program, url, str(journal), json.dumps(settings)],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
        )

    return go_on, url, journal


def test_the_last_shard_is_done_without_ray(five_done):
    go_on, url, journal = five_done
    done = go_on(faults='{"text-00005": "once"}')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == EXPECTED
    assert files(url)["text-00005.txt"].startswith(b"WORD 5 1\nWORD 5 2")
    assert journal.read_text().split() == [f"text-{i:05d}" for i in range(6)]


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("raise", "text-00005: RuntimeError: the ink ran out (toy_shards.py:"),
        ("die", "text-00005: its worker process died 3 times (exit status 1)"),
    ],
)
def test_the_last_shard_may_fail_or_die_without_ray(five_done, fault, cause):
    go_on, url, _ = five_done
    failed = go_on(faults=json.dumps({"text-00005": fault}))
    assert failed.returncode == 1
    assert "1 of 6 shards failed, the others are kept" in failed.stderr and cause in failed.stderr
    assert set(read_done(shards(), Workspace(url))) == set(range(5))
    assert go_on().returncode == 0


def test_a_done_record_without_its_file_does_not_count(tmp_path):
    out = Workspace(str(tmp_path / "out"))
    for shard in shards(2):
        do_shard(shard, Shout(str(tmp_path / "journal")), out)
    (tmp_path / "out" / "text-00001.txt").write_text("cut off")
    assert set(read_done(shards(2), out)) == {0}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A job whose driver was killed after three shards (before the module's own Ray starts)."""
    folder = tmp_path_factory.mktemp("killed")
    url, journal = str(folder / "out"), folder / "journal"
    script = Path(__file__).with_name("toy_shards.py")
    process = subprocess.run([sys.executable, str(script), url, str(journal)], capture_output=True, text=True)
    assert process.returncode == -9, process.stderr
    return url, journal


def test_the_files_do_not_depend_on_workers_kills_or_retries(killed, local_ray, tmp_path):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert map_words(one, tmp_path / "journal-1", workers=1) == EXPECTED
    reference = files(one)
    assert len(reference) == 6 and reference["text-00001.txt"].startswith(b"WORD 1 1\nWORD 1 2")
    assert map_words(two, tmp_path / "journal-2", workers=2, faults='{"text-00002": "once"}') == EXPECTED
    assert files(two) == reference

    url, journal = killed
    before = journal.read_text().split()
    recorded = set(read_done(shards(), Workspace(url)))
    assert 1 <= len(recorded) < 6
    assert map_words(url, journal) == EXPECTED
    again = journal.read_text().split()[len(before) :]
    assert {int(name[-1]) for name in again} == set(range(6)) - recorded, "only the missing shards were done"
    assert files(url) == reference


def test_failing_shards_are_named_and_the_others_kept(local_ray, tmp_path):
    url, journal = str(tmp_path / "out"), tmp_path / "journal"
    faults = '{"text-00001": "raise", "text-00002": "lose", "text-00004": "die"}'
    with pytest.raises(ShardError) as caught:
        map_words(url, journal, faults=faults)
    message = str(caught.value)
    assert "3 of 6 shards failed, the others are kept" in message
    assert "text-00001: RuntimeError: the ink ran out (toy_shards.py:" in message
    assert "text-00002: ValueError: 10 rows in are not 7 rows out and 2 dropped" in message
    assert "text-00004: its worker process died 3 times" in message
    assert set(read_done(shards(), Workspace(url))) == {0, 3, 5}
    assert map_words(url, journal) == EXPECTED


@pytest.mark.parametrize("count", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_a_broken_setup_is_one_cause_for_all_shards(count, local_ray, tmp_path, monkeypatch):
    if count == 1:  # in a process of its own
        monkeypatch.setattr(cluster, "at_hand", lambda: False)
    job = Shout(str(tmp_path / "journal"), setup_fault="no model at 'nowhere'")
    with pytest.raises(ShardError) as caught:
        map_shards(shards(count), job, Workspace(str(tmp_path / "out")), WorkerResources(workers=2))
    message = str(caught.value)
    assert message.count("OSError: no model at 'nowhere'") == 1 and f"{count} of {count} shards" in message
    assert not (tmp_path / "journal").exists()


@pytest.mark.slow
def test_a_shard_that_one_process_cannot_do_is_done_by_another(local_ray, tmp_path):
    """It fails three times in the first process that meets it, which is all that this one tries."""
    url, journal = str(tmp_path / "out"), tmp_path / "journal"
    assert map_words(url, journal, faults='{"text-00003": "first process"}') == EXPECTED
    assert sorted(journal.read_text().split()) == [s.name for s in shards()]
    assert len(Path(f"{journal}.text-00003.tries").read_text().split()) == 4


@pytest.mark.slow
def test_a_process_in_which_everything_fails_costs_three_shards(local_ray, tmp_path):
    """The process that touches the first shard fails from then on; the others go to the next one."""
    url, journal = str(tmp_path / "out"), tmp_path / "journal"
    many = shards(30)
    job = Shout(str(journal), sick="text-00000")
    stats = map_shards(many, job, Workspace(url), WorkerResources(workers=1))
    assert stats["rows_in"] == 300
    tries = [Path(f"{journal}.{shard.name}.sick") for shard in many]
    assert sum(path.exists() for path in tries) == 3


def test_storage_that_fails_around_a_shard_is_tried_again(tmp_path, monkeypatch):
    out = Workspace(str(tmp_path / "out"))
    actor = ShardActor(Shout(str(tmp_path / "journal")), out)
    write, failing = LocalFolder.write_bytes, ["done", "done"]

    def flaky(self, name, data):
        if failing and f"/{failing[0]}/" in name:
            failing.pop(0)
            raise OSError("the store is busy")
        write(self, name, data)

    monkeypatch.setattr(LocalFolder, "write_bytes", flaky)
    monkeypatch.setattr(shards_module, "RETRY_SECONDS", 0.0)
    assert not actor({"shard": json.dumps(asdict(shards()[0]))})["failure"]
    assert not failing and set(read_done(shards(), out)) == {0}


@pytest.mark.parametrize(("gone", "failure"), [(0, "its worker process died 3 times"), (1, "")])
def test_a_process_that_was_taken_away_did_not_die_of_its_shard(gone, failure, tmp_path):
    """Three processes began a shard and never ended it; of the third, the machine may be gone."""
    out, nodes, notes = Workspace(str(tmp_path / "out")), ["a", "b", "c"], {}
    for node in nodes:
        Beginnings(notes, node).add(shards()[0])
    beginnings = Beginnings(notes, "d", lambda: [*nodes[gone:], "d"])
    actor = ShardActor(Shout(str(tmp_path / "journal")), out, beginnings)
    assert actor({"shard": json.dumps(asdict(shards()[0]))})["failure"].startswith(failure)
    assert set(read_done(shards(), out)) == (set() if failure else {0})


@pytest.mark.slow
def test_so_many_shards_may_be_given_up_and_are_named(local_ray, tmp_path):
    url, journal = str(tmp_path / "out"), tmp_path / "journal"
    faults = '{"text-00001": "raise", "text-00004": "die"}'

    def run(share):
        job, out = Shout(str(journal), faults=faults), Workspace(url)
        return map_shards(shards(), job, out, WorkerResources(max_failed=share)), out

    with pytest.raises(ShardError, match="2 of 6 shards failed"):
        run(0.3)
    stats, out = run(0.34)
    assert stats == {
        "rows_in": 60, "rows_out": 32, "dropped_empty": 8, "dropped_quarantined": 20, "shards_quarantined": 2
    }  # fmt: skip
    named = out.read_json(QUARANTINE)
    assert [(entry["shard"], entry["rows"]) for entry in named] == [("text-00001", 10), ("text-00004", 10)]
    assert "the ink ran out" in named[0]["cause"] and "died 3 times" in named[1]["cause"]
    assert out.read_bytes("text-00004.txt") == b"given up"
    assert map_words(url, journal) == EXPECTED  # before it is published, another run may mend it
    assert not Workspace(url).exists(QUARANTINE)


def test_the_loader_knows_the_name_of_the_quarantine():
    assert QUARANTINE == index.QUARANTINE


def test_two_shards_with_one_index_are_refused(tmp_path):
    same = [shards()[0], replace(shards()[1], index=0)]
    with pytest.raises(ValueError, match="same index"):
        map_shards(same, Shout("unused"), Workspace(str(tmp_path)))
