"""One spelling for each host and URL: whether somebody opted out must not depend on how a list writes it."""

from __future__ import annotations

import ipaddress
import posixpath
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from yarl import URL


class Place(NamedTuple):
    """What a URL names, however it is written.

    Attributes:
        host: see `canonical_host`.
        port: ":" and the number, empty for those of http and https.
        path: path and query without percent-encoding, in lower case, without the last slash; a "+" in the
            query is a space.
    """

    host: str
    port: str
    path: str


def canonical_host(host: str) -> str:
    """Lower case, in ASCII (IDNA), without percent-encoding or a last dot; addresses of IPv6 shortened."""
    with suppress(ValueError):  # what is no host stands for itself
        if not host.isascii() or "%" in host:
            host = unquote(host)
            host = URL.build(scheme="http", host=host).raw_host or host
        elif ":" in host:
            address = ipaddress.IPv6Address(host.strip("[]"))
            host = (address.ipv4_mapped or address).compressed
    return host.lower().rstrip(".")


def canonical(url: str) -> Place:
    """The place that a URL names; http and https, and user names, make no difference.

    Raises:
        ValueError: not a URL.
    """
    parts = urlsplit(url.strip())
    port = parts.port
    path, query = unquote(parts.path), unquote(parts.query).replace("+", " ")
    if "/." in path or "//" in path:
        path = "/" + posixpath.normpath(path).lstrip("/")
    if query:
        path = f"{path or '/'}?{query}"
    return Place(
        canonical_host(parts.hostname or ""),
        "" if port in (None, 80, 443) else f":{port}",
        path.lower().rstrip("/"),
    )
