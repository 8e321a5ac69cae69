"""A lock on an object store: a record of its owner, kept fresh while the work goes on.

Where the store keeps conditions (S3 does, and moto's server), the record is put on the condition that there
is none, and a stale one is replaced on the condition that it is still the same: one of many gets it, and an
owner who was away too long learns that it is no longer his. Every write of the work is fenced, too (`fence`).

Some servers answer that they have written, whatever the condition: a probe finds that out before the first
write. There each who wants the lock puts a ticket of his own, waits until whoever came at the same time must
be seen, and takes the lock if nobody has it and no fresh ticket is older. That keeps drivers apart that are
never away for longer than `STALE_SECONDS`; it fences nothing, which is said.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipelines.dag.lock import LOCKS, POLL_SECONDS, described
from pipelines.dag.s3 import S3Folder
from pipelines.dag.storage import Folder, open_folder
from pipelines.dag.writing import Changed, StorageError, Superseded

SETTLE_SECONDS = 1.0
HEARTBEAT_SECONDS, STALE_SECONDS = 20.0, 120.0
UNKNOWN = ("NotImplemented", "InvalidArgument", "InvalidRequest")
"""Answers of a server that knows no conditions; any other error says nothing of it."""
_RECORD: dict[str, Callable[[Any], Any]] = {"token": str, "pid": int, "host": str, "time": float}

Announce = Callable[[str], None]


def owned(folder: Folder, name: str, announce: Announce) -> AbstractContextManager[Callable[[], None] | None]:
    """Hold a lock of a store; gives what raises `Superseded` when it is lost, None if nobody can tell.

    Args:
        folder: the store's root.
        name: of the lock.
        announce: is told once for whom this waits.
    """
    if isinstance(folder, S3Folder) and keeps_conditions(folder):
        return _conditional(folder, f"{LOCKS}/{name}.json", announce)
    return _ticketed(folder, f"{LOCKS}/{name}", announce)


def holders(folder: Folder, prefix: str, tidy: bool) -> list[str]:
    """See `lock.holders`."""
    found, locks = [], open_folder(folder.url_of(LOCKS))
    for name in locks.sizes():
        if name.startswith(prefix):
            if owner := _alive(locks, name):
                found.append(_named(owner))
            elif tidy:
                locks.remove(name)
    return found


def keeps_conditions(folder: S3Folder) -> bool:
    """Whether the server of a bucket refuses a write whose condition does not hold; asked once."""
    return _probed(folder.url, os.environ.get("AWS_ENDPOINT_URL", ""))


@lru_cache(64)
def _probed(url: str, endpoint: str) -> bool:
    folder, name = S3Folder(url), f"{LOCKS}/probe-{uuid.uuid4().hex}"
    folder.put_bytes(name, b"first")
    kept = 0
    try:
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"00000000000000000000000000000000"'}):
            try:
                folder.put_bytes(name, b"second", **condition)
            except Changed:
                kept += 1
            except StorageError as error:
                if not any(code in str(error) for code in UNKNOWN):
                    raise
                break  # it knows no conditions, and says so
    finally:
        folder.remove(name)
    if kept < 2:
        print(
            f"  note: {endpoint or url} does not keep conditions of writes (If-None-Match, If-Match): runs "
            "are kept apart by tickets, and late writes of a worker that was given up are not held off",
            flush=True,
        )
    return kept == 2


@contextmanager
def _conditional(folder: S3Folder, name: str, announce: Announce) -> Iterator[Callable[[], None]]:
    token, begun, waited = uuid.uuid4().hex, time.time(), False
    condition = {"IfNoneMatch": "*"}
    while True:
        try:
            etag = folder.put_bytes(name, _record(token, begun), **condition)
            break
        except Changed:
            condition = {"IfNoneMatch": "*"}
        with suppress(FileNotFoundError):  # it was given back meanwhile
            data, found, age = folder.read_tagged(name)
            owner = _owner(data)
            if owner and owner["token"] == token:  # an answer was lost
                etag = found
                break
            if owner is None or age > STALE_SECONDS or _is_dead(owner):
                condition = {"IfMatch": found}
                continue
            if not waited:
                announce(_named(owner))
            waited = True
        time.sleep(POLL_SECONDS)
    lost, released = threading.Event(), threading.Event()

    def keep_fresh() -> None:
        nonlocal etag
        while not released.wait(HEARTBEAT_SECONDS):
            with suppress(Exception):  # the store is away for a moment
                try:
                    etag = folder.put_bytes(name, _record(token, begun), IfMatch=etag)
                except Changed:
                    if not is_ours():
                        lost.set()
                        return

    def is_ours() -> bool:
        nonlocal etag
        try:
            data, found, _ = folder.read_tagged(name)
        except FileNotFoundError:
            return False
        owner = _owner(data)
        if owner is None or owner["token"] != token:
            return False
        etag = found
        return True

    def check() -> None:
        if lost.is_set() or not is_ours():
            raise Superseded(f"the lock {name} was lost: another process took it over, as this one was away")

    heart = threading.Thread(target=keep_fresh, daemon=True)
    heart.start()
    try:
        yield check
    finally:
        released.set()
        heart.join()
        if is_ours():
            folder.remove(name)


@contextmanager
def _ticketed(folder: Folder, place: str, announce: Announce) -> Iterator[None]:
    token, waited, begun = uuid.uuid4().hex, False, time.time()
    ticket = f"{place}/{token}.json"

    held, writing = False, threading.Lock()

    def show() -> None:
        with writing:
            folder.write_bytes(ticket, _record(token, begun, held))

    show()
    time.sleep(SETTLE_SECONDS)
    released = threading.Event()

    def keep_fresh() -> None:
        while not released.wait(HEARTBEAT_SECONDS):
            with suppress(Exception):  # the store is away for a moment
                show()

    heart = threading.Thread(target=keep_fresh, daemon=True)
    heart.start()
    try:
        while first := _before(folder, place, (begun, token)):
            if not waited:
                announce(_named(first))
            waited = True
            time.sleep(POLL_SECONDS)
        held = True
        show()  # who comes now waits, whatever the clocks say
        yield None
    finally:
        released.set()
        heart.join()
        folder.remove(ticket)


def _before(folder: Folder, place: str, own: tuple[float, str]) -> dict[str, Any] | None:
    """Who has the lock, or an older ticket, and keeps it fresh."""
    tickets = open_folder(folder.url_of(place))
    for owner in filter(None, (_alive(tickets, name) for name in tickets.sizes())):
        if owner["token"] != own[1] and (owner["held"] or (owner["time"], owner["token"]) < own):
            return owner
    return None


def _alive(folder: Folder, name: str) -> dict[str, Any] | None:
    """Whom a record names, if he keeps it fresh and has not ended."""
    try:
        if isinstance(folder, S3Folder):
            data, _, age = folder.read_tagged(name)
        else:
            data, age = folder.read_bytes(name), time.time() - folder.modified(name)
    except FileNotFoundError:
        return None
    owner = _owner(data)
    return None if owner is None or age > STALE_SECONDS or _is_dead(owner) else owner


def _record(token: str, begun: float, held: bool = True) -> bytes:
    owner = {"token": token, "pid": os.getpid(), "host": socket.gethostname(), "time": begun}
    return json.dumps({**owner, "held": held, "pids": _pids()}).encode()


def _pids() -> str:
    """Whose process numbers these are: containers may share a name and have numbers of their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _owner(data: bytes) -> dict[str, Any] | None:
    """Whom a record names; None if it is no record of ours."""
    try:
        record = json.loads(data)
        owner = {key: kind(record[key]) for key, kind in _RECORD.items()}
        owner["held"], owner["pids"] = bool(record.get("held")), str(record.get("pids"))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return owner if 0 < owner["pid"] < 1 << 31 and 0 <= owner["time"] < 1e11 else None


def _named(owner: dict[str, Any]) -> str:
    return described(owner["pid"], owner["host"], owner["time"])


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether a process of this machine has ended without a word."""
    if (owner["host"], owner["pids"]) != (socket.gethostname(), _pids()):
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
