"""`reptok data`: look at, check and reshard folders of data. Needs neither Ray nor MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from reptok.terminal import visible

app = typer.Typer(help="Look at, check and reshard folders of data.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="A dataset, latents or tokens folder.")]
Dataset = Annotated[Path, typer.Argument(help="A dataset folder.")]


@app.command()
def verify(
    folder: Folder,
    dataset: Annotated[
        Path | None, typer.Option(help="The dataset of these latents or tokens, where it lies elsewhere.")
    ] = None,
    images: Annotated[bool, typer.Option(help="Decode every image.")] = True,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
) -> None:
    """Check everything of a folder and name every fault; exit status 1 if there is one."""
    from reptok.data.verify import verify as check

    with _bar("shards") as progress:
        verdict = check(folder, dataset, images=images, workers=workers, progress=progress)
    for line in verdict.notes:
        typer.echo(f"note: {visible(line)}")
    for line in verdict.faults:
        typer.echo(visible(line))
    found = f"{len(verdict.faults):,} faults" if verdict.faults else "sound"
    typer.echo(f"{folder}: {verdict.kind} of {verdict.rows:,} samples in {verdict.shards:,} shards: {found}")
    if verdict.faults:
        raise typer.Exit(1)


@app.command()
def stats(
    folder: Annotated[str, typer.Argument(help="A dataset folder, or one of verdicts; a path or a URL.")],
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet to this picture file.")] = None,
    images: Annotated[int, typer.Option(help="Pictures on the sheet.", min=1)] = 64,
    clip: Annotated[
        Path | None, typer.Option(help="Embed some pictures and their captions with this open_clip folder.")
    ] = None,
) -> None:
    """Count samples, bytes, successes, captions and classes, and what filters found; draw a contact sheet."""
    from reptok.data.remote import data_path
    from reptok.data.stats import contact_sheet, describe
    from reptok.data.verdict_stats import describe_verdicts, tables_of

    place = data_path(folder)
    judged = bool(tables_of(place))
    if judged and (sheet or clip):
        raise ValueError(f"{folder} holds verdicts, and no pictures to show or embed; give a dataset")
    for line in describe_verdicts(place) if judged else describe(place):
        typer.echo(visible(line))
    if clip is not None:
        from reptok.data.caption_similarity import describe_similarity

        for line in describe_similarity(place, clip):
            typer.echo(visible(line))
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(place, images).save(sheet)
        typer.echo(f"contact sheet -> {sheet}")


@app.command()
def reshard(
    source: Dataset,
    out: Annotated[Path, typer.Argument(help="A folder for the new dataset.")],
    rows: Annotated[int | None, typer.Option(help="Samples of a shard.", min=1)] = None,
    shards: Annotated[int | None, typer.Option(help="Shards of the largest split.", min=1)] = None,
) -> None:
    """Write the same samples in shards of another size; the same call gives the same bytes."""
    from reptok.data.reshard import reshard as write

    with _bar("samples") as progress:
        index = write(source, out, rows=rows, shards=shards, progress=progress)
    for split, entries in index.splits.items():
        typer.echo(f"{split}: {sum(entry.rows for entry in entries):,} samples in {len(entries):,} shards")
    typer.echo(f"{source} -> {out}")


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that learns its length from the first call."""
    with typer.progressbar(length=1, label=label) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield progress
