"""Whose URLs must not be used: asked when a list is selected, at every hop of a download, and by a purge."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from contextlib import suppress

from pipelines.dag.artifact import Artifact
from pipelines.urls.canonical import Place, canonical

OPT_OUT = "opt_out.txt"
"""The file of a `urls` artifact that says who opted out when it was selected; absent if nobody did."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)


class OptOut:
    """URLs and hosts whose owners do not want to take part; `url in opt_out` says whether one is theirs.

    Spelling makes no difference: see `canonical`.

    Args:
        entries: each a URL, or a host that stands for its subdomains too, be it that it begins with "*." or
            "."; a URL of nothing but a host is one.
    """

    def __init__(self, entries: Collection[str]) -> None:
        places = [_place(_as_url(entry.strip())) for entry in entries]
        self._hosts = frozenset(place.host for place in places if not place.path)
        self._places = frozenset(place for place in places if place.path)

    def __contains__(self, url: object) -> bool:
        place = _place(str(url or ""))
        if place in self._places:
            return True
        host = place.host
        while host and host not in self._hosts:
            host = host.partition(".")[2]
        return bool(host)


def opted_out_of(urls: Artifact) -> OptOut:
    """Who had opted out when a `urls` artifact was selected."""
    if not urls.files(OPT_OUT):
        return OptOut(())
    with urls.open(OPT_OUT) as file:
        return OptOut(file.read().decode().splitlines())


def _as_url(entry: str) -> str:
    """An entry of a list as a URL."""
    scheme = _SCHEME.match(entry)
    rest = entry[scheme.end() :] if scheme else entry
    with suppress(ValueError):  # one without brackets
        rest = f"[{ipaddress.IPv6Address(rest)}]"
    if rest.startswith(("*.", ".")):
        rest = rest.removeprefix("*").lstrip(".")
    return f"{scheme[0] if scheme else '//'}{rest}"


def _place(url: str) -> Place:
    try:
        return canonical(url)
    except ValueError:  # not a URL: equal to itself
        return Place("", "", url.strip().lower())
