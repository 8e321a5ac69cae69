"""Ask every address, by every protocol, without and with a wrong token; run by host and by a neighbour.

    python probe.py < TARGETS      [[service, address, port], ...] as JSON; prints the answers as JSON

An answer is [service, port, request, result]. Results are HTTP statuses, gRPC codes, "closed" where nothing
of the protocol came back, or "open" and "refused" for protocols with a login of their own.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import re
import socket
import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PATHS = (
    "/", "/api/jobs/", "/api/version", "/api/authentication_mode", "/api/gcs_healthz", "/api/cluster_status",
    "/api/local_raylet_healthz", "/nodes?view=summary", "/api/v0/logs", "/metrics", "/health", "/version",
    "/api/2.0/mlflow/experiments/search", "/graphql", "/-/healthy", "/api/v1/query?query=up",
    "/api/v1/alerts", "/api/v2/alerts", "/api/v2/silences", "/api/health", "/api/datasources",
    "/v2/GetClusterStatus", "/reptok?list-type=2",
)  # fmt: skip
TOKENS = {
    "none": {},
    "wrong": {"Authorization": "Bearer wrong"},
    "basic": {"Authorization": "Basic cmVwdG9rOng="},
}
HEALTH = "/grpc.health.v1.Health/Check"
OBJECTS = [f"/ray.rpc.ObjectManagerService/{call}" for call in ("Push", "Pull", "FreeObjects")]
SECONDS = 4

Answer = tuple[str, int, str, str]


def by_http(address: str, port: int) -> Iterator[tuple[str, str]]:
    """Methods x paths x tokens; stops where the port does not speak HTTP."""
    for path in PATHS:
        for method in ("GET", "POST", "DELETE"):
            for name, headers in TOKENS.items():
                connection = http.client.HTTPConnection(address, port, timeout=SECONDS)
                try:
                    body = b"{}" if method == "POST" else None
                    kind = {"Content-Type": "application/json"}
                    connection.request(method, path, body, {**headers, **kind})
                    yield f"{method} {path} {name}", str(connection.getresponse().status)
                except (OSError, http.client.HTTPException):
                    yield f"{method} {path} {name}", "closed"
                    if path == "/":
                        return
                finally:
                    connection.close()


def ray_calls() -> list[str]:
    """Every call of Ray's services, out of the stubs in its package."""
    folder = Path(importlib.util.find_spec("ray").submodule_search_locations[0]) / "core/generated"
    texts = [path.read_text() for path in folder.glob("*_pb2_grpc.py")]
    return sorted(
        {call for text in texts for call in re.findall(r"'(/ray\.rpc\.[\w.]+/\w+)'", text)} | set(OBJECTS)
    )


def by_grpc(address: str, port: int) -> Iterator[tuple[str, str]]:
    """Calls x tokens; an empty message is a valid one of every type."""
    import grpc

    for name, metadata in (("none", ()), ("wrong", (("authorization", "Bearer wrong"),))):
        with grpc.insecure_channel(f"{address}:{port}") as channel:
            for call in (HEALTH, *ray_calls()):
                try:
                    channel.unary_unary(call)(b"", timeout=SECONDS, metadata=metadata)
                    yield f"gRPC {call} {name}", "OK"
                except grpc.RpcError as error:
                    code = error.code().name
                    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") and call == HEALTH:
                        yield f"gRPC {call} {name}", "closed"
                        break
                    yield f"gRPC {call} {name}", code


def by_postgres(address: str, port: int) -> Iterator[tuple[str, str]]:
    """A start-up message: anything but a demand for a password (or an error) lets us in."""
    pairs = b"user\0mlflow\0database\0mlflow\0\0"
    try:
        with socket.create_connection((address, port), timeout=SECONDS) as connection:
            connection.sendall(struct.pack("!ii", len(pairs) + 8, 196608) + pairs)
            head = connection.recv(9)
    except OSError:
        head = b""
    admitted = head[:1] == b"R" and head[5:9] == b"\0\0\0\0"
    known = head[:1] in (b"R", b"E")
    yield "postgres", "open" if admitted else "refused" if known else "closed"


def by_torch(address: str, port: int) -> Iterator[tuple[str, str]]:
    """The rendezvous store of a training asks nobody who he is."""
    import datetime

    from torch.distributed import TCPStore

    try:
        span = datetime.timedelta(seconds=SECONDS)
        store = TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=span)
        yield "torch store", "open" if store.num_keys() >= 0 else "closed"
    except Exception:
        yield "torch store", "closed"


def probe(target: tuple[str, str, int]) -> list[Answer]:
    """Everything at one address; what speaks no HTTP and no gRPC is asked by the other protocols."""
    service, address, port = target
    answers = [*by_http(address, port), *by_grpc(address, port)]
    if all(result == "closed" for _, result in answers):
        answers += [*by_postgres(address, port)]
        if all(result == "closed" for _, result in answers):
            answers += [*by_torch(address, port)]
    return [(service, port, request, result) for request, result in answers]


if __name__ == "__main__":
    with ThreadPoolExecutor(8) as threads:
        print(json.dumps([answer for found in threads.map(probe, json.load(sys.stdin)) for answer in found]))
