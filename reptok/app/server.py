"""Serves the page: to this machine alone unless told otherwise, and without asking others for anything."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from reptok.pipeline import RepTokPipeline

MAX_UPLOAD = "64mb"


def serve(pipe: RepTokPipeline, title: str, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page on a model until SIGINT or SIGTERM.

    Pictures that go in and out lie in a folder that only this user can read, which goes at the end.

    Args:
        pipe: The model.
        title: Heading of the page.
        host: Name or address to listen on.
        port: The port; 0 takes a free one.
        ready: Is told the page's address as soon as it answers.

    Raises:
        OSError: The address cannot be had.
    """
    import uvicorn

    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        why = error.strerror or error
        raise OSError(f"{host}:{port} cannot be listened on ({why}); choose another --port") from error
    with listening, TemporaryDirectory(prefix="reptok-app-") as folder:
        server = uvicorn.Server(
            uvicorn.Config(
                application(pipe, title, host, folder), log_level="warning", timeout_graceful_shutdown=1
            )
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        ready(f"http://{host}:{listening.getsockname()[1]}")
        with suppress(KeyboardInterrupt):  # the server raises it again when it has ended
            server.run(sockets=[listening])


def application(pipe: RepTokPipeline, title: str, host: str, folder: str) -> FastAPI:
    """The page as a web application.

    Args:
        pipe: The model.
        title: Heading of the page.
        host: Where it will be listened; if that is this machine alone, requests for other names are refused.
        folder: Place of the pictures that go in and out.
    """
    # Read when the library is imported: nobody is told of its use.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
    from fastapi import FastAPI
    from gradio import mount_gradio_app
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from reptok.app.page import build_page

    # A foreign site can let its own name mean this machine, but a browser says by which name it asks.
    names = [host, "localhost"] if is_loopback(host) else ["*"]
    web = FastAPI(middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=names)], openapi_url=None)
    return mount_gradio_app(
        web, build_page(pipe, title).queue(), "/", footer_links=[], run_history=False, show_error=True,
        max_file_size=MAX_UPLOAD, ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False,
    )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
