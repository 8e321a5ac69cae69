"""Command line on a model folder: pictures in, pictures out. Needs neither Ray nor MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reptok import data_cli, push_cli, score_cli
from reptok.app import command
from reptok.bench import commands
from reptok.terminal import visible

if TYPE_CHECKING:
    from torch import Tensor

    from reptok.image_tokenizer import ImageTokenizer
    from reptok.pipeline import RepTokPipeline

app = typer.Typer(
    help="Use a model: pictures in, pictures out. Then its data, and how fast it is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data_cli.app, name="data")
app.add_typer(commands.app, name="bench")

Model = Annotated[str, typer.Argument(help="Model folder, or a hub id.")]
Pictures = Annotated[list[Path], typer.Argument(help="Picture files.", exists=True, dir_okay=False)]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for the results; created if needed.", file_okay=False)
]
Steps = Annotated[int, typer.Option(help="Steps of the decoder.", min=1)]
Solver = Annotated[
    str,
    typer.Option(help="euler, heun, sde, or adaptive: dopri5, dopri8, bosh3, adaptive_heun."),
]
Seed = Annotated[int, typer.Option(help="Picture i uses seed + i.", min=0, max=2**62)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
BatchSize = Annotated[int, typer.Option(help="Pictures at a time.", min=1)]


@app.command()
def generate(
    model: Model,
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Texts, or class names or numbers; none if unconditional.")
    ] = None,
    out: Out = Path("generated"),
    num_images: Annotated[int, typer.Option(help="Pictures per prompt.", min=1)] = 1,
    cfg_scale: Annotated[float, typer.Option(help="Guidance; 1 is off.")] = 1.5,
    guidance_from: Annotated[float, typer.Option(help="Guidance acts from this time ...")] = 0.3,
    guidance_to: Annotated[float, typer.Option(help="... to this one (0 noise, 1 data).")] = 0.9,
    steps: Annotated[int, typer.Option(help="Steps of the generator.", min=1)] = 50,
    decoder_steps: Steps = 50,
    solver: Solver = "euler",
    seed: Seed = 0,
    device: Device = "cpu",
    batch_size: BatchSize = 32,
) -> None:
    """Generate pictures from prompts, classes or nothing."""
    pipe = _load(model, device)
    if pipe.generator is None:
        raise ValueError(f"{model} has no generator; it can tokenize, reconstruct and interpolate")
    conditions: list[str | None] = [*prompts] if prompts else [None]
    with typer.progressbar(conditions, label="generate") as bar:
        for number, condition in enumerate(bar):
            pictures = pipe(
                condition,
                num_images=num_images,
                cfg_scale=cfg_scale,
                guidance_interval=(guidance_from, guidance_to),
                num_steps=steps,
                decoder_steps=decoder_steps,
                solver=solver,
                seed=seed + number * num_images,
                batch_size=batch_size,
            )
            out.mkdir(parents=True, exist_ok=True)
            for i, picture in enumerate(pictures):
                picture.save(out / f"{number:03d}-{i:03d}.png")
    typer.echo(f"{len(conditions) * num_images} pictures -> {out}")


@app.command()
def reconstruct(
    model: Model,
    pictures: Pictures,
    out: Out = Path("reconstructions"),
    steps: Steps = 50,
    solver: Solver = "euler",
    seed: Seed = 0,
    device: Device = "cpu",
    batch_size: BatchSize = 32,
) -> None:
    """Send pictures through their token and back."""
    tokenizer = _load(model, device).tokenizer
    done = 0
    for batch in _batches(tokenizer, pictures, batch_size):
        images = tokenizer.reconstruct(batch, num_steps=steps, solver=solver, seed=seed + done)
        names = [p.stem for p in pictures[done : done + len(batch)]]
        _save(images, out, names)
        done += len(batch)


@app.command()
def tokenize(
    model: Model,
    pictures: Pictures,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .safetensors file.", dir_okay=False)] = Path(
        "tokens.safetensors"
    ),
    device: Device = "cpu",
    batch_size: BatchSize = 32,
) -> None:
    """Turn pictures into tokens: one row of ``token`` per picture, names in the metadata."""
    import json

    import torch
    from safetensors.torch import save_file

    tokenizer = _load(model, device).tokenizer
    tokens = torch.cat([tokenizer.tokenize(b).cpu() for b in _batches(tokenizer, pictures, batch_size)])
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({"token": tokens.contiguous()}, str(out), {"pictures": json.dumps([p.name for p in pictures])})
    typer.echo(f"{tuple(tokens.shape)} -> {out}")


@app.command()
def interpolate(
    model: Model,
    first: Annotated[Path, typer.Argument(help="Picture to start from.", exists=True, dir_okay=False)],
    second: Annotated[Path, typer.Argument(help="Picture to end at.", exists=True, dir_okay=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="One picture, all frames in a row.", dir_okay=False)
    ] = Path("interpolation.png"),
    frames: Annotated[int, typer.Option(help="Number of frames, both ends included.", min=2)] = 8,
    steps: Steps = 50,
    solver: Solver = "euler",
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Walk straight from one picture's token to another's, with the same noise in every frame."""
    import torch
    from PIL import Image

    from reptok.pipeline import to_pictures

    tokenizer = _load(model, device).tokenizer
    start, end = tokenizer.tokenize(next(_batches(tokenizer, [first, second], 2)))
    weights = torch.linspace(0, 1, frames).tolist()
    walk = tokenizer.interpolate(start, end, weights, num_steps=steps, solver=solver, seed=seed)
    pictures = to_pictures(walk)
    row = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height))
    for i, picture in enumerate(pictures):
        row.paste(picture, (i * picture.width, 0))
    out.parent.mkdir(parents=True, exist_ok=True)
    row.save(out)
    typer.echo(f"{frames} frames -> {out}")


