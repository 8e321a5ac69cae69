"""The fixed vocabulary of why a URL gave no image; it stands in the `reason` column and in the stats."""

from __future__ import annotations

import re

from pipelines.dag.rows import is_internal

REASONS: dict[str, str] = {
    "bad_url": "not a well-formed URL, or one that carries credentials",
    "scheme_refused": "neither http nor https",
    "address_refused": "leads to an address that is not public",
    "port_refused": "asks at a port where no web server is expected",
    "opted_out": "leads to a URL or host whose owner has opted out",
    "dns_failed": "the host has no address",
    "connect_failed": "no connection to the host",
    "connection_reset": "the host closed the connection before it answered",
    "tls_failed": "no valid certificate",
    "protocol_error": "the answer is not HTTP",
    "headers_too_large": "the answer's headers exceed the limit",
    "host_busy": "the host's turn did not come within the time that a URL waits",
    "timeout": "not complete within the time limit",
    "too_large": "more bytes than the limit",
    "too_many_redirects": "more redirects than the limit",
    "bad_redirect": "a redirect to nowhere",
    "encoding_refused": "a content encoding that was not asked for",
    "robots_disallowed": "robots.txt disallows the path",
    "robots_unreachable": "robots.txt answers with a server error, which means no",
    "robots_tag": "X-Robots-Tag says noai, noimageai or noindex",
    "truncated": "the body or the image ends too early",
    "not_an_image": "no image of a known format",
    "undecodable": "an image that cannot be decoded",
    "too_many_pixels": "more pixels than the limit, by its header",
    "too_many_scans": "a JPEG of more passes over its pixels than the limit",
    "too_much_memory": "an image whose decoding would take more memory than the limit, by its header",
    "too_small": "smaller than the smallest size to accept",
    "too_elongated": "more elongated than the limit",
    "engine_failed": "a failure of img2dataset that has no word in this vocabulary",
}
"""Reason to meaning.

Beside these there is `http_<status>` for any status but success and redirects, and `internal_<Type>` for what
nobody foresaw (see `pipelines/dag/rows.py`).
"""

CLASSES = frozenset(REASONS) | {f"http_{digit}xx" for digit in range(1, 6)}
"""Reasons with HTTP's numbers taken together: so many words that each may have a metric of its own."""

HEALING = frozenset(
    {
        "dns_failed", "connect_failed", "connection_reset", "tls_failed", "protocol_error", "timeout",
        "host_busy",
        "robots_unreachable", "truncated", "engine_failed",
        "http_408", "http_425", "http_429",
    }
)  # fmt: skip
"""Reasons, beside `http_5xx`, that may be gone at a later time."""

_HTTP = re.compile(r"http_[1-9]\d\d\Z")


def is_reason(reason: str) -> bool:
    """Whether a string belongs to the vocabulary."""
    return reason in REASONS or _HTTP.match(reason) is not None or is_internal(reason)


def may_heal(reason: str) -> bool:
    """Whether a later run may find an image where this one found none."""
    return reason in HEALING or reason.startswith("http_5") or is_internal(reason)


class Failure(Exception):
    """One URL's way ended, with a reason of the vocabulary.

    Attributes:
        reason: a key of `REASONS`, or `http_<status>`.
        transient: whether another try may succeed.
    """

    def __init__(self, reason: str, detail: str = "", *, transient: bool = False) -> None:
        super().__init__(f"{reason}: {detail or REASONS.get(reason, '')}")
        self.reason, self.transient = reason, transient
