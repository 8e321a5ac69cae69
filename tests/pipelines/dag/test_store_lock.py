"""One holder at a time on an object store, whether or not its server keeps conditions."""

import json
import os
import socket
import threading
import time

import pytest

from pipelines.dag import store_lock
from pipelines.dag.lock import locked
from pipelines.dag.s3 import S3Folder
from pipelines.dag.storage import open_folder
from pipelines.dag.writing import StorageError, Superseded

ROOT = "s3://reptok/runs"


@pytest.fixture(params=[True, False], ids=["keeps conditions", "ignores conditions"])
def server(request, s3, s3_server, monkeypatch):
    """A server of either kind; short waits."""
    s3_server.ignores_conditions = not request.param
    store_lock._probed.cache_clear()
    monkeypatch.setattr(store_lock, "SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(store_lock, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(store_lock, "STALE_SECONDS", 6.0)
    yield request.param
    s3_server.ignores_conditions = False
    store_lock._probed.cache_clear()


def test_the_probe_tells_what_the_server_does_and_leaves_nothing(server, s3, capsys):
    assert store_lock.keeps_conditions(open_folder(ROOT)) is server
    assert ("does not keep conditions" in capsys.readouterr().out) is not server
    assert not s3.list_objects_v2(Bucket="reptok").get("Contents")


@pytest.mark.timeout(60)
def test_of_many_one_at_a_time_is_inside(server):
    inside, most, turns = [], [], []

    def work(number):
        with locked(ROOT, "x"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.1)
            inside.remove(number)
            turns.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(turns) == [0, 1, 2, 3, 4] and set(most) == {1}


@pytest.mark.timeout(30)
def test_who_holds_it_long_keeps_it_and_who_died_does_not(server, capsys):
    with locked(ROOT, "x") as check:
        time.sleep(1.3 * store_lock.STALE_SECONDS)
        waiting = threading.Thread(target=lambda: _enter(ROOT))
        waiting.start()
        said = ""
        while f"waiting for process {os.getpid()}" not in said:
            assert waiting.is_alive()
            time.sleep(0.05)
            said += capsys.readouterr().out
        if check:
            check()
    waiting.join(10)
    assert not waiting.is_alive()
    here = {"host": socket.gethostname(), "pids": store_lock._pids()}
    folder, dead = open_folder(ROOT), {"token": "t", "pid": 2**30, "time": 1.0, **here}
    folder.write_bytes(
        "_locks/x.json" if server else "_locks/x/t.json", json.dumps({**dead, "held": True}).encode()
    )
    begun = time.monotonic()
    _enter(ROOT)
    assert time.monotonic() - begun < store_lock.STALE_SECONDS


@pytest.mark.timeout(30)
def test_who_was_away_too_long_learns_that_the_lock_is_lost(s3, monkeypatch):
    store_lock._probed.cache_clear()
    monkeypatch.setattr(store_lock, "HEARTBEAT_SECONDS", 3600.0)
    monkeypatch.setattr(store_lock, "STALE_SECONDS", 0.5)
    folder = open_folder(ROOT)
    with locked(ROOT, "x") as check:
        check()
        time.sleep(2.5)  # S3 tells seconds
        with locked(ROOT, "x") as other:
            other()
            with pytest.raises(Superseded, match=r"the lock _locks/x\.json was lost"):
                check()
            owner = folder.read_bytes("_locks/x.json")
        assert not folder.exists("_locks/x.json")
        folder.write_bytes("_locks/x.json", owner)
    assert folder.read_bytes("_locks/x.json") == owner  # it is another's, and stays


def test_a_process_of_another_container_by_the_same_name_is_not_taken_for_dead():
    record = json.loads(store_lock._record("t", 1.0))
    assert not store_lock._is_dead(store_lock._owner(json.dumps(record | {"pid": os.getpid()}).encode()))
    gone = record | {"pid": 2**30}
    assert store_lock._is_dead(store_lock._owner(json.dumps(gone).encode()))
    assert not store_lock._is_dead(store_lock._owner(json.dumps(gone | {"pids": "others"}).encode()))


def test_a_store_that_is_overloaded_is_not_said_to_keep_no_conditions(s3, monkeypatch):
    store_lock._probed.cache_clear()
    put = S3Folder.put_bytes

    def busy(folder, name, data, **condition):
        if condition:
            raise StorageError(
                5, "cannot write: the store is overloaded or failing (SlowDown); wait a little"
            )
        return put(folder, name, data)

    monkeypatch.setattr(S3Folder, "put_bytes", busy)
    with pytest.raises(StorageError, match="overloaded"), locked(ROOT, "x"):
        pass
    monkeypatch.undo()
    assert store_lock.keeps_conditions(open_folder(ROOT))


def _enter(root):
    with locked(root, "x"):
        pass


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "record",
    [
        b"", b"{", b"[]", b"5", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"token": "a"}',
        b'{"token": "a", "pid": "x", "host": "h", "time": 1}',
        b'{"token": "a", "pid": 1, "host": "h", "time": NaN}',
        b'{"token": "a", "pid": 1e999, "host": "h", "time": 1}',
        b'{"token": "a", "pid": -1, "host": "h", "time": 99999999999}',
        b'{"token": "a", "pid": ' + b"9" * 300 + b', "host": "h", "time": 99999999999}',
        b'{"token": "a", "pid": 1, "host": "h", "time": 1' + b"0" * 400 + b"}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["conditional", "ticketed"])
def test_what_is_no_record_of_an_owner_holds_nothing(record, place, s3, monkeypatch):
    monkeypatch.setattr(store_lock, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(store_lock, "keeps_conditions", lambda folder: place == "conditional")
    root = open_folder("s3://reptok/runs")
    root.write_bytes("_locks/x.json" if place == "conditional" else "_locks/x/a.json", record)
    with locked(root.url, "x"):
        held = [json.loads(root.read_bytes(name)) for name in root.sizes() if not name.endswith("/a.json")]
        assert [owner["pid"] for owner in held] == [os.getpid()]
    assert set(root.sizes()) == (set() if place == "conditional" else {"_locks/x/a.json"})
