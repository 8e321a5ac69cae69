"""Credentials do not leave the program: what is written, printed or recorded passes through `redacted`.

They stand in URLs: as user and password, or among the query's parameters (presigned URLs). A configuration
that holds any is refused where it is composed; the environment may hold them, and messages may quote it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

MASK = "***"

# `scheme://user:password@`. A password may hold a slash, as keys of object stores do; a port may not be one.
_USER = re.compile(r"(?:([a-z][a-z0-9+.-]{0,30}):)?//([^/?#\s]{0,2000})@", re.IGNORECASE)
_USER_WITH_SLASH = re.compile(
    r"(s3[an]?://(?=[^/\s@]{0,200}:)|[a-z][a-z0-9+.-]{0,30}://(?=[^/\s:@\[?#]{0,200}:(?!\d*(?:[/?#\s\"',]|$))))"
    r"[^\s]{0,2000}@",
    re.IGNORECASE,
)
_NAMES_ALONE = re.compile(r"(postgres|mysql|mariadb|mssql|oracle|abfs|wasb|adl|ssh|sftp|hdfs)", re.IGNORECASE)
"""Schemes whose `user@` or `container@` is a name; elsewhere a token may stand there."""

# Repetitions are bounded: whatever an error quotes is searched in linear time.

_PARAMETER = re.compile(r"([?&;#])([^=?&;#\s]{1,200})=([^&;#\s]*)")
_SETTING = re.compile(
    r"\b((?:[\w.-]{0,60}[._-])?(?:password|passwd|pwd|passphrase|secret(?:[_-]access)?[_-]key|secret|api[_-]?key"
    r"|access[_-]token|auth[_-]token))=([^\s&;]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\b(bearer|basic)(\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
_SECRET_NAME = re.compile(
    r"(.*(token|secret|password|passwd|pwd|passphrase|signature|credentials?|api[_-]?key|access[_-]?key"
    r"|(access[_-]?key|googleaccess|key[_-]pair)[_-]?id|private[_-]?key|jwt|hmac)"
    r"|sig|key|auth|authorization|policy|code)",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text with every credential in it replaced by `***`; without any, the text itself."""
    text = _USER.sub(_without_user, text)
    text = _USER_WITH_SLASH.sub(rf"\1{MASK}@", text)
    text = _PARAMETER.sub(_without_secret, text)
    text = _SETTING.sub(rf"\1={MASK}", text)
    return _HEADER.sub(rf"\1\2{MASK}", text)


def _without_user(found: re.Match[str]) -> str:
    scheme, user = found[1] or "", found[2]
    if not user or (_NAMES_ALONE.match(scheme) and ":" not in unquote_plus(user)):
        return found[0]
    return f"{scheme}:" * bool(scheme) + f"//{MASK}@"


def _without_secret(found: re.Match[str]) -> str:
    mark, name, value = found.groups()
    return f"{mark}{name}={MASK}" if value and _SECRET_NAME.fullmatch(unquote_plus(name)) else found[0]
