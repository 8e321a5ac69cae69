"""The commands of `reptok bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="How fast trainings are on this machine, on random data.", no_args_is_help=True)


@app.command("gpu")
def bench_gpu(
    device: Annotated[str | None, typer.Option(help="cuda:1, cpu ...; the first GPU if not given.")] = None,
    seconds: Annotated[float, typer.Option(help="Duration of each row's timed steps.", min=0.01)] = 8.0,
    file: Annotated[
        Path | None, typer.Option(help="JSON that keeps the figures; what it holds is not measured again.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="One part: decoder, tokenizer, mixer, encode ...")] = None,
) -> None:
    """Measure trainings and frozen networks at the paper's sizes, in 8 minutes; tiny ones without a GPU."""
    import torch

    from reptok.bench.gpu import run

    where = torch.device(device) if device else None
    if run(where, seconds=seconds, file=file, only=only, say=typer.echo):
        raise typer.Exit(1)


@app.command("decode")
def bench_decode(
    shard: Annotated[
        Path | None, typer.Option(help="A shard of a dataset, train-00000.tar, whose pictures are decoded.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the square that is kept, in pixels.", min=1)] = 256,
    seconds: Annotated[float, typer.Option(help="Duration of each row.", min=0.01)] = 3.0,
) -> None:
    """Measure how many JPEG files the loader's threads decode; by default such as are made up."""
    from reptok.bench.decode import decode_rates
    from reptok.bench.feed import jpegs
    from reptok.data.rows import ImageRows

    if shard is None:
        files = jpegs(size, 256)
    else:
        rows = ImageRows(shard)
        files = [rows.jpg(row) for row in range(min(256, len(rows)))]
    typer.echo(f"{len(files)} files of {sum(map(len, files)) / len(files) / 1e3:.1f} kB on average")
    typer.echo(f"{'threads':>7}  {'images/s':>9}  {'in a second of one core':>23}")
    for rate in decode_rates(files, size, seconds=seconds):
        typer.echo(f"{rate.threads:>7}  {rate.per_second:>9,.0f}  {rate.per_core:>23,.0f}")


@app.command("roofline")
def bench_roofline() -> None:
    """Reckon what an H100 could reach at most, part by part, from counted FLOP and bytes."""
    from reptok.bench.roofline import lines

    for line in lines():
        typer.echo(line)


@app.command("train")
def bench_train(
    part: Annotated[str, typer.Argument(help="tokenizer, decoder (no image is encoded) or generator.")],
    size: Annotated[str, typer.Option(help="Decoder: S, B, L or XL.")] = "XL",
    encoder: Annotated[str, typer.Option(help="A name from conf/encoder.")] = "dinov2_vitb14_reg",
    condition: Annotated[str, typer.Option(help="Generator: none, class or text.")] = "class",
    batch_size: Annotated[int, typer.Option(help="Samples of a step on this device.", min=1)] = 64,
    precision: Annotated[
        str | None, typer.Option(help="float32 or bfloat16; bfloat16 on a GPU if not given.")
    ] = None,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Default: on a GPU.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cuda:1, cpu ...; the first GPU if not given.")] = None,
    seconds: Annotated[float, typer.Option(help="Duration of the timed steps.", min=0.01)] = 20.0,
) -> None:
    """Measure images/s, MFU and memory of a training of named sizes, on random data, within a minute.

    For a whole recipe: python -m benchmarks.recipe experiment=...
    """
    import torch

    from reptok.bench.recipe import bench_named, default_device

    where = torch.device(device) if device else default_device()
    bench_named(
        part,
        size,
        encoder,
        condition,
        where,
        batch_size,
        precision,
        compiled,
        seconds=seconds,
        say=typer.echo,
    )
