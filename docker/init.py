"""The one-shot service: `init.py prepare` makes missing secrets and hands the volumes to their services.

`init.py credentials` prints what a person logs in with, to a terminal only.

Secrets are drawn once and kept in SECRETS/values, which only root reads; each service sees a folder of its
own with what it needs in the form in which it reads it.
"""

from __future__ import annotations

import crypt  # of Python 3.11, which the image has: bcrypt without another package
import os
import secrets
import sys
from pathlib import Path

SECRETS, VOLUMES = Path("/secrets"), Path("/volumes")
PROGRAM, POSTGRES = 10001, 999
OWNERS = {"postgres": POSTGRES}
"""User and group of a volume or a folder of secrets; PROGRAM where none is named."""
S3_KEY_ID = "GK"  # Garage's key ids are GK and 24 hex digits


def draw(values: Path) -> dict[str, str]:
    """Return the secrets by name; those that are missing are drawn and kept first."""
    names = (
        "ray-token", "mlflow-password", "mlflow-secret-key", "postgres-password", "prometheus-password",
        "alertmanager-password", "grafana-password", "s3-rpc-secret", "s3-admin-token", "s3-key", "s3-secret",
    )  # fmt: skip
    private(values, owner=0)
    drawn = {}
    for name in names:
        path = values / name
        if not path.exists():
            put(
                path,
                S3_KEY_ID + secrets.token_hex(12) if name == "s3-key" else secrets.token_hex(32),
                owner=0,
            )
        drawn[name] = path.read_text().strip()
    return drawn


def rendered(value: dict[str, str]) -> dict[str, str]:
    """Each service's files, `folder/name` to content."""
    aws = f"[default]\naws_access_key_id = {value['s3-key']}\naws_secret_access_key = {value['s3-secret']}\n"
    probe = f"basic_auth:\n  username: reptok\n  password: {value['alertmanager-password']}\n"  # for amtool
    mlflow = (
        "[mlflow]\nmlflow_tracking_username = reptok\n"
        f"mlflow_tracking_password = {value['mlflow-password']}\n"
    )
    return {
        "ray/ray-token": value["ray-token"],
        "ray/mlflow-credentials": mlflow,
        "ray/aws-credentials": aws,
        "mlflow/password": value["mlflow-password"],
        "mlflow/secret-key": value["mlflow-secret-key"],
        "mlflow/pgpass": f"postgres:5432:mlflow:mlflow:{value['postgres-password']}\n",
        "postgres/password": value["postgres-password"],
        "prometheus/alertmanager-password": value["alertmanager-password"],
        "alertmanager/probe.yml": probe,
        "grafana/password": value["grafana-password"],
        "grafana/prometheus-password": value["prometheus-password"],
        "s3/rpc-secret": value["s3-rpc-secret"],
        "s3/admin-token": value["s3-admin-token"],
        "s3-setup/admin-token": value["s3-admin-token"],
        "s3-setup/aws-credentials": aws,
    }


def web_config(path: Path, password: str, owner: int) -> None:
    """Write the login that Prometheus and Alertmanager ask for; the hash of the same password is kept."""
    if path.exists():
        kept = path.read_text().rpartition("reptok: ")[2].strip()
        if crypt.crypt(password, kept) == kept:
            return
    hashed = crypt.crypt(password, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=2**10))
    put(path, f"basic_auth_users:\n  reptok: {hashed}\n", owner)


def put(path: Path, content: str, owner: int) -> None:
    """Write a file that its owner alone reads, at once or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400), "w") as file:
        file.write(content)
        os.fsync(file.fileno())
    os.chown(new, owner, owner)
    new.rename(path)


def private(folder: Path, owner: int) -> None:
    """Make a folder that its owner alone enters."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    os.chown(folder, owner, owner)


def prepare() -> None:
    """Secrets and volumes, as often as one likes."""
    SECRETS.chmod(0o755)
    value = draw(SECRETS / "values")
    for name, content in rendered(value).items():
        folder = SECRETS / Path(name).parent
        owner = OWNERS.get(folder.name, PROGRAM)
        private(folder, owner)
        path = SECRETS / name
        if not path.exists() or path.read_text() != content:
            put(path, content, owner)
    for service in ("prometheus", "alertmanager"):
        private(SECRETS / service, PROGRAM)
        web_config(SECRETS / service / "web.yml", value[f"{service}-password"], PROGRAM)
    hub_token = SECRETS / "ray" / "hub-token"  # the user's own; empty means none
    if not hub_token.exists():
        put(hub_token, "", PROGRAM)
    os.chown(hub_token, PROGRAM, PROGRAM)
    for volume in VOLUMES.iterdir():
        owner = OWNERS.get(volume.name, PROGRAM)
        os.chown(volume, owner, owner)


def credentials() -> None:
    """Print the logins.

    Raises:
        SystemExit: the output is not a terminal; a log or a pipe would keep them.
    """
    if not sys.stdout.isatty():
        raise SystemExit("error: credentials are shown on a terminal only, not written into a file or a pipe")
    value = draw(SECRETS / "values")
    rows = {
        "dashboard, ray job": ("", "ray-token"), "MLflow": ("reptok", "mlflow-password"),
        "Grafana": ("reptok", "grafana-password"), "Prometheus": ("reptok", "prometheus-password"),
        "Alertmanager": ("reptok", "alertmanager-password"),
    }  # fmt: skip
    for service, (user, name) in rows.items():
        print(f"{service:20} {user:8} {value[name]}")


if __name__ == "__main__":
    {"prepare": prepare, "credentials": credentials}[sys.argv[1]]()
