"""A web server in a process of its own: what it costs does not count, and both sides ask the same one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

SMALLEST, LARGEST = 640, 1024
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "retina")

_SERVER = """
import asyncio, sys
from pathlib import Path

files = {f"/{path.name}": path.read_bytes() for path in Path(sys.argv[1]).iterdir()}

async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).lower()
            body = files.get(head.split(b" ", 2)[1].decode())
            status = b"200 OK" if body else b"404 Not Found"
            writer.write(b"HTTP/1.1 %b\\r\\nContent-Length: %d\\r\\n\\r\\n" % (status, len(body or b"")))
            writer.write(body or b"")
            await writer.drain()
            if b"connection: close" in head:
                break
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@lru_cache(maxsize=1)
def photographs() -> list[bytes]:
    """JPEGs of real photographs with sides of 640 to 1024 pixels."""
    import skimage.data

    rng = np.random.default_rng(0)
    found = []
    for number in range(25):
        source = Image.fromarray(getattr(skimage.data, PHOTOGRAPHS[number % len(PHOTOGRAPHS)])())
        side = min(source.size)
        left, top = (source.width - side) // 2, (source.height - side) // 2
        width, height = (int(value) for value in rng.integers(SMALLEST, LARGEST + 1, 2))
        square = source.crop((left, top, left + side, top + side))
        file = BytesIO()
        square.resize((width, height), Image.Resampling.LANCZOS).save(
            file, "JPEG", quality=int(rng.integers(80, 96))
        )
        found.append(file.getvalue())
    return found


@contextmanager
def served(folder: Path, files: Sequence[bytes]) -> Iterator[str]:
    """Serve the files as /0.jpg, /1.jpg, ... and yield the server's address, "127.0.0.1:port"."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(files):
        (folder / f"{number}.jpg").write_bytes(data)
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(folder)], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield f"127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()
