"""What every container has to be, judged from Compose's own reading of its files and from `docker inspect`.

Both are brought to one `Service`; each rule is a function from it to complaints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ONE_SHOTS = {"init", "s3-setup"}
"""Services that end: nothing asks for their health, and a restart would run them for ever."""
ROOTS = {"init": {"CHOWN", "FOWNER", "DAC_OVERRIDE"}}
"""Services that run as root, and the only capabilities that they keep."""
NETWORKS = {"postgres": {"records"}, "init": set(), "alertmanager": {"monitoring"}, "grafana": {"monitoring"}}
"""Services that may be in no other network than these."""
RECORDS = {"postgres", "mlflow"}
"""The only services in the database's network."""
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|(^|_)KEY")
FILE_NAME = re.compile(r"FILE$|_PATH$|_SECRETS$")
URL_WITH_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")
EXACT_TAG = re.compile(r":v?\d+(\.\d+)+(-[a-z0-9.]+)*(@sha256:[0-9a-f]{64})?$")


@dataclass(frozen=True)
class Service:
    """One container's settings; sizes in bytes, 0 where there is no limit."""

    name: str
    image: str
    user: str
    read_only: bool
    privileged: bool
    cap_drop: frozenset[str]
    cap_add: frozenset[str]
    security: frozenset[str]
    restart: str
    health: Mapping[str, Any] | None
    ports: tuple[tuple[str, str], ...]
    memory: int
    pids: int
    shm: int
    environment: Mapping[str, str]
    arguments: tuple[str, ...]
    mounts: tuple[str, ...]
    networks: frozenset[str]
    namespaces: frozenset[str]
    logging: Mapping[str, str]


def from_config(name: str, service: Mapping[str, Any]) -> Service:
    """A service of `docker compose config --format json`."""
    health = service.get("healthcheck")
    networks = service.get("networks") or {}
    arguments = [*(service.get("entrypoint") or []), *(service.get("command") or [])]
    return Service(
        name=name,
        image=service.get("image", ""),
        user=str(service.get("user", "")),
        read_only=service.get("read_only", False),
        privileged=service.get("privileged", False),
        cap_drop=frozenset(service.get("cap_drop") or ()),
        cap_add=frozenset(service.get("cap_add") or ()),
        security=frozenset(service.get("security_opt") or ()),
        restart=service.get("restart", "no"),
        health=health,
        ports=tuple((port.get("host_ip", ""), str(port["target"])) for port in service.get("ports") or ()),
        memory=int(service.get("mem_limit", 0)),
        pids=int(service.get("pids_limit", 0)),
        shm=int(service.get("shm_size", 64 * 2**20)),
        environment={k: v or "" for k, v in (service.get("environment") or {}).items()},
        arguments=(*arguments, *((health or {}).get("test") or ())),
        mounts=tuple(mount.get("source", "") for mount in service.get("volumes") or ()),
        networks=frozenset() if service.get("network_mode") == "none" else frozenset(networks),
        namespaces=frozenset(str(service.get(key)) for key in ("network_mode", "pid", "ipc", "userns_mode")),
        logging=(service.get("logging") or {}).get("options") or {},
    )


def from_inspect(name: str, container: Mapping[str, Any]) -> Service:
    """A container of `docker inspect`."""
    config, host = container["Config"], container["HostConfig"]
    health = config.get("Healthcheck")
    bindings = host.get("PortBindings") or {}
    return Service(
        name=name,
        image=config["Image"],
        user=config["User"],
        read_only=host["ReadonlyRootfs"],
        privileged=host["Privileged"],
        cap_drop=frozenset(host["CapDrop"] or ()),
        cap_add=frozenset(host["CapAdd"] or ()),
        security=frozenset(host["SecurityOpt"] or ()),
        restart=host["RestartPolicy"]["Name"],
        health=health,
        ports=tuple((b["HostIp"], port.split("/")[0]) for port, bound in bindings.items() for b in bound),
        memory=host["Memory"],
        pids=host["PidsLimit"] or 0,
        shm=host["ShmSize"],
        environment=dict(entry.split("=", 1) for entry in config["Env"] or ()),
        arguments=(
            *(config["Entrypoint"] or ()),
            *(config["Cmd"] or ()),
            *((health or {}).get("Test") or ()),
        ),
        mounts=tuple(mount["Source"] for mount in container["Mounts"]),
        networks=frozenset(
            n.rpartition("_")[2] for n in container["NetworkSettings"]["Networks"] if n != "none"
        ),
        namespaces=frozenset((host["NetworkMode"], host["PidMode"], host["IpcMode"], host["UsernsMode"])),
        logging=host["LogConfig"]["Config"],
    )


