"""A chain: shards handed on as they are done, and nothing of the artifacts tells."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import toy_chain
from toy_chain import actions, digests, journal_of, run, stages

from pipelines.dag import cluster
from pipelines.dag.chain import lanes
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.pools import allotted, room
from pipelines.dag.shards import Shard, WorkerResources
from pipelines.dag.verify import verify

ONE = WorkerResources(workers=1, cpus=1)
LEFT = "what its chain has left"


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    """A Ray of four CPUs that outlives each run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for the workers to find toy_chain
        cluster.configure(ClusterConfig(num_cpus=4))
        cluster.ensure()
        session, cluster._session, cluster._ours = cluster._session, None, False
        yield
        cluster._session, cluster._ours = session, True
        cluster.shutdown()


@pytest.fixture(scope="module")
def barriers(tmp_path_factory):
    """Digests of the artifacts of eight shards, made stage by stage."""
    root = tmp_path_factory.mktemp("barriers")
    return digests(run(stages(workers=ONE), root, chain=False))


SLOW = [pytest.param(workers, marks=pytest.mark.slow) for workers in (1, 2, 4)]


@pytest.mark.parametrize("workers", [0, *SLOW])
def test_the_bytes_are_those_of_stages_that_wait(workers, barriers, tmp_path, capsys):
    results = run(stages(workers=WorkerResources(workers=workers, cpus=1)), tmp_path)
    assert "shard by shard: write -> shout -> count" in capsys.readouterr().out
    assert digests(results) == barriers
    # 80 words, of which those with three letters (3 of 10) are dropped, each shard with 4 short and 3 tall
    assert results["shout"].stats == {"rows_in": 80, "rows_out": 56, "dropped_long": 24}
    counts = {p.name: p.read_text().split()[0] for p in Path(tmp_path, "counts").rglob("*-*.json")}
    assert set(counts.values()) == {"4", "3"} and counts["short-00007.json"] == "4" and len(counts) == 16
    assert verify(str(tmp_path)) == [] and not list(tmp_path.rglob("_scratch"))
    assert results["count"].artifact.manifest["input_digests"] == {"shouts": barriers["shout"]}
    assert set(actions(run(stages(), tmp_path, chain=False)).values()) == {"skip"}


@pytest.mark.slow
def test_a_stage_by_itself_fills_the_cluster_where_no_number_is_said(tmp_path):
    journal = tmp_path / "journal"
    need = WorkerResources(workers=0, cpus=1)
    run(stages(workers=need, seconds=1.0, shards=12, journal=str(journal))[:1], tmp_path, chain=False)
    assert 2 < len({pid for *_, pid in journal_of(journal)}) <= 4, "on four CPUs; the last may come late"


@pytest.mark.parametrize("workers", [2, *SLOW])
def test_shards_behind_a_wanted_number_are_no_part_of_it_and_not_waited_for(workers, tmp_path, capsys):
    """25 words of up to two letters are enough, and a shard has 7; the words themselves are all there."""
    enough = {"shout": {"wanted": 25}, "workers": WorkerResources(workers=workers, cpus=1)}
    results = run(stages(**enough), tmp_path / "chain")
    told = capsys.readouterr().out
    assert "shard by shard: write -> shout -> count" in told and LEFT not in told
    assert digests(results) == digests(run(stages(**enough), tmp_path / "barriers", chain=False))
    assert results["write"].stats["rows_out"] == 80 and "shards_beyond" not in results["write"].stats
    assert results["shout"].stats == {
        "rows_in": 40, "rows_out": 28, "dropped_long": 12, "shards_beyond": 4,
    }  # fmt: skip
    assert results["count"].stats["rows_out"] == 28
    for kind, name in (("shouts", "short"), ("counts", "tall")):
        left = sorted(p.name[:10] for p in Path(tmp_path, "chain", kind).rglob(f"{name}-*"))
        assert left == [f"{name}-0000{i}"[:10] for i in range(4)], "nothing of the others is left"
    assert verify(str(tmp_path / "chain")) == []


