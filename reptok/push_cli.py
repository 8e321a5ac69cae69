"""`reptok push`: a model folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reptok.terminal import visible

CARD = "README.md"
LEFT_OUT = (".*", "*/.*", "manifest.json")
"""Hidden files, and what the workflow knows of its run; the hub's patterns, in which * is any path."""


def push(
    model: Annotated[Path, typer.Argument(help="Model folder with its card.", exists=True, file_okay=False)],
    hub_id: Annotated[str, typer.Argument(help="Its name on the hub: owner/name.")],
    public: Annotated[
        bool, typer.Option("--public", help="For everybody to see; private otherwise.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be uploaded, and stop.")] = False,
) -> None:
    """Upload a model folder to the hub, private unless told otherwise; log in with `hf auth login` first."""
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(hub_id)
    if "/" not in hub_id:
        raise ValueError(f"{hub_id!r} is no name on the hub: give owner/name")
    licence = _licence(model)
    files = files_of(model)
    for name, size in files.items():
        typer.echo(visible(f"{_megabytes(size):>10}  {name}"))
    seen = "everybody can see it" if public else "private"
    typer.echo(f"{_megabytes(sum(files.values())):>10}  {len(files)} files -> {hub_id} ({seen})")
    if licence is None:
        typer.echo(f"The card states no licence; `license:` at the top of {CARD} would.")
    if not dry_run:
        typer.echo(_upload(model, hub_id, public))


def files_of(model: Path) -> dict[str, int]:
    """What is uploaded of a folder: names and sizes in bytes."""
    from huggingface_hub.utils import filter_repo_objects

    found = {p.relative_to(model).as_posix(): p for p in sorted(model.rglob("*")) if p.is_file()}
    return {
        name: found[name].stat().st_size for name in filter_repo_objects(found, ignore_patterns=[*LEFT_OUT])
    }


def _licence(model: Path) -> str | None:
    """The licence that the card states.

    Raises:
        FileNotFoundError: There is no card, or no model.
        ValueError: The card's head is no YAML, or the folder leads out of itself.
    """
    from huggingface_hub import ModelCard

    from reptok.folder import check_folder

    check_folder(model)
    if not any((model / name).is_file() for name in ("model.json", "config.json")):
        raise FileNotFoundError(f"{model} is no model folder: model.json is missing")
    if not (model / CARD).is_file():
        raise FileNotFoundError(f"{model} has no model card: write {CARD}, which says what the model is")
    try:
        data = ModelCard((model / CARD).read_text(encoding="utf-8")).data
    except Exception as error:  # YAML's errors, and what the hub's library finds missing
        raise ValueError(f"{model / CARD} cannot be read as a model card: {error}") from error
    stated: str | None = data.get("license")
    return None if stated == "unknown" else stated


def _upload(model: Path, hub_id: str, public: bool) -> str:
    """The address of the commit.

    Raises:
        ValueError: The model is on the hub already, and everybody can see it, which was not asked for.
        OSError: The hub does not take it.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.create_repo(hub_id, private=not public, exist_ok=True)
        if not public and hub.model_info(hub_id).private is False:
            raise ValueError(
                f"{hub_id} is there already, and everybody can see it; if so it shall be: --public"
            )
        commit = hub.upload_folder(
            repo_id=hub_id, folder_path=model, commit_message="Upload the model", ignore_patterns=[*LEFT_OUT]
        )
    except ValueError:
        raise
    except Exception as error:  # the hub's own, and those of the connection
        said = " ".join(str(error).split())
        raise OSError(
            f"the hub does not take {hub_id} ({said}); log in with `hf auth login`, or set HF_TOKEN to a "
            "token that may write there"
        ) from error
    return str(commit.commit_url)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3f} MB"