Rule = Callable[[Service], Iterable[str]]


def loopback(s: Service) -> Iterable[str]:
    return (
        f"port {port} is published on {ip or 'every address'}" for ip, port in s.ports if ip != "127.0.0.1"
    )


def read_only_root(s: Service) -> Iterable[str]:
    return [] if s.read_only else ["its root can be written"]


def capabilities(s: Service) -> Iterable[str]:
    added = {name.removeprefix("CAP_") for name in s.cap_add} - ROOTS.get(s.name, set())
    kept = [] if {name.removeprefix("CAP_") for name in s.cap_drop} == {"ALL"} else ["it drops not all"]
    return [*kept, *(f"it has {name}" for name in added), *(["it is privileged"] if s.privileged else [])]


def no_new_privileges(s: Service) -> Iterable[str]:
    found = s.security & {"no-new-privileges:true", "no-new-privileges"}
    loosened = [f"it runs {option}" for option in s.security if "unconfined" in option]
    return [*loosened, *([] if found else ["it may gain privileges"])]


def own_namespaces(s: Service) -> Iterable[str]:
    return ["it shares a namespace of the host"] if "host" in s.namespaces else []


def non_root(s: Service) -> Iterable[str]:
    numbers = s.user.split(":")
    named = len(numbers) == 2 and all(number.isdigit() for number in numbers)
    return [] if s.name in ROOTS or (named and "0" not in numbers) else [f"it runs as {s.user or 'root'}"]


def limits(s: Service) -> Iterable[str]:
    bounds = {"memory": s.memory, "processes": s.pids}
    return (f"no limit of {what}" for what, bound in bounds.items() if bound <= 0)


def restarts(s: Service) -> Iterable[str]:
    right = "no" if s.name in ONE_SHOTS else "unless-stopped"
    return [] if s.restart == right else [f"restart is {s.restart!r}, not {right!r}"]


def health(s: Service) -> Iterable[str]:
    if s.name in ONE_SHOTS:
        return []
    if not s.health or (s.health.get("test") or s.health.get("Test") or ["NONE"])[0] == "NONE":
        return ["nothing asks for its health"]
    late = not (s.health.get("start_period") or s.health.get("StartPeriod"))
    early = bool(s.health.get("start_interval") or s.health.get("StartInterval"))
    return [*(["no start period"] if late else []), *(["start_interval, refused before 25"] if early else [])]


def exact_tag(s: Service) -> Iterable[str]:
    return [] if EXACT_TAG.search(s.image) else [f"its image {s.image} has no exact version"]


def no_secret_in_environment(s: Service) -> Iterable[str]:
    for name, value in s.environment.items():
        if value and SECRET_NAME.search(name) and not FILE_NAME.search(name):
            yield f"a secret in its environment: {name}"
    for text in (*s.environment.values(), *s.arguments):
        if URL_WITH_PASSWORD.search(text):
            yield "a URL with a password in its environment or command line"


def no_secret_in_arguments(s: Service) -> Iterable[str]:
    pattern = re.compile(r"(password|secret|token)[= ](?!/|\$)", re.IGNORECASE)
    return (f"a secret in its command line: {a}" for a in s.arguments if pattern.search(a))


def shared_memory(s: Service) -> Iterable[str]:
    store = int(s.environment.get("REPTOK_OBJECT_STORE_BYTES", 0))
    return [f"shared memory {s.shm} is not above the object store {store}"] if s.shm <= store else []


def apart(s: Service) -> Iterable[str]:
    allowed = NETWORKS.get(s.name)
    if allowed is not None and not s.networks <= allowed:
        yield f"it is in {sorted(s.networks - allowed)}"
    if "records" in s.networks and s.name not in RECORDS:
        yield "it reaches the database"


def no_engine(s: Service) -> Iterable[str]:
    return (f"it mounts {source}" for source in s.mounts if source.endswith("docker.sock") or source == "/")


def logs_rotate(s: Service) -> Iterable[str]:
    return [] if {"max-size", "max-file"} <= set(s.logging) else ["its log grows without end"]


RULES: tuple[Rule, ...] = (
    loopback, read_only_root, capabilities, no_new_privileges, own_namespaces, non_root, limits, restarts,
    health, exact_tag, no_secret_in_environment, no_secret_in_arguments, shared_memory, apart, no_engine,
    logs_rotate,
)  # fmt: skip


def broken(service: Service) -> dict[str, list[str]]:
    """Names of the rules that `service` breaks, with their complaints."""
    found = {rule.__name__: [f"{service.name}: {text}" for text in rule(service)] for rule in RULES}
    return {name: complaints for name, complaints in found.items() if complaints}
