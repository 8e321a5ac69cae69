"""Credentials do not leave the program: what is written, printed or recorded passes through `redacted`.

They stand in URLs: as user and password, or among the query's parameters (presigned URLs). A configuration
that holds any is refused where it is composed; the environment may hold them, and messages may quote it.
"""

from __future__ import annotations

import re
from functools import partial
from urllib.parse import unquote_plus

MASK = "***"

# `scheme://user:password@`. A password may hold a slash, as keys of object stores do; a port may not be one.
_USER = re.compile(r"(?:([a-z][a-z0-9+.-]{0,30}):)?//([^/?#\s]{0,2000})@", re.IGNORECASE)
_USER_WITH_SLASH = re.compile(
    r"(s3[an]?://(?=[^/\s@]{0,200}:)|[a-z][a-z0-9+.-]{0,30}://(?=[^/\s:@\[?#]{0,200}:(?!\d*(?:[/?#\s\"',]|$))))"
    r"[^\s]{0,2000}@",
    re.IGNORECASE,
)
_USER_AFTER_ONE_SLASH = re.compile(
    r"\b([a-z][a-z0-9+.-]{1,30}:/)(?!/)[^/\s@:]{0,200}:[^\s@]{1,500}@", re.IGNORECASE
)
"""What a path makes of a URL."""
_USER_BARE = re.compile(
    r"(?<![\w.+%/:@-])(?!(?:mailto|sips?|xmpp|acct):)[\w.+%-]{1,100}:[^\s@/:\"'?#]{1,500}@(?=[\w-]{1,63}\.[\w.-]{1,200})",
    re.IGNORECASE,
)
"""`user:password@host.name`, as curl and proxies take it without a scheme."""
_NAMES_ALONE = re.compile(r"(postgres|mysql|mariadb|mssql|oracle|abfs|wasb|adl|ssh|sftp|hdfs)", re.IGNORECASE)
"""Schemes whose `user@` or `container@` is a name; elsewhere a token may stand there."""

# Repetitions are bounded: whatever an error quotes is searched in linear time.

_PARAMETER = re.compile(r"([?&;#])([^=?&;#\s]{1,200})=([^&;#\s]*)")
_NAMES = (
    r"(?<![a-z0-9])(?:(?:pg)?password|passwd|pwd|passphrase|secret(?:[_-]access)?[_-]key|api[_-]?key"
    r"|account[_-]?key|shared[_-]?access[_-]?(?:key|signature)|(?:amz|goog)[_-]signature"
    r"|(?:access|auth|refresh|security|session)[_-]token"
)
"""The alternatives go on, and end, where they are used."""
_SETTING = re.compile(rf"({_NAMES}|secret)\s{{0,5}}=\s{{0,5}})([^\s&;]+)", re.IGNORECASE)
_TOKEN = re.compile(r"((?<=[A-Z0-9])_TOKEN=)(\S+)")
_ENTRY = re.compile(rf"({_NAMES}|secret)[\"']\s{{0,5}}[:=]\s{{0,5}}[\"'])([^\"']{{1,2000}})", re.IGNORECASE)
_FIELD = re.compile(rf"({_NAMES}):\s{{0,5}})([^\s\"'*]\S*)", re.IGNORECASE)
_HEADER = re.compile(
    r"\b((?:bearer|basic)\s+|authorization[\"']?\s{0,5}[:=]\s{0,5}[\"']?(?:[a-z]{1,30}\s+)?(?!\S+\s+\*{3}))"
    r"[\w.~+/=-]{8,}",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(
    r"(.*\[)?(.*(token|secret|password|passwd|pwd|passphrase|signature|credentials?"
    r"|(api|auth|account|access)[_-]?key|(access[_-]?key|googleaccess|key[_-]pair)[_-]?id|private[_-]?key|jwt|hmac)"
    r"|(j|php)?sess(ion)?[_-]?id|hdn[a-z]{1,3}|pass|sig|key|auth|authorization|policy|code)([\[\]].*)?",
    re.IGNORECASE,
)
LEVELS = 3
"""How many times over a URL may be encoded within another one's query."""


def redacted(text: str) -> str:
    """The text with every credential in it replaced by `***`; without any, the text itself."""
    return _redacted(text, nested=True)


def _redacted(text: str, *, nested: bool) -> str:
    text = _USER.sub(_without_user, text)
    text = _USER_WITH_SLASH.sub(rf"\1{MASK}@", text)
    text = _USER_AFTER_ONE_SLASH.sub(rf"\1{MASK}@", text)
    text = _USER_BARE.sub(f"{MASK}@", text)
    text = _PARAMETER.sub(partial(_without_secret, nested), text)
    for written in (_SETTING, _TOKEN, _ENTRY, _FIELD):
        text = written.sub(rf"\1{MASK}", text)
    return _HEADER.sub(rf"\1{MASK}", text)


def _without_user(found: re.Match[str]) -> str:
    scheme, user = found[1] or "", found[2]
    if not user or (_NAMES_ALONE.match(scheme) and ":" not in unquote_plus(user)):
        return found[0]
    return f"{scheme}:" * bool(scheme) + f"//{MASK}@"


def _without_secret(nested: bool, found: re.Match[str]) -> str:
    mark, name, value = found.groups()
    if not value or value == MASK:
        return found[0]
    hidden = bool(_SECRET_NAME.fullmatch(unquote_plus(name)))
    for _ in range(LEVELS if nested else 0):  # a URL in a URL
        if hidden or "%" not in value:
            break
        value = unquote_plus(value)
        hidden = ("=" in value or "@" in value) and _redacted(value, nested=False) != value
    return f"{mark}{name}={MASK}" if hidden else found[0]
