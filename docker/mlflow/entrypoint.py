"""Start the MLflow server with the secrets that lie in files; the database is upgraded first.

The password of Postgres is read by its client (PGPASSFILE) and never seen here. What MLflow takes from its
environment or a file with a password in it is made here, and stands in no configuration of the container.
"""

import os
import subprocess
import sys
from pathlib import Path

SECRETS = Path(os.environ.get("MLFLOW_SECRETS", "/run/secrets/reptok"))
DATABASE = os.environ["MLFLOW_BACKEND_STORE_URI"]
# Without the cache every call hashes the password again, 150 ms of a metric's logging.
AUTH = """\
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = {database}
admin_username = reptok
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


def main() -> None:
    """Upgrade the database, write the server's settings, become the server."""
    password = (SECRETS / "password").read_text().strip()
    os.umask(0o077)
    settings = Path.home() / "auth.ini"
    settings.write_text(AUTH.format(database=DATABASE, password=password.replace("%", "%%")))
    subprocess.run(["mlflow", "db", "upgrade", DATABASE], check=True)
    os.environ |= {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": (SECRETS / "secret-key").read_text().strip(),
    }
    server = ["mlflow", "server", "--app-name", "basic-auth", "--workers", "1", "--host", "0.0.0.0"]
    os.execvp("mlflow", [*server, *sys.argv[1:]])


if __name__ == "__main__":
    main()
