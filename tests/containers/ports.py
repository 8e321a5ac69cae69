"""Which sockets listen in a container, and which may answer strangers: the allow-list with its reasons."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

LOOPBACK = re.compile(r"7F$")
RAY = r"(head|worker)"

ALLOWED: tuple[tuple[str, str, str, str], ...] = (
    # service, port, request and result, why a stranger gets an answer
    (
        RAY,
        "8080|44227",
        r"(GET|POST|DELETE) /.* (none|wrong|basic) \d+",
        "metrics: numbers for Prometheus, no calls",
    ),
    (
        "head",
        "8265",
        r"(GET|POST|DELETE) / \w+ \d+",
        "the dashboard's empty page; its calls ask for the token",
    ),
    ("head", "8265", r"GET /api/authentication_mode \w+ \d+", "tells the page to ask for a token"),
    ("head", "8265", r"GET /api/gcs_healthz \w+ \d+", "health: one word"),
    (RAY, "52365", r"GET /api/local_raylet_healthz \w+ \d+", "health: one word"),
    (RAY, r"\d+", r"gRPC /grpc\.health\.v1\.Health/Check \w+ OK", "health: one word"),
    ("mlflow", "5000", r"(GET|POST|DELETE) /health \w+ \d+", "health: one word"),
    (
        "mlflow",
        "5000",
        r"\w+ /(version|graphql) wrong 500",
        "fails on a login that it cannot read, without an answer",
    ),
    (
        "s3",
        "3900|3903",
        r"(GET|POST|DELETE) /\S* \w+ 400",
        "its word for a call that it does not know or a login that is none of S3's; calls it knows say 403",
    ),
    ("alertmanager|prometheus|grafana|s3", r"\d+", r"GET /(api/)?health \w+ \d+", "health: one word"),
)
"""Everything else has to refuse, or not to know, whoever has no token."""

REFUSED = {"401", "403", "UNAUTHENTICATED", "PERMISSION_DENIED", "refused", "closed"}
UNKNOWN = {"404", "405", "UNIMPLEMENTED"}
"""There is nothing of that name: no answer to anybody."""


def listening(pid: int) -> list[int]:
    """TCP ports of a container, by the number of its first process, that others than itself can reach."""
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, port = local.partition(":")
            if state == "0A" and not LOOPBACK.search(address):
                ports.add(int(port, 16))
    return sorted(ports)


def targets(containers: dict[str, dict[str, Any]], network: str | None = None) -> list[tuple[str, str, int]]:
    """Service, address and port of everything that listens, in one network or in all."""
    found = []
    for name, container in containers.items():
        if not container["State"]["Running"]:
            continue
        for member, settings in container["NetworkSettings"]["Networks"].items():
            if settings["IPAddress"] and (network is None or member.endswith(network)):
                for port in listening(container["State"]["Pid"]):
                    found.append((name.rpartition("-")[0], settings["IPAddress"], port))
    return found


def reason(service: str, port: int, request: str, result: str) -> str | None:
    """Why the allow-list lets this answer pass; None if it does not."""
    for services, ports, requests, why in ALLOWED:
        asked = ((services, service), (ports, str(port)), (requests, f"{request} {result}"))
        if all(re.fullmatch(pattern, value) for pattern, value in asked):
            return why
    return None


def open_to_strangers(answers: list[tuple[str, int, str, str]]) -> list[tuple[str, int, str, str]]:
    """The answers that nothing excuses."""
    return [
        (service, port, request, result)
        for service, port, request, result in answers
        if result not in REFUSED | UNKNOWN and reason(service, port, request, result) is None
    ]
