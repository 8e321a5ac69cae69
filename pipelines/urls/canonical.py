"""One spelling for each host and URL: who opted out, and what is the same sample, must not depend on it."""

from __future__ import annotations

import ipaddress
import posixpath
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from yarl import URL

_SCHEME = "^https?://"
_SEGMENT = "[0-9A-Za-z_~=,-][0-9A-Za-z_~=,.-]*"
_SPELLED = rf"{_SCHEME}[a-z0-9-]+(\.[a-z0-9-]+)+/({_SEGMENT}(/{_SEGMENT})*/?)?(\?[0-9A-Za-z_~=&.-]+)?$"
"""Most URLs are spelled as `spelled` spells them, as can be seen of many at a time."""


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


def spelled(url: str) -> str:
    """A URL in its one spelling, which stands for the sample; unlike `canonical`, paths differ by case.

    Without scheme (http and https lead to the same picture), user name, default port and fragment; the host
    as `canonical_host`, and what need not be percent-encoded is not. What is no URL stands for itself.
    """
    text = url.strip()
    try:
        found = URL(text)
        host = found.raw_host
        if found.scheme not in ("http", "https") or not host:
            return text
        port = "" if found.port in (None, 80, 443) else f":{found.port}"
    except ValueError:
        return text
    return f"{canonical_host(host)}{port}{found.raw_path_qs}"


def all_spelled(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same for a column of URLs; null stays."""
    usual = pc.fill_null(pc.match_substring_regex(urls, _SPELLED), True)
    found = pc.replace_substring_regex(urls, _SCHEME, "")
    if pc.all(usual).as_py():
        return found
    values = np.asarray(found.to_numpy(), object)
    odd = np.flatnonzero(~np.asarray(usual))
    values[odd] = [spelled(url) for url in urls.take(pa.array(odd)).to_pylist()]
    return pa.chunked_array([pa.array(values, pa.string())])
