"""The one-shot service that gives a new Garage node its place, our key and the bucket `reptok`.

The key is the one that docker/init.py drew, so that the program has its credentials before the server runs.
"""

from __future__ import annotations

import configparser
import json
import urllib.request
from pathlib import Path
from typing import Any

ADMIN, BUCKET = "http://s3:3903", "reptok"
SECRETS = Path("/run/secrets/reptok")
CAPACITY = 2**40  # bytes; a weight among nodes, and there is one


def call(name: str, body: Any = None) -> Any:
    """Call Garage's administration; a GET without a body, else a POST."""
    token = (SECRETS / "admin-token").read_text().strip()
    request = urllib.request.Request(
        f"{ADMIN}/v2/{name}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


def main() -> None:
    """Do what is not done yet."""
    layout = call("GetClusterLayout")
    if not layout["roles"]:
        (node,) = call("GetClusterStatus")["nodes"]
        role = {"id": node["id"], "zone": "here", "capacity": CAPACITY, "tags": []}
        call("UpdateClusterLayout", {"roles": [role]})
        call("ApplyClusterLayout", {"version": layout["version"] + 1})
    credentials = configparser.ConfigParser()
    credentials.read(SECRETS / "aws-credentials")
    key = credentials["default"]["aws_access_key_id"]
    if key not in {known["id"] for known in call("ListKeys")}:
        secret = credentials["default"]["aws_secret_access_key"]
        call("ImportKey", {"accessKeyId": key, "secretAccessKey": secret, "name": "reptok"})
    buckets = {alias: bucket["id"] for bucket in call("ListBuckets") for alias in bucket["globalAliases"]}
    if BUCKET not in buckets:
        buckets[BUCKET] = call("CreateBucket", {"globalAlias": BUCKET})["id"]
    rights = {"read": True, "write": True, "owner": False}
    call("AllowBucketKey", {"bucketId": buckets[BUCKET], "accessKeyId": key, "permissions": rights})
    print(f"bucket {BUCKET} is ready")


if __name__ == "__main__":
    main()
