"""What the configuration names and others have made: a folder, a file, a model of the hub, or an artifact.

Decided here and once, before anything starts, so that no worker takes a folder that it cannot see for a
model of the hub. A dataclass marks such a field in its metadata:

    {"reference": "network"}    a folder, a hub id (owner/name or owner/name@revision), or artifact:KIND
    {"reference": "file"}       a file of weights
    {"reference": "images"}     a file of images, or a folder of them, known by names and sizes
    {..., "named": True}        its name, as typed, is written into the artifact
    {..., "optional": True}     while it is empty, what is made does not know that it could be named

Of a folder or file, the contents are significant and the place is not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pipelines.dag.artifact import Artifact

C = TypeVar("C")
_CHECKOUT = Path(__file__).resolve().parents[2]
HOME = _CHECKOUT if (_CHECKOUT / "conf").is_dir() else Path(sysconfig.get_path("data"), "share", "reptok")
"""The checkout, or where a wheel puts `conf/` and weights; relative paths are looked for here, too."""

HUB, ARTIFACT = "hf://", "artifact:"
HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]
"""What a model is made of; nothing that could execute."""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w.-]+)?")
_WEIGHTS = (".json", ".jinja", ".safetensors", ".txt", ".model")


@dataclass(frozen=True)
class Reference:
    """Where a network is.

    Attributes:
        folder: Its folder, absolute, if it is one.
        hub: Its id on the hub, with "@revision" if one is named, if it is there.
        artifact: The kind of artifact that holds it, if a stage makes it.
    """

    folder: Path | None = None
    hub: str = ""
    artifact: str = ""

    @property
    def identity(self) -> dict[str, str]:
        """What says which weights these are; an artifact's fingerprint does it as a stage's input."""
        if self.folder:
            return {"digest": folder_digest(self.folder)}
        return {"artifact": self.artifact} if self.artifact else {"hub": self.hub}


def find(path: str) -> Path | None:
    """A file or folder as an absolute path: relative to the working folder, else to the repository.

    A path that begins with a dot is relative to the working folder alone.

    Returns:
        None if there is none in either.
    """
    given = Path(path).expanduser()
    if not path:
        return None
    for place in _places(path):
        if (found := place / given).exists():
            return found.resolve()
    return None


def hub_id(path: str) -> str:
    """The id of a model of the hub that a path means; "" where it means something else."""
    return refer(path, "").hub


def required(path: str, key: str) -> Path:
    """The file or folder that the configuration's key names.

    Raises:
        FileNotFoundError: There is none; the message names the key and where it was looked for.
    """
    found = find(path)
    if found is None:
        raise FileNotFoundError(f"{key}: there is no {path!r} {_looked(path)}")
    return found


def refer(path: str, key: str) -> Reference:
    """Decide whether a path means a folder or a model of the hub.

    What exists is a folder, relative to the working folder or else to the repository. What does not, but
    begins with the name of a folder that does (`weights/captoiner`), was meant as one. The rest is a model of
    the hub if it has the form of its ids; `hf://owner/name` always is. `artifact:kind` is what a stage makes.

    Args:
        path: As the configuration has it.
        key: The configuration's key, for the message.

    Raises:
        FileNotFoundError: A folder is meant, and there is none.
    """
    if path.startswith(HUB) and _HUB_ID.fullmatch(path.removeprefix(HUB)):
        return Reference(hub=path.removeprefix(HUB))
    if path.startswith(ARTIFACT):
        return Reference(artifact=path.removeprefix(ARTIFACT))
    folder = find(path)
    if folder is not None and folder.is_dir():
        return Reference(folder)
    above = find(path.split("/")[0]) if _HUB_ID.fullmatch(path) else None
    if folder is None and above is None and _HUB_ID.fullmatch(path):
        return Reference(hub=path)
    hint = "name a folder, or a model of the hub as owner/name"
    if folder is not None:
        hint = "it is no folder"
    elif above is not None and above.is_dir():
        names = sorted(f"{above.name}/{child.name}" for child in above.iterdir() if child.is_dir())
        near = get_close_matches(path, names, n=1)
        hint = (f"did you mean {near[0]}? " if near else "") + f"A model of the hub would be {HUB}{path}"
    raise FileNotFoundError(f"{key}: there is no folder {path!r} {_looked(path)}; {hint}")


def references(config: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted key, value and kind ("network", "file", "images") of each reference of a configuration."""
    if isinstance(config, Mapping):
        for name, part in config.items():
            yield from references(part, f"{prefix}{name}.")
    if not dataclasses.is_dataclass(config):
        return
    for field in dataclasses.fields(config):
        value, kind = getattr(config, field.name), field.metadata.get("reference", "")
        if kind and value and not _by_open_clip(config):
            yield f"{prefix}{field.name}", value, kind
        yield from references(value, f"{prefix}{field.name}.")