def test_a_chain_ends_where_the_wanted_number_is_reached(tmp_path, capsys):
    """Of 400 shards, the first three are enough; what else was begun is what workers had at hand."""
    journal = tmp_path / "journal"
    enough = {"write": {"wanted": 30}, "workers": ONE, "shards": 400, "seconds": 0.05}
    results = run(stages(**enough, journal=str(journal)), tmp_path / "store")
    assert LEFT not in capsys.readouterr().out
    assert results["write"].stats["rows_out"] == 30 and results["write"].stats["shards_beyond"] == 397
    assert results["count"].stats["rows_out"] == 21
    begun = Counter(stage for stage, *_ in journal_of(journal))
    assert begun["write"] < 120 and begun["count"] < 60, begun


@pytest.mark.slow
@pytest.mark.parametrize("then", [True, False])
def test_a_killed_run_ends_where_the_wanted_number_is_reached(then, tmp_path):
    """The driver is killed when a shard far behind it is counted."""
    journal = tmp_path / "journal"
    enough = {"write": {"wanted": 30}, "shards": 40}
    command = [sys.executable, toy_chain.__file__, tmp_path / "store", "", "1", "chain", "0.1", journal, "40"]
    with subprocess.Popen([*command, "30"], stdout=subprocess.DEVNULL) as killed:
        while not Path(f"{journal}.write").exists():
            assert killed.poll() is None
            time.sleep(0.02)
        time.sleep(0.2)
        killed.kill()
    time.sleep(1.0)
    results = run(stages(**enough, workers=ONE), tmp_path / "store", chain=then)
    assert digests(results) == digests(run(stages(**enough), tmp_path / "whole", chain=False))


@pytest.mark.parametrize("chain", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_a_processor_of_rows_answers_goes_through_the_chain(chain, barriers, tmp_path, capsys):
    """Ray's own processor hands rows on in batches of four, of whatever shards they are."""
    results = run(stages(shout={"asks": True}, workers=ONE), tmp_path, chain=chain)
    assert digests(results) == barriers and LEFT not in capsys.readouterr().out


def test_a_shard_goes_on_as_soon_as_it_is_done(barriers, tmp_path, capsys):
    """The last shard is not written before the first one has been counted."""
    journal = tmp_path / "journal"
    waits = {"waits": json.dumps({"words-00007": [str(tmp_path), "journal.count"]})}
    results = run(stages(write=waits, journal=str(journal), workers=ONE), tmp_path / "store")
    assert digests(results) == barriers and LEFT not in capsys.readouterr().out
    entries = journal_of(journal)
    assert len(entries) == 8 + 8 + 16
    for shard in range(8):
        own = [entry for entry in entries if entry[1].endswith(f"{shard:05d}")]
        ended = {stage: end for stage, _, _, end, _ in own}
        begun = {stage: begin for stage, _, begin, _, _ in reversed(own)}  # the first of two
        assert ended["write"] <= begun["shout"] and ended["shout"] <= begun["count"]


@pytest.mark.slow
def test_a_stage_is_published_while_those_behind_it_work(barriers, tmp_path, capsys):
    """The last shard is not counted before the words are published."""
    waits = {"waits": json.dumps({"short-00007": [str(tmp_path), "words/*/manifest.json"]})}
    assert digests(run(stages(count=waits, workers=ONE), tmp_path)) == barriers
    assert LEFT not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("chain", False), ("alone", True)])
