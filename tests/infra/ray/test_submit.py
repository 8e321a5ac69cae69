"""`make submit`: where it goes, what it sends, what it refuses, and what it does when a driver is gone."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import namespace
import pytest

SCRIPT = namespace.REPOSITORY / "infra" / "ray" / "submit.py"
spec = importlib.util.spec_from_file_location("submit", SCRIPT)
assert spec is not None and spec.loader is not None
submit = importlib.util.module_from_spec(spec)
sys.modules["submit"] = submit
spec.loader.exec_module(submit)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["root=/data/runs"], ["root=/data/runs/"]),
        (["root=/data/runs"], ["root=/data/./x/../runs"]),
        (["root=s3://bucket/runs"], ["root=s3://bucket/runs/"]),
        (["root='/data/with space'"], ["root=/data/with space"]),
        (["root=/a", "root=/b"], ["root=/b"]),  # the last one counts
        ([], ["root=/default"]),
        (["++root=/a"], ["root=/a"]),  # as Hydra takes it
        (["root=/a", "+root=/b"], ["root=/b"]),
        (['root="/a, b"'], ["root=/a, b"]),
    ],
)
def test_spellings_of_one_root(one, other):
    assert submit.root_of(one, "/default") == submit.root_of(other, "/default")


def test_different_roots_differ():
    roots = {
        submit.root_of([f"root={root}"], "")
        for root in ("/a", "/A", "s3://a/b", "/s3:/a/b", "a", "/a/b", "/a'", '/a"', "'/a", "/a\n", "'/a\"")
    }
    assert len(roots) == 11


ODD = ["/a b", "/größe", "/a,b", "/a'b", '/a"b', "/a[1]", "~/runs", "/a&b", "/$HOME", "/a;b", "/a\\", "/a#b",
       "/(a)", "/a`id`", "/$(id)", "/a!b", "/*", "/a\nb", "/a?b", "/a\tb", "/a|b>c", "/-a"]  # fmt: skip


@pytest.mark.parametrize("root", ODD)
def test_a_shell_makes_the_same_words_of_an_entry_point(root):
    job = submit.job_of("http://127.0.0.1:8265", ["experiment=demo", f"root={root}"], in_place=False)
    command = "printf '%s\\0' " + job["entrypoint"]
    words = subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout.decode().split("\0")
    assert words[-2] == f"root={root}" and job["metadata"] == {"root": root}


@pytest.mark.parametrize(
    "arguments",
    [
        ["root=s3://AKIA:PLANTED/s@bucket/x"],
        ["experiment=demo", "++tracking.uri=postgresql://mlflow:PLANTED@db/x"],
        ["data.select_urls.sources=[a.parquet,https://h.org/x?X-Amz-Signature=PLANTED]"],
    ],
)
@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "", "http://user:PLANTED@127.0.0.1:1"])
def test_credentials_are_not_sent_nor_repeated(arguments, address, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "made-up")
    monkeypatch.setenv("PATH", "")  # no docker
    assert submit.main(arguments) == 2
    said = capsys.readouterr()
    assert "holds credentials" in said.err and "***" in said.err
    assert "PLANTED" not in said.out + said.err


@pytest.mark.parametrize(
    ("entrypoint", "metadata", "root"),
    [
        ("python pipelines/run_all.py root=/r experiment=demo", None, "/r"),
        ("python /app/pipelines/run_all.py experiment=demo", None, "/data/runs"),
        ("env A=1 python -u pipelines/run_all.py 'root=/with space'", None, "/with space"),
        ("python pipelines/run_all.py root=/r", {"root": "/told"}, "/told"),
        ("python -c 'print(1)'", None, None),
        ("echo 'unbalanced", None, None),
    ],
)
def test_the_root_of_a_job_that_others_submitted(entrypoint, metadata, root, monkeypatch):
    monkeypatch.setenv("REPTOK_ROOT", "/data/runs")
    assert submit.root_of_job({"entrypoint": entrypoint, "metadata": metadata}) == root


def test_a_job_in_place_has_nothing_of_this_host(monkeypatch):
    monkeypatch.setenv("REPTOK_ROOT", "/data/runs")
    job = submit.job_of("http://127.0.0.1:8265", ["experiment=demo", "name=a b"], in_place=True)
    assert shlex.split(job["entrypoint"]) == ["python", "pipelines/run_all.py", "experiment=demo", "name=a b"]
    assert job["runtime_env"] == {} and job["metadata"] == {"root": "/data/runs"}
    assert str(namespace.REPOSITORY) not in json.dumps(job)


def test_a_local_head_gets_this_folder_and_an_absolute_root():
    job = submit.job_of("http://127.0.0.1:8265", ["experiment=demo"], in_place=False)
    root = f"{namespace.REPOSITORY}/runs"
    assert job["metadata"] == {"root": root} and f"root={root}" in shlex.split(job["entrypoint"])
    assert ".git" in job["runtime_env"]["excludes"]


def test_another_machine_needs_a_root_that_both_see():
    with pytest.raises(submit.RefusedError, match="root=s3://"):
        submit.job_of("https://cluster.example:8265", ["experiment=demo"], in_place=False)
    job = submit.job_of("https://cluster.example:8265", ["root=s3://b/r"], in_place=False)
    assert "env_vars" not in job["runtime_env"], "this host's PATH is nothing to another machine"


def test_a_running_compose_head_is_where_it_goes(tmp_path):
    """The command that `docker` gets, and on which standard input; the real Compose is met elsewhere."""
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\necho "$@" >> calls\ncase "$*" in *" ps "*) echo 0123abc;; *) cat > stdin; exit 7;; esac\n'
    )
    docker.chmod(0o755)
    repository = tmp_path / "repository"
    (repository / "infra" / "ray").mkdir(parents=True)
    (repository / "infra" / "ray" / "submit.py").write_text(SCRIPT.read_text())

    def call():
        return subprocess.run(
            [sys.executable, repository / "infra/ray/submit.py", "experiment=demo", "name=a b"],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    assert "no cluster token" in call().stderr, "a folder without compose.yaml has no compose head"
    (repository / "compose.yaml").touch()
    assert call().returncode == 7, "the job's own exit status"
    _, execution = (tmp_path / "calls").read_text().splitlines()
    assert execution.endswith("exec -T head python - --in-place experiment=demo name=a b")
    assert (tmp_path / "stdin").read_text() == SCRIPT.read_text()


@pytest.fixture
def head():
    """A server that answers as Ray's head does: jobs and nodes to those who have the token."""
    answers = {
        "/api/jobs/": [],
        "/nodes?view=summary": {
            "data": {
                "summary": [
                    {"raylet": {"nodeId": "aa", "state": "ALIVE"}},
                    {"raylet": {"nodeId": "dd", "state": "DEAD"}},
                    {"raylet": {}},
                ]
            }
        },
    }

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.headers["Authorization"] != "Bearer right":
                return self.send_error(401)
            body = json.dumps(answers[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = submit.Head(f"http://127.0.0.1:{server.server_port}", "right")
    made.jobs, made.answers = answers["/api/jobs/"], answers
    yield made
    server.shutdown()


def job(status, node, root="/r"):
    entrypoint = f"python pipelines/run_all.py root={root}"
    names = {"submission_id": "reptok-1", "job_id": None}
    return {**names, "status": status, "driver_node_id": node, "entrypoint": entrypoint, "metadata": {}}


@pytest.mark.parametrize("node", ["dd", "never-heard-of"])
def test_a_job_that_says_running_on_a_dead_node_is_named(head, capsys, node):
    head.jobs.append(job("RUNNING", node))
    head.clear_root("/r")
    assert "job reptok-1 says RUNNING, but its driver's machine is gone" in capsys.readouterr().out


@pytest.mark.parametrize(("status", "node"), [("RUNNING", "aa"), ("PENDING", None)])
def test_a_second_live_job_on_a_root_is_refused(head, status, node):
    head.jobs += [job("FAILED", "aa"), job(status, node)]
    with pytest.raises(submit.RefusedError, match=f"reptok-1 works on /r and is {status}"):
        head.clear_root("/r")


@pytest.mark.parametrize("others", [("RUNNING", "aa", "/other"), ("SUCCEEDED", "aa"), ("STOPPED", "dd")])
def test_other_roots_and_ended_jobs_are_no_obstacle(head, capsys, others):
    head.jobs.append(job(*others))
    head.clear_root("/r")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("status", "node", "code", "outcome"),
    [
        ("FAILED", "dd", None, "LOST"),  # as a new head says that kept the database of the one before
        ("FAILED", "dd", 1, "FAILED"),
        ("FAILED", "aa", None, "FAILED"),
        ("SUCCEEDED", "dd", 0, "SUCCEEDED"),
        ("RUNNING", "dd", None, "LOST"),
    ],
)
def test_a_followed_job_is_lost_with_its_drivers_machine(head, status, node, code, outcome):
    class Silent:
        async def tail_job_logs(self, name):
            for line in ("first\n",):
                yield line

    head.answers["/api/jobs/reptok-1"] = {**job(status, node), "driver_exit_code": code}
    assert asyncio.run(submit.follow(Silent(), head, "reptok-1")) == outcome


def test_a_wrong_token_is_not_waited_for(head):
    head.require_token(seconds=1)
    with pytest.raises(submit.RefusedError, match="refused the token"):
        submit.Head(head.address, "wrong").require_token(seconds=1)
    with pytest.raises(submit.RefusedError, match="no Ray head took requests"):
        submit.Head("http://127.0.0.1:9", "right").require_token(seconds=0)


needs_namespace = pytest.mark.skipif(
    not namespace.allowed(), reason="needs the right to make a network namespace (root)"
)


@pytest.mark.slow
@needs_namespace
def test_a_head_that_answers_anybody_is_refused(home):
    done = namespace.run(
        """
        start_head
        RAY_AUTH_TOKEN=made-up $PYTHON infra/ray/submit.py experiment=smoke root=$HOME/runs
        echo "ended with $?"
        kill $HEAD; wait $HEAD
        """,
        home, seconds=300, mode="disabled",
    )  # fmt: skip
    assert "ended with 2" in done.stdout and "takes jobs from anybody" in done.stderr, (
        done.stdout + done.stderr
    )
    assert not (home / "runs").exists()


LOST = """
export RAY_gcs_storage=rocksdb RAY_gcs_storage_path=$HOME/gcs
mkdir $HOME/gcs
start_head
for root in stale busy; do
    $BIN/ray job submit --address http://127.0.0.1:8265 --no-wait \\
        --metadata-json "{\\"root\\": \\"$HOME/$root\\"}" -- sleep 3000 > /dev/null 2>&1
done
sleep 5
$PYTHON infra/ray/submit.py experiment=smoke root=$HOME/busy/ > $HOME/busy.log 2>&1
echo "busy ended with $?"
$PYTHON infra/ray/submit.py experiment=smoke until=download root=$HOME/runs > $HOME/submit.log 2>&1 &
SUBMIT=$!
for _ in $(seq 200); do grep -q "select_urls: done" $HOME/submit.log && break; sleep 0.3; done
[ $$ = 1 ] && for pid in $(ps -eo pid=); do  # the machine loses power: all of this namespace but two
    case $pid in 1 | $SUBMIT) ;; *) kill -9 $pid 2> /dev/null ;; esac
done
start_head
wait $SUBMIT; echo "submit ended with $?"
$PYTHON infra/ray/submit.py experiment=smoke until=select_urls root=$HOME/stale > $HOME/stale.log 2>&1
echo "stale ended with $?"
kill $HEAD; wait $HEAD
"""


@pytest.mark.slow
@needs_namespace
def test_a_job_whose_driver_is_gone_is_named_and_submitted_again(home):
    done = namespace.run(LOST, home, seconds=580)
    found = {name: home / f"{name}.log" for name in ("busy", "submit", "stale")}
    logs = {name: path.read_text() if path.exists() else "" for name, path in found.items()}
    told = done.stdout + done.stderr + "".join(f"\n--- {name}\n{log[-3000:]}" for name, log in logs.items())
    assert "busy ended with 2" in done.stdout and "ray job stop" in logs["busy"], told
    assert "submit ended with 0" in done.stdout, told
    assert "LOST" in logs["submit"] and "submitting again" in logs["submit"], told
    assert logs["submit"].count("submitted reptok-") == 2 and "download: done in" in logs["submit"], told
    assert "select_urls: skip (published)" in logs["submit"], "what was finished was kept"
    # By then a new head with a kept database has found out for itself, or the job is named: both go on.
    assert "stale ended with 0" in done.stdout and "select_urls: done" in logs["stale"], told