def artifacts_of(config: Any, name: str) -> tuple[str, ...]:
    """Kinds of the artifacts that a configuration refers to; every other reference is looked for.

    Args:
        config: A stage's configuration.
        name: The stage's, for messages.

    Raises:
        FileNotFoundError: A folder or file is not there.
    """
    found = []
    for key, value, kind in references(config):
        if kind in ("file", "images"):
            required(value, f"{name}.{key}")
        else:
            found.append(refer(value, f"{name}.{key}").artifact)
    return tuple(dict.fromkeys(filter(None, found)))


def identity(config: Any, field: dataclasses.Field[Any], significant_only: bool) -> Any:
    """The plain value of a reference: what its weights are, and where they were said to be."""
    value = getattr(config, field.name)
    if not value or _by_open_clip(config):
        return value
    if field.metadata["reference"] == "file":
        known = {"digest": folder_digest(required(value, field.name))}
    elif field.metadata["reference"] == "images":
        place = required(value, field.name)
        known = {"digest": folder_digest(place) if place.is_file() else listing_digest(place)}
    else:
        known = refer(value, field.name).identity
    shown = field.metadata.get("named") or not significant_only
    return {**known, "path": value} if shown else known


def located(config: C, inputs: Mapping[str, Artifact], key: str = "path") -> C:
    """A network's configuration with the place of its weights: an absolute folder, or a hub id.

    Args:
        config: Has a field `path` that refers to a network.
        inputs: The artifacts of a stage by kind.
        key: For messages.
    """
    settings: Any = config
    if not settings.path or _by_open_clip(settings):
        return config
    found = refer(settings.path, key)
    place = inputs[found.artifact].local_path() if found.artifact else found.folder
    moved: C = dataclasses.replace(settings, path=str(place) if place else found.hub)
    return moved


def fetch(config: Any, key: str) -> str | None:
    """Ask the hub for a model that is named by its id: once, before any worker starts.

    Returns:
        The commit of what it gave, by which all machines ask for the same; None where no hub is asked.

    Raises:
        OSError: It cannot be reached, and the model was not fetched before.
    """
    if config.path and not _by_open_clip(config):
        return fetch_model(config.path, key, getattr(config, "revision", None))
    return None


def fetch_model(path: str, key: str, revision: str | None = None) -> str | None:
    """The same for a model that a path names; raises alike."""
    if not (hub := refer(path, key).hub):
        return None
    from huggingface_hub import snapshot_download

    name, _, own = hub.partition("@")
    try:
        return Path(snapshot_download(name, revision=own or revision, allow_patterns=HUB_FILES)).name
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"{key}={hub} means a model of the hub, which cannot be fetched ({reason}); "
            f"fetch it where there is a network, or set {key} to its folder"
        ) from error


def _by_open_clip(config: Any) -> bool:
    """Whether the path is open_clip's MODEL/WEIGHTS, which only that library understands."""
    return getattr(config, "kind", "") == "open_clip"


def folder_digest(folder: Path) -> str:
    """16 hex digits over a file's bytes, or the names and bytes of a folder's configuration and weights."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in _WEIGHTS and file.is_file()]
    files = [folder] if folder.is_file() else files
    return _digest(folder, tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


def listing_digest(folder: Path) -> str:
    """16 hex digits over the names and sizes of a folder's files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return sizes_digest((file.relative_to(folder).as_posix(), file.stat().st_size) for file in files)


def sizes_digest(sizes: Iterable[tuple[str, int]]) -> str:
    """16 hex digits over names and sizes of files, in their order."""
    digest = hashlib.sha256()
    for name, size in sizes:
        digest.update(f"{name}\0{size}\0".encode("utf-8", "replace"))
    return digest.hexdigest()[:16]


@lru_cache(64)
def _digest(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """The same for files of these sizes and times: several stages name one network, which may be large."""
    digest = hashlib.sha256()
    for file, _, _ in files:
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _looked(path: str) -> str:
    if Path(path).expanduser().is_absolute():
        return ""
    return "in " + " or in ".join(str(place) for place in dict.fromkeys(_places(path)))


def _places(path: str) -> tuple[Path, ...]:
    return (Path.cwd(),) if path.startswith(".") else (Path.cwd(), HOME)
