"""Whose URLs must not be used: asked when a list is selected, at every hop of a download, and by a purge."""

from __future__ import annotations

from collections.abc import Collection

from pipelines.dag.artifact import Artifact
from pipelines.urls.canonical import Place, canonical

OPT_OUT = "opt_out.txt"
"""The file of a `urls` artifact that says who opted out when it was selected; absent if nobody did."""


class OptOut:
    """URLs and hosts whose owners do not want to take part; `url in opt_out` says whether one is theirs.

    Spelling makes no difference: see `canonical`.

    Args:
        entries: each a URL, or a host that stands for its subdomains too; a URL of nothing but a host is one.
    """

    def __init__(self, entries: Collection[str]) -> None:
        places = [
            _place(entry if "//" in entry else f"//{entry.removeprefix('*.')}")
            for entry in map(str.strip, entries)
        ]
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


def _place(url: str) -> Place:
    try:
        return canonical(url)
    except ValueError:  # not a URL: equal to itself
        return Place("", "", url.strip().lower())
