"""Folders that somebody else wrote: which of their files may be read, and what may stand in them.

A folder is read by the names that we know, and never left: what is no regular file inside of it is refused,
be it a link, a pipe or a device. Nothing in it may name code, another folder or a hub, since the libraries
that load networks would follow. Sizes are compared with the files before anything is allocated.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

MAX_ENTRIES, MAX_DEPTH = 10_000, 16
MAX_JSON_BYTES, MAX_JSON_VALUES = 2**22, 2**17
"""Of a configuration; libraries copy and check every value of one a few times."""
MAX_VOCABULARY_BYTES = 2**26
MAX_HEADER_BYTES = 2**24
MAX_NUMBER, MAX_LAYERS = 2**32, 1024
"""Deeper networks are refused: each layer costs time to build before its weights can be missed."""
SPARE_FACTOR, SPARE_NUMBERS = 4, 2**24
"""Tied weights, tables of positions and other buffers may come on top of what the files hold."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.md")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[A-Za-z0-9][\w.-]*)?")
_CODE = {  # keys by which a library loads code, another model, or weights of another kind
    "auto_map", "custom_pipelines", "custom_generate", "trust_remote_code", "quantization_config",
    "transformers_weights", "base_model_name_or_path", "hf_model_name", "hf_tokenizer_name",
    "checkpoint_path", "timm_model_name", "backbone", "backbone_config", "use_timm_backbone",
    "use_pretrained_backbone",
}  # fmt: skip
_ATTENTION = (None, "eager", "sdpa", "flash_attention_2")


def inside(folder: Path, name: str | os.PathLike[str]) -> Path:
    """The file or folder of that name in a folder, which need not exist.

    Raises:
        ValueError: It is absolute, has `..`, or a link leads out of the folder; a hub's cache, which links
            its snapshots to its blobs, counts as one folder.
    """
    if os.path.isabs(name) or ".." in Path(name).parts or "\0" in os.fspath(name):
        raise ValueError(f"{os.fspath(name)!r} is no path inside of {folder}")
    path = folder / name
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(root) for root in _roots(folder)):
        raise ValueError(f"{path} is a link that leaves its folder; put a copy in its place")
    return path


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is a pipe, a device or a folder, or larger.
        OSError: It cannot be read.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for a writer
    with open(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise ValueError(f"{path} is not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} has more than {limit} bytes")
    return data


def parse_json(data: bytes, source: Path) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: It is none, or nested beyond what Python reads.
    """
    value = json_value(data, source)
    if not isinstance(value, dict):
        raise ValueError(f"{source} must hold a JSON object")
    return value


def check_folder(folder: Path) -> None:
    """Refuse a folder that a library could be led out of.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds a link that leaves it, a pipe or device, an adapter, or JSON that names code,
            files elsewhere or impossible sizes.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    for path in _entries(folder):
        if path.name == "adapter_config.json":
            raise ValueError(f"{path}: adapters name another model; merge it into the weights")
        if path.suffix == ".json":
            limit = MAX_VOCABULARY_BYTES if path.name in VOCABULARIES else MAX_JSON_BYTES
            data = read_bytes(path, limit)
            if path.name not in VOCABULARIES:
                _check_values(json_value(data, path), path, sizes=path.name == "config.json")
            if path.name.endswith(".index.json"):
                _check_index(parse_json(data, path), path)
        elif path.suffix == ".safetensors":
            check_header(path)
        elif path.name in VOCABULARIES or path.suffix == ".jinja":
            read_bytes(path, MAX_VOCABULARY_BYTES)


def json_value(data: bytes, source: Path) -> Any:
    """Parse JSON of any kind, in UTF-8 as every library reads it; errors as `parse_json`."""
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} is not valid JSON: {error}") from error


def check_header(path: Path) -> None:
    """Refuse a safetensors file whose header claims more than any network has, before it is parsed."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > min(MAX_HEADER_BYTES, path.stat().st_size):
        raise ValueError(f"{path} is no safetensors file: its header claims {size} bytes")


def weight_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in safetensors files, by name; no tensor is read.

    Raises:
        ValueError: One is damaged.
    """
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        check_header(path)
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is no dictionary
                    shapes[name] = tuple(file.get_slice(name).get_shape())
        except Exception as error:  # its own error types, and a panic's message
            raise ValueError(f"{path} is no safetensors file: {error}") from error
    return shapes


def check_sizes(expected: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], source: Path) -> None:
    """Refuse a configuration whose network is far larger than its weights, before it is allocated.

    Args:
        expected: The network's parameters and buffers by name, on the meta device.
        shapes: Those of the files; see `weight_shapes`.
        source: Their folder, for the message.

    Raises:
        ValueError: The network has several times the numbers that the files hold.
    """
    wanted = sum(tensor.numel() for tensor in expected.values())
    held = sum(math.prod(shape) for shape in shapes.values())
    if wanted > SPARE_FACTOR * held + SPARE_NUMBERS:
        raise ValueError(f"{source} describes a network of {wanted:,} numbers, but its weights are {held:,}")


