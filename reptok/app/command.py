"""`reptok app`: a page in the browser on a model."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from reptok.terminal import visible


def app(
    model: Annotated[str, typer.Argument(help="Model folder, or a hub id.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this machine's own lets others in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.", min=0, max=65535)] = 7860,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")] = "cpu",
) -> None:
    """Generate, reconstruct and interpolate on a page in the browser; needs the extra [app]."""
    if find_spec("gradio") is None:
        raise ValueError("the page needs Gradio, which is not installed: pip install 'reptok[app]'")
    from reptok.app.server import is_loopback, serve
    from reptok.device import device_of
    from reptok.pretrained import load_pretrained

    place = device_of(device)
    pipe = load_pretrained(model).to(place)
    if not is_loopback(host):
        typer.echo(f"{visible(host)} is more than this machine: whoever reaches it may use the model")
    serve(pipe, model, host, port, lambda address: typer.echo(f"{address} (Ctrl-C ends it)"))
