"""Nobody deletes beside a workflow, and none begins beside who deletes."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from toy_stages import Toy, contents, run

from pipelines import gc, purge
from pipelines.dag import presence, store_lock
from pipelines.dag.presence import Occupied, alone, workflows, working
from pipelines.dag.writing import Superseded

HELD = """
import sys, time
from pipelines.dag.presence import working
with working(sys.argv[1]):
    print("there", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["a folder", "a store", "a store without conditions"])
def root(request, tmp_path, monkeypatch):
    """The root of a store of each kind."""
    if request.param == "a folder":
        yield str(tmp_path / "runs")
        return
    server = request.getfixturevalue("s3_server")
    request.getfixturevalue("s3")
    server.ignores_conditions = request.param != "a store"
    store_lock._probed.cache_clear()
    monkeypatch.setattr(store_lock, "SETTLE_SECONDS", 0.05)
    yield "s3://reptok/runs"
    server.ignores_conditions = False
    store_lock._probed.cache_clear()


def two(action):
    """A stage, and one behind it that does something in the middle."""
    return [Toy("a"), Toy("b", ("a_out",), action=action)]


@pytest.mark.timeout(60)
def test_what_a_workflow_has_skipped_is_not_deleted_while_it_runs(tmp_path, capsys):
    """`b` is at work on `a`, which nothing refers to yet as far as manifests tell."""
    root = str(tmp_path / "runs")
    run(two(None)[:1], root)
    there, leave = threading.Event(), threading.Event()
    workflow = threading.Thread(target=run, args=(two(lambda: there.set() or leave.wait(30)), root))
    workflow.start()
    assert there.wait(30)
    (tmp_path / "list").write_text("theirs.test\n")
    for command in (gc.main, lambda words: purge.main([*words, f"opt_out={tmp_path / 'list'}"])):
        assert command([f"root={root}", "delete=true"]) == 2
        told = capsys.readouterr().err
        assert f"a workflow is running there (process {os.getpid()} on " in told and " UTC)" in told
        assert "Wait until it has ended, or end it" in told
        assert command([f"root={root}"]) == 0
        assert "note: a workflow is running there" in capsys.readouterr().out
    assert len(contents(root)) > 2
    leave.set()
    workflow.join()
    assert workflows(root) == [] and not list(Path(root, "_locks").glob("workflow-*"))
    assert gc.main([f"root={root}", "days=0", "delete=true"]) == 0


@pytest.mark.timeout(60)
def test_a_workflow_that_begins_meanwhile_waits_and_then_plans_anew(tmp_path, capsys):
    """Deleted are the bytes of `a`, which it would have skipped."""
    root, done = str(tmp_path / "runs"), {}
    run(two(None)[:1], root)
    workflow = threading.Thread(target=lambda: done.update(run(two(None), root)))
    with alone(root):
        workflow.start()
        workflow.join(1.0)
        assert workflow.is_alive() and not done
        for path in Path(root, "a_out").glob("*/*"):
            path.rename(tmp_path / path.name)
    workflow.join()
    assert done == {"a": "run", "b": "run"}
    assert f"gate: waiting for process {os.getpid()} on " in capsys.readouterr().out


@pytest.mark.timeout(60)
def test_workflows_run_beside_each_other_and_the_dead_hold_nothing_up(root):
    command = [sys.executable, "-c", HELD, root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert "there\n" in iter(other.stdout.readline, "")
        with working(root):
            assert sorted(line.split()[1] for line in workflows(root)) == sorted(
                map(str, (os.getpid(), other.pid))
            )
            with pytest.raises(Occupied, match=f"process {other.pid} on .* since 20"), alone(root):
                pass
        other.send_signal(signal.SIGKILL)
    assert workflows(root) == []
    with alone(root) as check:
        check()
    with working(root):
        assert len(workflows(root)) == 1


@pytest.mark.timeout(30)
def test_who_was_away_for_too_long_deletes_nothing_more(s3, monkeypatch):
    store_lock._probed.cache_clear()
    monkeypatch.setattr(store_lock, "HEARTBEAT_SECONDS", 3600.0)
    monkeypatch.setattr(store_lock, "STALE_SECONDS", -1.0)
    with alone("s3://reptok/runs") as check:
        check()
        with working("s3://reptok/runs"), pytest.raises(Superseded):
            check()


def test_what_is_no_lock_is_neither_followed_nor_believed(tmp_path):
    root, victim = tmp_path / "runs", tmp_path / "victim"
    victim.write_text("mine")
    (root / "_locks").mkdir(parents=True)
    (root / "_locks" / f"{presence.WORKFLOW}link").symlink_to(victim)
    os.mkfifo(root / "_locks" / f"{presence.WORKFLOW}fifo")
    assert workflows(str(root)) == []
    with alone(str(root)):
        pass
    assert victim.read_text() == "mine"