@contextmanager
def loading(source: Path | str) -> Iterator[None]:
    """Whatever a library raises over a file, among it the panics of its Rust parts, becomes a ValueError."""
    try:
        yield
    except (ValueError, OSError, MemoryError, ImportError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{source} cannot be loaded: {type(error).__name__}: {said}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{source} cannot be loaded: {error}") from error


def local_folder(path: str | os.PathLike[str], revision: str | None = None) -> Path:
    """A folder itself, or the hub's files of that name, fetched once; nothing executable is among them.

    Args:
        path: A folder, owner/name, or owner/name@revision.
        revision: Of a hub id that names none.

    Raises:
        FileNotFoundError: There is no such folder, and it cannot be a hub id.
        OSError: The hub has no such model or cannot be reached.
    """
    name = os.fspath(path)
    if os.path.isdir(name):
        return Path(name)
    if not _HUB_ID.fullmatch(name) or ".." in name:
        raise FileNotFoundError(f"there is no folder {name!r}, and it is no hub id (owner/name)")
    from huggingface_hub import snapshot_download

    hub, _, own = name.partition("@")
    try:
        return Path(snapshot_download(hub, revision=own or revision, allow_patterns=list(HUB_FILES)))
    except Exception as error:
        raise OSError(
            f"no model at {name!r}: neither a folder nor a hub model within reach ({error}); without "
            "network, fetch it elsewhere with `hf download` and give the folder's path"
        ) from error


def commit_of(folder: Path) -> str | None:
    """The commit whose snapshot in the hub's cache a folder is, or None."""
    return folder.name if folder.parent.name == "snapshots" else None


def _roots(folder: Path) -> list[Path]:
    root = Path(os.path.realpath(folder))
    caches = [place.parent / "blobs" for place in (root, *root.parents) if place.name == "snapshots"]
    return [root, *(place for place in caches if place.is_dir())]


def _entries(folder: Path) -> Iterator[Path]:
    """The files of a folder and its subfolders, each of them regular and inside."""
    waiting, seen = [(folder, 0)], 0
    while waiting:
        place, depth = waiting.pop()
        with os.scandir(place) as listing:
            entries = sorted(islice(listing, MAX_ENTRIES + 1), key=lambda entry: entry.name)
        seen += len(entries)
        if seen > MAX_ENTRIES or depth > MAX_DEPTH:
            raise ValueError(
                f"{folder} has more than {MAX_ENTRIES} entries, or {MAX_DEPTH} folders in each other; it is "
                "no model's folder"
            )
        for entry in entries:
            path = Path(entry.path)
            if entry.is_symlink():  # only a link can lead out
                inside(folder, path.relative_to(folder))
            if entry.is_dir(follow_symlinks=False):
                waiting.append((path, depth + 1))
            elif path.is_file():
                yield path
            else:
                raise ValueError(f"{path} is not a regular file")


def _check_index(index: Mapping[str, Any], path: Path) -> None:
    files = index.get("weight_map")
    if not isinstance(files, dict):
        raise ValueError(f"{path} has no weight_map")
    for name in files.values():
        if not isinstance(name, str) or os.path.basename(name) != name:
            raise ValueError(f"{path} names {name!r}, which is no file beside it")


def _check_values(value: Any, path: Path, *, sizes: bool) -> None:
    waiting: list[Any] = [value]
    seen = 0
    while waiting:
        value = waiting.pop()
        seen += len(value) if isinstance(value, list | dict) else 0
        if seen > MAX_JSON_VALUES:
            raise ValueError(f"{path} has more than {MAX_JSON_VALUES} values; no configuration has as many")
        if sizes and isinstance(value, int) and abs(value) > MAX_NUMBER:  # in a list, too
            raise ValueError(f"{path}: a number of {len(str(value))} digits is more than any network has")
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            for key, entry in value.items():
                _check_entry(key, entry, path, sizes)
                waiting.append(entry)


def _check_entry(key: str, value: Any, path: Path, sizes: bool) -> None:
    if key in _CODE and value not in (None, False):
        raise ValueError(f"{path} has {key!r}, which leads to code or to another model; it is not followed")
    if "attn_implementation" in key and value not in _ATTENTION:
        raise ValueError(f"{path} asks for the attention {value!r}; one of {_ATTENTION[1:]} is known")
    if "implementation" in key and "/" in str(value):
        raise ValueError(f"{path}: {key} names code of the hub, {value!r}; it is not fetched")
    if key == "model_type" and str(value).startswith("timm"):
        raise ValueError(f"{path} wraps a network of timm, which would be built from arguments of its own")
    if key.endswith("_file") and value is not None and os.path.basename(str(value)) != value:
        raise ValueError(f"{path} names the file {value!r}, which is not beside it")
    if sizes and isinstance(value, int) and abs(value) > (MAX_LAYERS if _counts(key) else MAX_NUMBER):
        raise ValueError(f"{path}: {key} of {value} is more than any network has")


def _counts(key: str) -> bool:
    return any(word in key for word in ("layers", "depth", "num_blocks"))
