"""Of several attempts at a shard one is recorded, and the files on S3 are its own, whoever writes when."""

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import combinations

import pytest
from toy_stages import Toy, run

from pipelines.dag import shards as plans
from pipelines.dag.artifact import Artifact, faults
from pipelines.dag.fence import ShardFence
from pipelines.dag.shard_actor import ShardActor, do_shard
from pipelines.dag.shard_records import done_record, read_done, record_name
from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.storage import open_folder
from pipelines.dag.workspace import Workspace
from pipelines.dag.writing import Superseded

ROOT, FILES = "s3://reptok/runs", ("a.txt", "b.txt")
SHARD = Shard(0, "shard-0", 1, {})
RECORD = record_name(0)


def attempt(folder, tag, again=False):
    """An attempt whose bytes are its own, one step at a time."""
    fence = ShardFence(folder, RECORD, again=again)
    files = {}
    for name in FILES:
        yield
        with fence.create(name) as file:
            file.write(f"{name} by {tag}".encode())
        files[name] = {"size": file.size, "sha256": file.sha256}
    yield
    fence.commit(json.dumps({"by": tag, "files": files}).encode())


def is_sound(folder):
    """Whether the files are those of the record."""
    record = json.loads(folder.read_bytes(RECORD))
    found = {name: hashlib.sha256(folder.read_bytes(name)).hexdigest() for name in FILES}
    return found == {name: entry["sha256"] for name, entry in record["files"].items()}


def step(attempts, who):
    """One step of an attempt; those that are superseded end."""
    if who in attempts:
        try:
            next(attempts[who])
        except (StopIteration, Superseded):
            del attempts[who]


@pytest.mark.parametrize(
    ("again", "every"),
    [(False, 9), (True, 9), *(pytest.param(a, 1, marks=pytest.mark.slow) for a in (False, True))],
)
def test_whatever_the_order_of_two_attempts_the_record_is_of_the_files(again, every, s3):
    """Orders of their four steps; who is superseded begins again, as actors do."""
    for number, first in enumerate(list(combinations(range(8), 4))[::every]):
        folder = open_folder(f"{ROOT}/{number}")
        attempts = {"one": attempt(folder, "one"), "two": attempt(folder, "two", again)}
        for turn in range(8):
            step(attempts, "one" if turn in first else "two")
        assert not attempts
        for tag in ("one", "two"):
            if done_record(0, folder) is None:
                attempts = {tag: attempt(folder, tag, again=True)}
                for _ in range(4):
                    step(attempts, tag)
        assert is_sound(folder), first


@dataclass(frozen=True)
class Late(ShardJob):
    """Writes two files, and lets something happen before one of them, or before the record."""

    tag: str
    at: int = -1
    then: object = None

    def __call__(self, shard, out):
        for number, name in enumerate(FILES):
            if number == self.at:
                self.then()
            out.write_bytes(name, f"{name} by {self.tag}".encode())
        if self.at == len(FILES):
            self.then()
        return {"rows_in": 1, "rows_out": 1}


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("published", [False, True])
def test_a_zombie_that_writes_late_changes_nothing(at, published, s3, monkeypatch):
    """Another worker does the whole shard while the first one is away; it may be published by then."""
    monkeypatch.setattr(plans, "RETRY_SECONDS", 0.0)
    out = Workspace(f"{ROOT}/out", fenced=True)
    row = {"shard": json.dumps(asdict(SHARD))}

    def another():
        done = ShardActor(Late("the other"), Workspace(out.url, fenced=True))(row)
        assert not done["failure"]
        if published:
            out.digests = json.loads(done["record"])["files"]
            out.publish({"stage": "late"})
            out.remove_scratch()

    zombie = ShardActor(Late("the zombie", at, another), out)(row)
    if published:
        assert faults(Artifact("out", "out", out.url)) == []
    else:
        assert not zombie["failure"] and is_sound(out.folder)
    assert [out.read_bytes(name).decode() for name in FILES] == [f"{name} by the other" for name in FILES]


def test_a_shard_that_was_killed_between_its_files_is_done_again(s3):
    out = Workspace(f"{ROOT}/out", fenced=True)

    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do_shard(SHARD, Late("killed", 1, die), out)
    assert out.folder.sizes().keys() == {"a.txt"}
    record = do_shard(SHARD, Late("next"), out)
    assert is_sound(out.folder) and read_done([SHARD], out) == {0: record}


def test_a_claim_is_no_record(s3):
    out = Workspace(f"{ROOT}/out", fenced=True)
    out.folder.write_bytes("a.txt", b"left over")
    fence = ShardFence(out.folder, RECORD, again=False)
    with fence.create("a.txt") as file:
        file.write(b"other bytes")
    assert out.folder.exists(RECORD) and out.folder.read_bytes("a.txt") == b"other bytes"
    assert done_record(0, out.folder) is None and read_done([SHARD], out) == {}


def test_a_shard_that_meets_nobody_costs_no_look(s3, s3_server):
    do_shard(SHARD, Late("only"), Workspace(f"{ROOT}/out", fenced=True))
    do_shard(SHARD, Late("only"), Workspace(f"{ROOT}/plain"))
    assert [line.split()[0] for line in s3_server.requests if "/runs/" in line] == ["PUT"] * 6


class Robbed(Toy):
    """A stage whose lock is taken over while it works."""

    def run(self, inputs, out):
        name = f"_locks/{self.output}-{out.fingerprint}.json"
        record = json.loads(open_folder(ROOT).read_bytes(name))
        open_folder(ROOT).write_bytes(name, json.dumps({**record, "token": "another"}).encode())
        return super().run(inputs, out)


def test_a_driver_that_lost_its_lock_does_not_publish(s3, capsys):
    assert run([Robbed("a")], ROOT) == {"a": "failed"}
    assert "was lost: another process took it over" in capsys.readouterr().err
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket="reptok")["Contents"]]
    assert not [key for key in keys if key.endswith("manifest.json")]