@app.command()
def info(model: Model) -> None:
    """Say what a model folder holds."""
    from reptok.model_card import default_card

    pipe = _load(model, "cpu")
    typer.echo(default_card(pipe).split("---\n", 2)[-1].strip())
    typer.echo(f"\nimages {pipe.tokenizer.image_size} px; latents {visible(pipe.tokenizer.autoencoder.spec)}")
    if pipe.class_names:
        typer.echo(visible(f"classes: {', '.join(pipe.class_names)}"))


@app.command("import-release")
def import_release(
    checkpoint: Annotated[
        Path, typer.Argument(help="The authors' Lightning file.", exists=True, dir_okay=False)
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the model.")],
) -> None:
    """Convert the authors' released checkpoint to a model folder; nothing in the file is executed."""
    from reptok.reference_weights import import_release as convert

    convert(checkpoint, out)
    typer.echo(f"{checkpoint} -> {out}")


@app.command()
def flops() -> None:
    """Print parameters and multiply-accumulates of the authors' sizes, and the paper's efficiency table."""
    from reptok import flops as counting
    from reptok.configs import RepTokConfig

    giga = counting.GIGA
    typer.echo("One FLOP is one multiply-accumulate, forward, per image.\n")
    typer.echo(f"{'part':34} {'M params':>10} {'GMAC':>8} {'in attention':>13}")
    for name, cost in (
        ("encoder ViT-B/14, 4 registers", counting.encoder_cost()),
        ("encoder ViT-B/14, no registers", counting.encoder_cost(registers=0)),
        ("decoder XL/2", counting.decoder_cost()),
        ("mixer 1280 x 28, expansion 4", counting.generator_cost(counting.mixer_config(4))),
        ("mixer 1280 x 28, expansion 3", counting.generator_cost(counting.mixer_config(3))),
    ):
        typer.echo(
            f"{name:34} {cost.parameters / 1e6:10.2f} {cost.macs / giga:8.2f} "
            f"{cost.attention_macs / giga:13.2f}"
        )
    typer.echo("\nTraining, forward and backward, GFLOP (2 x MAC) per image, all that is frozen cached:")
    mixer = counting.mixer_config(3)
    for name, training in (
        ("decoder XL/2", counting.decoder_training(RepTokConfig().decoder)),
        ("tokenizer, decoder XL/2, ViT-B/14", counting.tokenizer_training(RepTokConfig())),
        ("mixer 1280 x 28, expansion 3", counting.generator_training(mixer)),
    ):
        typer.echo(f"{name:34} {training / giga:10.1f}")
    typer.echo(f"\n{'model':18} {'steps':>7} {'GFLOPs':>8} {'printed':>8} {'PFLOPs':>8} {'printed':>8}")
    for row in counting.efficiency_table():
        typer.echo(
            f"{row.name:18} {row.iterations:7d} {row.gflops:8.1f} {row.printed_gflops:8.1f} "
            f"{row.pflops:8.0f} {row.printed_pflops:8.0f}  {row.note}"
        )


app.command()(score_cli.score)
app.command()(command.app)
app.command()(push_cli.push)


def main() -> None:
    """Run the command line; what a user can cause becomes a sentence on standard error and exit status 2."""
    try:
        app()
    except (ValueError, OSError, MemoryError) as error:
        typer.echo(f"reptok: {visible(error) or 'there is not enough memory'}", err=True)
        raise SystemExit(2) from error


def _load(model: str, device: str) -> RepTokPipeline:
    from reptok.device import device_of
    from reptok.pretrained import load_pretrained

    place = device_of(device)
    return load_pretrained(model).to(place)


def _batches(tokenizer: ImageTokenizer, pictures: list[Path], batch_size: int) -> Iterator[Tensor]:
    """Pictures as (B, 3, S, S) in [-1, 1], centre-cropped to the tokenizer's size, with a progress bar."""
    import torch

    from reptok.data.images import centre_crop, decode_image
    from reptok.data.transforms import to_float

    with typer.progressbar(length=len(pictures), label="pictures") as bar:
        for start in range(0, len(pictures), batch_size):
            chunk = pictures[start : start + batch_size]
            images = [centre_crop(decode_image(p.read_bytes()), tokenizer.image_size) for p in chunk]
            yield torch.stack([to_float(image) for image in images]).to(tokenizer.device)
            bar.update(len(chunk))


def _save(images: Tensor, folder: Path, names: list[str]) -> None:
    from reptok.pipeline import to_pictures

    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(names, to_pictures(images), strict=True):
        picture.save(folder / f"{name}.png")
        typer.echo(str(folder / f"{name}.png"))


if __name__ == "__main__":
    main()