def test_what_one_way_left_the_other_goes_on_with(first, then, barriers, tmp_path):
    """The driver is killed when the first shard is counted, or written."""
    journal = tmp_path / "journal"
    command = [sys.executable, toy_chain.__file__, tmp_path / "store", "", "1", first, "0.1", journal]
    told = Path(f"{journal}.{'count' if first == 'chain' else 'write'}")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as killed:
        while not told.exists():
            assert killed.poll() is None
            time.sleep(0.02)
        killed.kill()
    time.sleep(1.0)  # for its workers to end
    before = [tuple(entry[:2]) for entry in journal_of(journal)]
    assert {stage for stage, _ in before} == ({"write", "shout", "count"} if first == "chain" else {"write"})
    assert len(before) < 32
    chosen = stages(journal=str(journal), workers=ONE)
    assert digests(run(chosen, tmp_path / "store", chain=then)) == barriers
    done = [tuple(entry[:2]) for entry in journal_of(journal)]
    assert len(set(done)) == 8 + 8 + 16
    assert len(done) - len(set(done)) <= 3, "at most what each worker was at when it was killed"


@pytest.mark.slow
def test_a_step_that_fails_stops_what_is_behind_it_and_nothing_else(barriers, tmp_path, capsys):
    faults = {"faults": json.dumps({"shout-00003": "raise"})}
    results = run(stages(shout=faults), tmp_path)
    assert actions(results) == {"write": "run", "shout": "failed", "count": "blocked"}
    assert "1 of 8 shards failed" in results["shout"].error and "the ink ran out" in results["shout"].error
    assert "not run, because shout failed" in results["count"].error
    assert len(list(Path(tmp_path, "counts").rglob("done/*.json"))) == 14, "what could go on went on"
    (shouts,) = Path(tmp_path, "shouts").iterdir()
    (counts,) = Path(tmp_path, "counts").iterdir()
    origins = [json.loads((place / "_scratch/origin.json").read_text()) for place in (shouts, counts)]
    assert origins == [{"words": barriers["write"]}, {"shouts": shouts.name}], "what a purge goes by"
    mended = run(stages(), tmp_path)
    assert actions(mended) == {"write": "skip", "shout": "resume", "count": "resume"}
    assert digests(mended) == barriers


@pytest.mark.slow
def test_shards_that_may_be_given_up_are_missing_in_what_follows_as_without_a_chain(tmp_path):
    need = WorkerResources(workers=2, cpus=1, max_failed=0.2)
    faults = {"faults": json.dumps({"shout-00003": "die"})}
    results = [
        run(stages(shout=faults, workers=need), tmp_path / str(chain), chain=chain) for chain in (True, False)
    ]
    assert digests(results[0]) == digests(results[1])
    assert results[0]["shout"].stats["dropped_quarantined"] == 10
    assert results[0]["count"].stats["rows_in"] == 49


@pytest.mark.slow
def test_a_row_that_is_lost_in_a_chain_fails_its_shard(tmp_path):
    results = run(stages(count={"faults": json.dumps({"tall-00002": "lose"})}), tmp_path)
    assert actions(results) == {"write": "run", "shout": "run", "count": "failed"}
    assert "tall-00002: ValueError: 3 rows in are not 2 rows out and 0 dropped" in results["count"].error


@pytest.mark.slow
def test_a_step_that_cannot_set_itself_up_leaves_the_others_their_work(tmp_path):
    results = run(stages(shout={"setup_fault": "no model at 'nowhere'"}), tmp_path)
    assert actions(results) == {"write": "run", "shout": "failed", "count": "blocked"}
    assert results["shout"].error.count("no model at 'nowhere'") == 1


@pytest.mark.slow
def test_until_in_the_middle_and_only(barriers, tmp_path, capsys):
    assert actions(run(stages(), tmp_path, until="shout")) == {"write": "run", "shout": "run"}
    assert "shard by shard: write -> shout\n" in capsys.readouterr().out
    results = run(stages(), tmp_path, only="count")
    assert actions(results) == {"count": "run"}
    assert "shard by shard" not in capsys.readouterr().out
    assert digests(results) == {"count": barriers["count"]}


