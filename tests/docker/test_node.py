"""What the Ray containers tell Ray of themselves, and the folders in which their sessions live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.docker import scripts

node = scripts.load("node")


@pytest.mark.parametrize("total", [1, 2, 3, 8, 17])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("gpu", [False, True])
def test_the_cluster_never_counts_more_cpus_than_the_machine_has(total, workers, gpu):
    share = {role: node.cpu_share(role, total, workers, gpu) for role in ("head", "worker", "gpu-worker")}
    assert share["head"] + workers * share["worker"] + share["gpu-worker"] <= total
    assert min(share.values()) >= 0 and (share["gpu-worker"] > 0) == gpu


def test_one_worker_has_all_and_two_have_halves():
    assert node.cpu_share("worker", 8, 1, False) == 8
    assert node.cpu_share("worker", 8, 2, False) == 4
    assert node.cpu_share("worker", 8, 2, True) == 2 and node.cpu_share("gpu-worker", 8, 2, True) == 4


def test_a_wish_above_the_machine_is_the_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("REPTOK_OBJECT_STORE_BYTES", "1000")
    for wish, counted in (("4096", os.cpu_count()), ("", os.cpu_count()), ("1", 1)):
        monkeypatch.setenv("REPTOK_CPUS", wish)
        assert f"--num-cpus={counted}" in node.ray_command("worker", tmp_path)
        assert "--num-cpus=0" in node.ray_command("head", tmp_path)


def living(parent, name):
    """A process that takes the session's folder and becomes another, as the node's becomes Ray."""
    script = (
        "import os; from pathlib import Path; import node;"
        f"node.session_folder(Path({str(parent)!r}), {name!r});"
        "os.execvp('sh', ['sh', '-c', 'echo up; read line'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(scripts.FOLDER)},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def test_folders_of_containers_that_are_gone_are_removed_and_no_others(tmp_path):
    alive = living(tmp_path, "alive")
    (tmp_path / "gone" / "session_1").mkdir(parents=True)
    (tmp_path / "gone" / ".alive").touch()
    (tmp_path / "never-locked").mkdir()
    assert node.session_folder(tmp_path, "mine") == tmp_path / "mine"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["alive", "mine"]
    alive.communicate("\n")
    node.session_folder(tmp_path, "next")
    assert "alive" not in {p.name for p in tmp_path.iterdir()}


def test_the_lock_outlives_the_process_that_took_it_in_the_one_that_it_becomes(tmp_path):
    """`os.execvp` of Ray keeps the descriptor: the folder stays while Ray runs, and no longer."""
    process = living(tmp_path, "ray")
    assert node._held(tmp_path / "ray" / ".alive")
    process.communicate("\n")
    assert not node._held(tmp_path / "ray" / ".alive")


def test_healthy_means_that_every_place_answers():
    import threading
    import urllib.error
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/well" else 503)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_address[1]}"
    node.main(["healthy", f"{place}/well", f"{place}/well"])
    with pytest.raises(urllib.error.HTTPError):
        node.main(["healthy", f"{place}/well", f"{place}/ill"])
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError):
        node.main(["healthy", f"{place}/well"])


def starts_of(tmp_path, script):
    """How often a command was started, and with which status it ended."""
    counted = tmp_path / "starts"
    status = node.run_ray(["sh", "-c", f"echo x >> {counted}; {script}"])
    return len(counted.read_text().splitlines()), status


def test_a_start_that_fails_is_tried_again_and_an_end_is_an_end(tmp_path, monkeypatch):
    second = f"test $(wc -l < {tmp_path}/starts) -ge 2"
    assert starts_of(tmp_path, second) == (2, 0)
    (tmp_path / "starts").unlink()
    assert starts_of(tmp_path, "exit 3") == (node.STARTS, 3)
    (tmp_path / "starts").unlink()
    assert starts_of(tmp_path, "exit 0") == (1, 0)
    (tmp_path / "starts").unlink()
    monkeypatch.setattr(node, "START_SECONDS", -1.0)  # all of them had started
    assert starts_of(tmp_path, "kill -9 $$") == (1, 137)


def test_a_node_that_is_told_to_stop_ends_its_ray_and_is_not_started_again(tmp_path):
    script = (
        "import sys, node; sys.exit(node.run_ray(['sh', '-c', "
        "'trap \"echo ended; exit 1\" TERM; echo up; while :; do sleep 0.1; done']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(scripts.FOLDER)},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.terminate()
    assert process.communicate(timeout=60)[0] == "ended\n" and process.returncode == 1


def test_a_node_that_is_told_to_stop_while_ray_starts_ends_it(tmp_path):
    """The signal comes before there is a process that it could be handed on to."""
    script = (
        "import os, signal, subprocess, sys, node; began = subprocess.Popen;"
        "subprocess.Popen = lambda *a, **k: (began(*a, **k), os.kill(os.getpid(), signal.SIGTERM))[0];"
        "sys.exit(node.run_ray(['sh', '-c', 'sleep 300']))"
    )
    environment = os.environ | {"PYTHONPATH": str(scripts.FOLDER)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, timeout=250, check=False)
    assert done.returncode == 128 + signal.SIGTERM
