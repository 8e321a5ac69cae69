"""`reptok score`: anybody's samples against anybody's reference, by the names that papers use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reptok.terminal import visible

if TYPE_CHECKING:
    from reptok.metrics.sample_files import ImageSet
    from reptok.metrics.score import Network, Seen


def score(
    samples: Annotated[
        Path, typer.Argument(help="An .npz as ADM's, a folder of pictures, or a tar.", exists=True)
    ],
    reference: Annotated[
        Path, typer.Option(help="The real images, likewise; an .npz may bring statistics.", exists=True)
    ],
    inception: Annotated[
        Path | None,
        typer.Option(help="Weights of FID's Inception: torch-fidelity's file.", dir_okay=False, exists=True),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            help="An encoder folder that looks instead: no FID, a distance of its own name.",
            file_okay=False,
            exists=True,
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="adm256_50k, coco2014_30k ...; none: the score carries its N.")
    ] = "",
    size: Annotated[int | None, typer.Option(help="Crop pictures to squares of this side.", min=1)] = None,
    crop: Annotated[str, typer.Option(help="centre (Lanczos) or adm, pixel for pixel.")] = "centre",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the scores to this .json, too.", dir_okay=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 50,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")] = "cpu",
) -> None:
    """Score a set of samples: FID, sFID, Inception score, KID, precision, recall, each with its N and ±."""
    from reptok.metrics.protocols import full_name
    from reptok.metrics.protocols import protocol as named
    from reptok.metrics.sample_files import open_images
    from reptok.metrics.score import reference_of, scores, see

    if (inception is None) == (encoder is None):
        raise ValueError("say which network looks: --inception WEIGHTS for FID, or --encoder FOLDER")
    wanted = named(protocol) if protocol else None
    if wanted is not None and not wanted.images:
        raise ValueError(
            f"{protocol} is of a model and data: pipelines/run_all.py experiment=evaluate data=..."
        )
    if wanted is not None:
        size, crop = size or wanted.size, wanted.crop
    images = open_images(samples, crop, size)
    if wanted is not None:
        wanted.metric("fid", len(images))  # refuses too many before the work
    network, weights = _network(inception, encoder, device)

    def look(images: ImageSet) -> Seen:
        with typer.progressbar(length=len(images), label=images.path.name) as bar:
            return see(images, network, batch_size, lambda done: bar.update(done - bar.pos))

    held = reference_of(reference, network, look, crop=crop, side=size)
    seen = look(images)
    results = {}
    for metric, estimate in scores(seen, held, network.name):
        name, error = full_name(metric, wanted, reference.stem, len(seen)), estimate.known_error
        results[name] = {"value": estimate.value, "error": error, "images": estimate.images}
        typer.echo(
            visible(f"{name:40} {estimate.value:10.4f}" + ("" if error is None else f" ± {error:.4f}"))
        )
    if out is not None:
        record = {
            "samples": {"path": str(samples), "images": len(seen)},
            "reference": {"path": str(reference), "images": len(held.images) if held.images else None,
                          "sha256": _digest(reference)},
            "network": {"name": network.name, "sha256": _digest(weights)},
            "protocol": protocol or None, "crop": crop, "size": size, "scores": results,
        }  # fmt: skip
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=2) + "\n")
        typer.echo(f"scores -> {out}")


def _network(inception: Path | None, encoder: Path | None, device: str) -> tuple[Network, Path]:
    if inception is not None:
        from reptok.metrics.inception import InceptionFeatures

        return InceptionFeatures(inception, device), inception
    from reptok.metrics.features import EncoderFeatures

    assert encoder is not None
    return EncoderFeatures.from_folder(encoder, device), encoder


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; None of a folder."""
    if path.is_dir():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
