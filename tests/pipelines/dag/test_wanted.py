"""The first shards that reach a wanted number, whatever the order in which they are done."""

import random

import pytest

from pipelines.dag.shard_records import DONE
from pipelines.dag.shards import Shard, ShardJob, ShardWork, tally_of
from pipelines.dag.tally import Tally
from pipelines.dag.wanted import END, Reach, Wanted, told_end
from pipelines.dag.workspace import Workspace

ROWS = [3, 0, 5, 1, 0, 4, 2, 6]  # reaching 3, 3, 8, 9, 9, 13, 15, 21


class Copy(ShardJob):
    """Writes as many lines as a shard has rows."""

    def __call__(self, shard, out):
        out.write_bytes(self.files_of(shard)[0], b"x\n" * shard.rows)
        return {"rows_in": shard.rows, "rows_out": shard.rows}

    def files_of(self, shard):
        return (f"part-{shard.index}.txt",)


def work(number, stat="rows_out"):
    shards = [Shard(i, f"part-{i}", rows, {}) for i, rows in enumerate(ROWS)]
    return ShardWork(shards=shards, job=Copy(), wanted=Wanted(number, stat))


@pytest.mark.parametrize(("number", "end"), [(1, 1), (3, 1), (4, 3), (9, 4), (10, 6), (21, 8), (22, None)])
def test_the_end_is_never_too_early_and_right_when_all_before_it_are_done(number, end):
    for seed in range(20):
        reach, order = Reach(Wanted(number)), [*enumerate(ROWS)]
        random.Random(seed).shuffle(order)
        known, done = [], set()
        for place, rows in order:
            reach.add(place, {"rows_out": float(rows)})
            done.add(place)
            known.append(reach.end)
            if reach.end is not None:
                assert end is not None and reach.end >= end
                assert reach.end == end or not done >= {*range(reach.end)}
        assert reach.end == end
        bounds = [bound for bound in known if bound is not None]
        assert bounds == sorted(bounds, reverse=True)


def test_what_is_not_needed_is_removed_and_never_published(tmp_path):
    out = Workspace(str(tmp_path / "out"))
    tally = Tally(work(9), out)
    for index in (7, 5, 2, 0):  # of several workers, the last ones were the first
        shard = work(9).shards[index]
        stats = Copy()(shard, out)
        record = {"name": shard.name, "rows": shard.rows, "stats": stats, "files": {}}
        tally.take(index, record, "")
    assert tally.end == 6 == told_end(out.url), "the shards 5, 2 and 0 have twelve rows"
    assert [shard.index for shard in tally.missing] == [1, 3, 4]
    tally = tally_of(work(9), out, here=True)
    assert tally.end == 4 == told_end(out.url) and len(tally.work.shards) == 4
    assert tally.stats() == {"rows_in": 9, "rows_out": 9, "shards_beyond": 4}
    kept = [f"part-{i}.txt" for i in range(4)]
    assert out.files() == kept == sorted(p.name for p in (tmp_path / "out").glob("part-*"))
    assert len(list((tmp_path / "out" / DONE).iterdir())) == 4
    out.write_bytes("part-6.txt", b"a worker was late")
    out.publish({})
    assert sorted(out.read_json("manifest.json")["files"]) == kept


def test_the_end_is_known_again_from_the_records(tmp_path):
    out = Workspace(str(tmp_path))
    tally_of(work(9), out, here=True)
    again = Tally(work(9), out)
    assert again.complete and again.end == 4 and again.missing == []
    out.folder.remove(f"{DONE}/000000.json")
    lost = Tally(work(9), out)
    assert lost.end is None and not out.exists(END), "what a worker may believe must hold"
    assert [shard.index for shard in lost.missing] == [0, 4, 5, 6, 7]


def test_a_plan_may_be_the_beginning_of_the_one_that_was_begun_and_no_other(tmp_path):
    def planned(names):
        return ShardWork(shards=[Shard(i, name, 1, {}) for i, name in enumerate(names)], job=Copy())

    out = Workspace(str(tmp_path))
    Tally(planned("abcd"), out)
    assert len(Tally(planned("ab"), out).missing) == 2
    for other in ("abcde", "ax"):
        with pytest.raises(ValueError, match="another plan"):
            Tally(planned(other), out)


def test_what_was_made_by_a_longer_plan_is_not_published_by_its_beginning(tmp_path):
    """What a stage reads from ended early and was published, and then the stage is gone on with alone."""

    def planned(count):
        return ShardWork(shards=[Shard(i, f"part-{i}", 1, {}) for i in range(count)], job=Copy())

    out = Workspace(str(tmp_path))
    tally_of(planned(5), out, here=True)
    again = Tally(planned(3), out)
    assert again.complete and again.stats() == {"rows_in": 3, "rows_out": 3}
    assert out.files() == ["part-0.txt", "part-1.txt", "part-2.txt"]
    assert len(list((tmp_path / DONE).iterdir())) == 3


def test_shards_beyond_do_not_depend_on_when_the_end_of_the_input_was_known(tmp_path):
    """In a chain a stage is planned for all shards, alone for those that its input came to have."""
    chained = Tally(work(9), Workspace(str(tmp_path / "chained")))
    chained.cut(6)
    alone = work(9)
    alone = ShardWork(shards=alone.shards[:6], job=alone.job, wanted=alone.wanted)
    beyond = []
    for name, shards in (("chained", chained.work), ("alone", alone)):
        out = Workspace(str(tmp_path / name))
        tally = chained if name == "chained" else Tally(shards, out)
        for index in range(4):
            shard = shards.shards[index]
            stats = Copy()(shard, out)
            record = {"name": shard.name, "rows": shard.rows, "stats": stats, "files": {}, "summaries": {}}
            tally.take(index, record, "")
        beyond.append(tally.stats()["shards_beyond"])
    assert beyond == [2.0, 2.0]
