"""What a decoder takes is told by the header, shared among threads, and refused beyond the limit."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.crawl.decode import Bounds, Header
from pipelines.crawl.memory import MemoryBudget
from pipelines.crawl.reasons import Failure
from pipelines.crawl.resize import ResizeConfig, resize

SIDE = 1800
ANY = Bounds(max_pixels=10**9, min_size=1, max_aspect_ratio=100.0)

PEAK = """
import sys
from PIL import Image
from pipelines.crawl.decode import Bounds, Header

def most():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

bounds = Bounds(max_pixels=10**9, min_size=1, max_aspect_ratio=100.0)
warm, data = sys.stdin.buffer.read(int(sys.argv[1])), sys.stdin.buffer.read()
Header(warm, bounds).decode()
open("/proc/self/clear_refs", "w").write("5")
before = most()
header = Header(data, bounds)
said = header.bytes_to_decode
decoded = header.decode()
print(most() - before, said)
"""


def image(form: str, mode: str, noise: bool = False, side: int = SIDE, **options: Any) -> bytes:
    if mode == "I;16":
        made = Image.fromarray(np.full((side, side), 1000, np.uint16))
    elif noise:
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        made = Image.fromarray(pixels).convert(mode)
    else:
        made = Image.new(mode, (side, side))
    file = io.BytesIO()
    made.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("form", "mode", "noise", "options"),
    [
        ("JPEG", "RGB", False, {}),
        ("JPEG", "RGB", True, {"progressive": True, "subsampling": 0}),
        ("JPEG", "CMYK", False, {"progressive": True}),
        ("PNG", "RGBA", False, {}),
        ("PNG", "I;16", False, {}),
        ("PNG", "P", False, {"transparency": 0}),
        ("PNG", "LA", False, {}),
        ("WEBP", "RGB", False, {}),
        ("WEBP", "RGBA", True, {"lossless": True, "method": 0, "quality": 0}),
        ("GIF", "P", True, {}),
        ("BMP", "RGB", False, {}),
        ("TIFF", "RGB", False, {"compression": "tiff_lzw"}),
        ("TIFF", "CMYK", False, {"compression": "tiff_deflate"}),
    ],
)
def test_no_format_takes_more_than_its_header_says(
    form: str, mode: str, noise: bool, options: dict[str, Any]
) -> None:
    data, warm = image(form, mode, noise, **options), image(form, mode, side=64, **options)
    command = [sys.executable, "-c", PEAK, str(len(warm))]
    done = subprocess.run(command, input=warm + data, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    took, said = map(int, done.stdout.split())
    assert took <= said + len(data) + 4_000_000
    assert said < 3 * took + 8_000_000  # and it does not exaggerate


def test_a_small_file_that_wants_much_memory_is_refused_by_its_header() -> None:
    data = image("WEBP", "RGB", side=5000, method=0)
    assert len(data) < 200_000
    with pytest.raises(Failure) as caught:
        resize(data, ResizeConfig(max_pixels=50_000_000))
    assert caught.value.reason == "too_much_memory"


def test_a_tile_of_a_tiff_may_exceed_its_image_and_counts() -> None:
    file = io.BytesIO()
    Image.new("RGB", (100, 100)).save(file, "TIFF", compression="tiff_lzw", dpi=(72, 72))
    data = bytearray(file.getvalue())
    strip_rows, strip_offsets, strip_bytes = 278, 273, 279  # become a tile's length, offset and bytes
    directory = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, directory)[0]
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag = struct.unpack_from("<H", data, entry)[0]
        if tag == 282:  # the resolution becomes a tile's width
            struct.pack_into("<HHII", data, entry, 322, 4, 1, 30_000)
        elif tag == strip_rows:
            struct.pack_into("<HHII", data, entry, 323, 4, 1, 30_000)
        elif tag in (strip_offsets, strip_bytes):
            struct.pack_into("<H", data, entry, 324 if tag == strip_offsets else 325)
    assert Header(bytes(data), ANY).bytes_to_decode > 2 * 10**9


def test_threads_share_the_memory_and_one_waits_for_another() -> None:
    budget, held = MemoryBudget(100), []

    def work(size: int) -> None:
        with budget.taken(size):
            held.append(size)
            time.sleep(0.02)
            assert sum(held) <= 100
            held.remove(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in (60, 60, 100, 30, 10, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not held and not any(thread.is_alive() for thread in threads)
    with pytest.raises(Failure, match="too_much_memory"), budget.taken(101):
        pass
    with pytest.raises(ValueError, match="x"), budget.taken(100):
        raise ValueError("x")
    with budget.taken(100):  # nothing was lost on the way
        pass


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_an_image_stands_upright_as_pil_would_turn_it(form: str, orientation: int) -> None:
    from PIL import ImageOps

    pixels = np.random.default_rng(1).integers(0, 256, (40, 70, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    with Image.open(io.BytesIO(file.getvalue())) as opened:
        wanted = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    decoded = Header(file.getvalue(), ANY).decode()
    assert np.array_equal(decoded.pixels, wanted)
    assert (decoded.height, decoded.width) == wanted.shape[:2]
