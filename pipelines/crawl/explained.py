"""The HTTP client's exceptions in the words of the vocabulary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from pipelines.crawl.guard import AddressRefused
from pipelines.crawl.reasons import Failure


@asynccontextmanager
async def explained() -> AsyncIterator[None]:
    """Turn the HTTP client's exceptions into the vocabulary."""
    try:
        yield
    except AddressRefused as error:
        raise Failure("address_refused", str(error)) from error
    except aiohttp.ClientConnectorDNSError as error:
        refused = isinstance(error.os_error, AddressRefused)
        raise Failure("address_refused" if refused else "dns_failed", str(error)) from error
    except aiohttp.ClientSSLError as error:
        raise Failure("tls_failed", str(error)) from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, AddressRefused):
            raise Failure("address_refused", str(error)) from error
        reset = isinstance(error.os_error, ConnectionResetError)
        reason = "connection_reset" if reset else "connect_failed"
        raise Failure(reason, str(error), transient=reset) from error
    except aiohttp.ClientPayloadError as error:
        raise Failure("truncated", str(error)) from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError) as error:
        raise Failure("connection_reset", str(error), transient=True) from error
    except aiohttp.InvalidURL as error:
        raise Failure("bad_url", str(error)) from error
    except aiohttp.ClientError as error:
        large = "got more than" in str(error).lower() or "too many headers" in str(error).lower()
        raise Failure("headers_too_large" if large else "protocol_error", str(error)) from error
