"""Done records are read a thousand at a time when a job is resumed, and a shard's last one counts."""

import json

import pytest

from pipelines.dag import shard_records, tally
from pipelines.dag.shard_actor import do_shard
from pipelines.dag.shard_records import FOLDED, read_done
from pipelines.dag.shards import Shard, ShardJob, ShardWork
from pipelines.dag.storage import LocalFolder
from pipelines.dag.tally import Tally
from pipelines.dag.workspace import Workspace

SHARDS = [Shard(number, f"s{number}", 1, {}) for number in range(10)]


class Job(ShardJob):
    """Writes a word; `word` may change between two runs."""

    word = "one"

    def __call__(self, shard, out):
        out.write_bytes(f"{shard.name}.txt", self.word.encode())
        return {"rows_in": 1, "rows_out": 1}


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A workspace with seven shards done, of which six are folded."""
    monkeypatch.setattr(shard_records, "FOLD", 3)
    monkeypatch.setattr(tally, "FOLD", 3)
    out = Workspace(str(tmp_path / "out"))
    counted = Tally(ShardWork(shards=SHARDS, job=Job()), out)
    for shard in SHARDS[:7]:
        counted.take(shard.index, do_shard(shard, Job(), out), "")
    return out


def folded(out):
    names = [name for name in out.folder.sizes() if name.startswith(f"{FOLDED}/")]
    return sorted(int(index) for name in names for index in json.loads(out.folder.read_bytes(name)))


def test_folded_records_are_the_single_ones(out, monkeypatch):
    read, names = LocalFolder.read_bytes, []
    monkeypatch.setattr(LocalFolder, "read_bytes", lambda self, name: names.append(name) or read(self, name))
    done = read_done(SHARDS, out)
    assert len(names) == 3 and folded(out) == [0, 1, 2, 3, 4, 5]
    out.folder.remove(FOLDED)
    assert read_done(SHARDS, out) == done and set(done) == set(range(7))
    assert folded(out) == [0, 1, 2, 3, 4, 5]  # again, for the next time


def test_of_a_shard_that_is_done_again_the_new_record_counts(out):
    out.folder.remove("s4.txt")
    assert set(read_done(SHARDS, out)) == {0, 1, 2, 3, 5, 6} and 4 not in folded(out)
    again = Job()
    again.word = "two"
    record = do_shard(SHARDS[4], again, out)
    assert read_done(SHARDS, out)[4] == record
    assert record["files"]["s4.txt"] != read_done(SHARDS, out)[3]["files"]["s3.txt"]
