"""Write captioned pictures that nobody made for this project into a folder, captions beside them.

    python -m examples.captioned stamps TARGET [from=/usr/share/tuxpaint/stamps]

stamps   Tux Paint's (Debian's tuxpaint-stamps-default, GPL-2): animals, food, tools, one folder per kind
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

STAMPS = "/usr/share/tuxpaint/stamps"
SIDE = 128
FEW = 20
"""A kind with fewer pictures goes to the others."""

Found = tuple[str, Image.Image, str]
"""Name of the file without its ending, the picture on white, its caption."""


def stamps(folder: Path) -> Iterator[Found]:
    """Every bitmap with a description in English, below the name of its kind."""
    found = [file for file in sorted(folder.rglob("*.png")) if file.with_suffix(".txt").is_file()]
    kinds = [file.relative_to(folder).parts[0] for file in found]
    for file, kind in zip(found, kinds, strict=True):
        lines = file.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
        caption = lines[0].strip() if lines else ""
        if caption:
            name = "-".join(file.relative_to(folder).with_suffix("").parts[1:])
            shown = kind if kinds.count(kind) >= FEW else "others"
            yield f"{shown}/{name}", on_white(Image.open(file)), caption


def on_white(picture: Image.Image) -> Image.Image:
    """The picture without its empty edges, in the middle of a white square of `SIDE` pixels."""
    coloured = picture.convert("RGBA")
    coloured = coloured.crop(coloured.getchannel("A").getbbox())
    scale = 0.94 * SIDE / max(coloured.size)
    coloured = coloured.resize(
        [max(1, round(scale * side)) for side in coloured.size], Image.Resampling.LANCZOS
    )
    square = Image.new("RGBA", (SIDE, SIDE), "white")
    square.alpha_composite(coloured, tuple((SIDE - side) // 2 for side in coloured.size))
    return square.convert("RGB")


def main(arguments: list[str]) -> int:
    """The command line; 0, or 2 for wrong use."""
    origin = [a.removeprefix("from=") for a in arguments if a.startswith("from=")]
    positional = [a for a in arguments if not a.startswith("from=")]
    if len(positional) != 2 or positional[0] != "stamps":
        print(__doc__, file=sys.stderr)
        return 2
    target, source = Path(positional[1]).expanduser(), Path(origin[-1] if origin else STAMPS)
    if not source.exists():
        print(
            f"error: there is no {source}; it is in Debian's package tuxpaint-stamps-default, or name it by "
            "from=",
            file=sys.stderr,
        )
        return 2
    count = 0
    for name, picture, caption in stamps(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(target / f"{name}.png")
        (target / f"{name}.txt").write_text(caption + "\n", encoding="utf-8")
        count += 1
    print(f"{count} pictures with captions in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