@pytest.mark.slow
def test_force_runs_a_stage_by_itself(barriers, tmp_path, capsys):
    run(stages(), tmp_path, until="shout")
    capsys.readouterr()
    results = run(stages(), tmp_path, force="shout")
    assert actions(results) == {"write": "skip", "shout": "run", "count": "run"}
    assert "shard by shard" not in capsys.readouterr().out
    assert digests(results) == barriers


@pytest.mark.slow
def test_a_stage_that_needs_all_of_its_input_begins_when_that_is_published(barriers, tmp_path, capsys):
    results = run(stages(shout={"whole": True}), tmp_path)
    told = capsys.readouterr().out
    assert "shard by shard: shout -> count" in told and "write ->" not in told
    assert digests(results) == barriers


@pytest.mark.slow
def test_two_processes_do_not_make_it_twice(barriers, tmp_path):
    journal, found = tmp_path / "journal", []
    chosen = [stages(journal=str(journal), seconds=0.1) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda c=c: found.append(digests(run(c, tmp_path / "store")))) for c in chosen
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [barriers, barriers]
    done = [(stage, name) for stage, name, *_ in journal_of(journal)]
    assert len(done) == len(set(done)) == 32


def test_lanes_hold_what_follows_a_shard_in_every_stage():
    first = [Shard(i, f"a{i}", 1, {}) for i in (1, 2)]
    second = [Shard(i, f"b{i}", 1, {}, follows=place) for i, place in enumerate((0, 2, 0, 2))]
    found = [[[shard.name for shard in part] for part in lane] for lane in lanes([first, second])]
    assert found == [[[], ["b0", "b2"]], [["a1"], []], [["a2"], ["b1", "b3"]]]


def test_all_steps_get_a_worker_or_the_last_ones_wait():
    def need(workers, cpus, gpus=0.0):
        return WorkerResources(workers=workers, cpus=cpus, gpus=gpus)

    def given(needs, machines, **options):
        return [(n.workers, n.cpus) for n in allotted(needs, machines, **options)]

    assert given([need(2, 1), need(2, 1)], [(4, 0)]) == [(2, 1), (2, 1)]
    assert given([need(2, 1), need(2, 1)], [(2, 0)]) == [(1, 1), (1, 1)]
    assert given([need(2, 1), need(2, 1), need(2, 1)], [(1, 0), (1, 0)]) == [(1, 1), (1, 1)]
    assert given([need(8, 6, 1), need(8, 6, 1)], [(48, 8)]) == [(4, 6), (4, 6)]
    assert given([need(4, 1), need(2, 2, 1)], [(3, 1)]) == [(1, 1), (1, 2)]
    assert given([need(1, 3), need(1, 3)], [(4, 0), (2, 0)]) == [(1, 3)], "on one machine, or not at all"
    # our own machine: all work, each with less; its one GPU has room for one
    assert given([need(2, 1), need(2, 1)], [(1, 0)], shared=True) == [(2, 0.25), (2, 0.25)]
    assert given([need(2, 1, 1), need(2, 1, 1)], [(8, 1)], shared=True) == [(1, 1)]


def test_a_step_that_wants_all_gets_what_there_is_room_for():
    def need(workers, cpus, gpus=0.0):
        return WorkerResources(workers=workers, cpus=cpus, gpus=gpus)

    def given(needs, machines, **options):
        return [n.workers for n in allotted(needs, machines, **options)]

    node = (64, 8)
    assert given([need(0, 1)], [node] * 2) == [128]
    assert given([need(0, 6, 1)], [node] * 4) == [32]
    assert given([need(0, 1), need(0, 6, 1)], [node]) == [16, 8], "eight GPUs take 48 of the 64 cores"
    assert given([need(3, 1), need(0, 1)], [(8, 0)]) == [3, 5]
    assert given([need(0, 1), need(0, 1)], [(4, 0)], shared=True) == [4, 4]
    assert [room(need(9, 6, 1), [node, (5, 8)]), room(need(1, 2), [(1, 0)])] == [8, 1]
