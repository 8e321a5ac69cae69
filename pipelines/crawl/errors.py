"""The HTTP client's errors as the failures of a row."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from pipelines.crawl.guard import AddressRefused, TooMuchReceived
from pipelines.crawl.reasons import Failure
from pipelines.dag.rows import is_ours


@asynccontextmanager
async def failures() -> AsyncIterator[None]:
    """Turn the HTTP client's exceptions into the vocabulary; ours and unknown ones pass as they are."""
    try:
        yield
    except Exception as error:
        failure = None if is_ours(error) else _in_words(error)
        if failure is None:
            raise
        raise failure from error


def _in_words(error: Exception) -> Failure | None:
    """What an exception means for the URL, None if that is not known."""
    message = str(error)
    beneath = getattr(error, "os_error", None)
    match error:
        case _ if _is_flood(error):
            return Failure("too_large", message)
        case AddressRefused():
            return Failure("address_refused", message)
        case aiohttp.ClientConnectorError() if isinstance(beneath, AddressRefused):
            return Failure("address_refused", message)
        case aiohttp.ClientConnectorDNSError():
            return Failure("dns_failed", message)
        case aiohttp.ClientSSLError():
            return Failure("tls_failed", message)
        case aiohttp.ClientConnectorError() if isinstance(beneath, ConnectionResetError):
            return Failure("connection_reset", message, transient=True)
        case aiohttp.ClientConnectorError():
            return Failure("connect_failed", message)
        case aiohttp.ClientPayloadError():
            return Failure("truncated", message)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return Failure("connection_reset", message, transient=True)
        case aiohttp.InvalidURL():
            return Failure("bad_url", message)
        case aiohttp.ClientError():
            large = "got more than" in message.lower() or "too many headers" in message.lower()
            return Failure("headers_too_large" if large else "protocol_error", message)
    return None


def _is_flood(error: Exception) -> bool:
    """Whether a connection was given up because too much came; of a body, only the message says so."""
    return isinstance(error.__cause__, TooMuchReceived) or TooMuchReceived.__name__ in str(error)
