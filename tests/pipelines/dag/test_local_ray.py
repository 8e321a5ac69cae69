"""A local Ray, and a training of two processes in it, are closed to everybody else on the machine."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow  # a Ray, a training and a thousand refused calls

FIXTURES = Path(__file__).parents[2] / "fixtures"
SHADOWS = ("pickle", "json", "numpy", "random", "uuid")
GLOO = "gloo's pairs ask nobody who he is, and have no switch for it; they do on loopback alone"
HEALTH = "OK GET /api/local_raylet_healthz"


@dataclass
class Running:
    told: dict[str, Any]
    here: Path
    process: subprocess.Popen[str]

    def listening(self) -> dict[int, str]:
        """Port to address of all that listens, of all its processes."""
        found = {}
        for pid in self.told["pids"]:
            if psutil.pid_exists(pid):
                for connection in psutil.Process(pid).net_connections(kind="inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        found[connection.laddr.port] = connection.laddr.ip
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    here, place = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("place")
    for name in SHADOWS:
        (here / f"{name}.py").write_text(f"open({str(place / 'imported')!r}, 'a').write({name!r})")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHON"))}
    process = subprocess.Popen(
        [sys.executable, "-P", str(FIXTURES / "local_ray_program.py"), str(place)],
        cwd=here, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    told = next((line for line in process.stdout if line.startswith("{")), None)
    assert told is not None, "it did not start"
    running = Running(json.loads(told), place, process)
    try:
        yield running
    finally:
        process.stdin.close()
        assert process.wait(120) == 0, "it must survive what strangers do"
        assert not Path(running.told["session"]).parent.exists(), "the folder goes with its Ray"


@pytest.fixture(scope="module")
def stranger(running: Running) -> dict[str, Any]:
    if os.getuid() != 0:
        pytest.skip("only root becomes another user")
    ports = [str(port) for port in running.listening()]
    command = [sys.executable, str(FIXTURES / "stranger.py"), *ports, "--enter", running.told["session"]]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "http"))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["uid"] == 65534
    return answer


def test_everything_listens_on_loopback_alone(running: Running) -> None:
    listening = running.listening()
    assert len(listening) > 5, "Ray's processes were looked at"
    open_ones = {
        port: ip for port, ip in listening.items() if ip not in ("127.0.0.1", "::ffff:127.0.0.1", "::1")
    }
    assert not open_ones


def test_no_port_answers_at_another_address_of_the_machine(running: Running) -> None:
    others = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    if not others:
        pytest.skip("this machine has no other address")
    for host in others:
        for port in running.listening():
            with socket.socket() as probe, pytest.raises(OSError):
                probe.settimeout(3)
                probe.connect((host, port))


def test_another_user_without_the_token_is_refused_at_every_port(
    running: Running, stranger: dict[str, Any]
) -> None:
    gloo = {
        connection.laddr.port
        for worker in running.told["workers"]
        for connection in psutil.Process(worker["pid"]).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    refused = 0
    for port, answers in stranger["ports"].items():
        given = [
            a for kind in ("grpc", "http") for a in answers[kind] if a.startswith("OK") and HEALTH not in a
        ]
        assert not given, (port, answers)
        asked = "UNAUTHENTICATED" in answers["grpc"] or {"401", "403"} & set(answers["http"])
        refused += bool(asked)
        assert asked or int(port) in gloo, (port, answers, GLOO)
    assert refused > 5


def test_another_user_cannot_enter_its_folder(running: Running, stranger: dict[str, Any]) -> None:
    parent = Path(running.told["session"]).parent
    assert stat.S_IMODE(parent.stat().st_mode) == 0o700
    tried = stranger["folder"]
    assert {"list", "rename", "rename its parent", "connect 0", "connect 1"} <= tried.keys()
    assert set(tried.values()) == {"PermissionError"}, tried


def test_workers_import_nothing_from_the_working_folder(running: Running) -> None:
    assert not (running.here / "imported").exists()
    for worker in running.told["workers"]:
        assert not any(file.startswith(str(running.process.args)) for file in worker["modules"])
        assert not [entry for entry in worker["path"] if "here" in Path(entry).parts]
