"""The one-shot that makes secrets: once, for their owners alone, each service's its own."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.docker import scripts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users: needs root")


@pytest.fixture
def init(tmp_path):
    module = scripts.load("init")
    module.SECRETS, module.VOLUMES = tmp_path / "secrets", tmp_path / "volumes"
    for name in ("postgres", "data", "mlflow"):
        (module.VOLUMES / name).mkdir(parents=True)
    module.SECRETS.mkdir()
    return module


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (stat.S_IMODE(status.st_mode), status.st_uid, content)
    return found


def test_a_second_start_changes_nothing(init):
    init.prepare()
    before = state(init.SECRETS)
    init.prepare()
    assert state(init.SECRETS) == before


def test_only_its_owner_reads_a_secret_and_no_two_are_equal(init):
    init.prepare()
    found = state(init.SECRETS)
    for name, (mode, uid, content) in found.items():
        owner = {"values": 0, "postgres": 999}.get(name.split("/")[0], 10001)
        assert (mode, uid) == (0o400 if "/" in name else 0o700, owner), name
        assert content.strip() or "/" not in name or name == "ray/hub-token", name
    values = [content for name, (_, _, content) in found.items() if name.startswith("values/")]
    assert len(values) == len(set(values)) and all(len(value) >= 26 for value in values)


def test_a_service_sees_the_secrets_of_no_other(init):
    """What one folder holds of another's is a password that the first logs in with at the second."""
    init.prepare()
    values = {path.name: path.read_text() for path in (init.SECRETS / "values").iterdir()}
    held = {
        folder.name: {
            name
            for name, value in values.items()
            if any(value in path.read_text() for path in folder.iterdir())
        }
        for folder in init.SECRETS.iterdir()
        if folder.name != "values"
    }
    assert held == {
        "ray": {"ray-token", "mlflow-password", "s3-key", "s3-secret"},
        "mlflow": {"mlflow-password", "mlflow-secret-key", "postgres-password"},
        "postgres": {"postgres-password"},
        "prometheus": {"alertmanager-password"},
        "alertmanager": {"alertmanager-password"},
        "grafana": {"grafana-password", "prometheus-password"},
        "s3": {"s3-rpc-secret", "s3-admin-token"},
        "s3-setup": {"s3-admin-token", "s3-key", "s3-secret"},
    }  # fmt: skip


def test_a_lost_file_comes_back_and_an_interrupted_write_does_no_harm(init):
    init.prepare()
    before = state(init.SECRETS)
    (init.SECRETS / "mlflow/pgpass").unlink()
    (init.SECRETS / "values/.ray-token.new").write_text("half of a tok")
    (init.SECRETS / "ray/.ray-token.new").write_text("")
    init.prepare()
    after = state(init.SECRETS)
    assert {name: entry for name, entry in after.items() if not name.endswith(".new")} == before


def test_the_users_hub_token_is_kept_and_handed_over(init):
    init.prepare()
    token = init.SECRETS / "ray/hub-token"
    token.unlink()
    token.write_text("hf_mine")
    init.prepare()
    assert token.read_text() == "hf_mine" and token.stat().st_uid == 10001


def test_logins_are_hashes_of_their_passwords_and_are_made_again_with_another(init):
    crypt = pytest.importorskip("crypt")
    init.prepare()
    for service in ("prometheus", "alertmanager"):
        path = init.SECRETS / service / "web.yml"
        password = (init.SECRETS / "values" / f"{service}-password").read_text()
        hashed = yaml.safe_load(path.read_text())["basic_auth_users"]["reptok"]
        assert hashed.startswith("$2") and crypt.crypt(password, hashed) == hashed
        assert password not in path.read_text()
    (init.SECRETS / "values/prometheus-password").unlink()
    init.prepare()
    changed = yaml.safe_load((init.SECRETS / "prometheus/web.yml").read_text())["basic_auth_users"]["reptok"]
    fresh = (init.SECRETS / "values/prometheus-password").read_text()
    assert crypt.crypt(fresh, changed) == changed


def test_volumes_are_handed_to_their_services(init):
    init.prepare()
    assert {path.name: path.stat().st_uid for path in init.VOLUMES.iterdir()} == {
        "postgres": 999, "data": 10001, "mlflow": 10001,
    }  # fmt: skip


def test_credentials_go_to_a_terminal_and_nowhere_else(init):
    init.prepare()
    script = (
        "import sys, init; from pathlib import Path;"
        f"init.SECRETS = Path({str(init.SECRETS)!r}); init.credentials()"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    environment = os.environ | {"PYTHONPATH": str(scripts.FOLDER)}
    piped = subprocess.run(command, env=environment, capture_output=True, text=True)
    token = (init.SECRETS / "values/ray-token").read_text()
    assert (
        piped.returncode == 1 and "terminal only" in piped.stderr and token not in piped.stdout + piped.stderr
    )
    terminal, inside = pty.openpty()
    shown = subprocess.run(command, env=environment, stdout=inside, stderr=inside)
    os.close(inside)
    text = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert shown.returncode == 0 and token in text and "MLflow" in text
