"""The manifest of an artifact: what it was made from, by what, and the table of its files.

It is read from a folder that others may have written into: whatever is in it, a reader gets the whole of it
in the types below, or one sentence that names the file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from pipelines.dag.storage import Folder, checked_name

MANIFEST = "manifest.json"
LIMIT_BYTES = 1 << 28
"""A manifest of a million files has about 150 MB."""

DEPTH = 40
_NAME = re.compile(r"[\w-]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class ManifestError(ValueError):
    """A manifest that cannot be read; the message names the file and what is wrong with it."""


def read_manifest(folder: Folder) -> dict[str, Any]:
    """The manifest of a folder, with a neutral value for every key that it lacks.

    Raises:
        FileNotFoundError: the folder has none.
        ManifestError: it is damaged.
        OSError: it cannot be read.
    """
    place = folder.url_of(MANIFEST)
    size = folder.size(MANIFEST)
    if size is None:
        raise FileNotFoundError(f"{place} is not there")
    if size > LIMIT_BYTES:
        raise ManifestError(f"{place}: not a readable manifest (it has {size} bytes)")
    try:
        found = json.loads(folder.read_bytes(MANIFEST), parse_constant=_refused, parse_float=_finite)
        json.dumps(found, ensure_ascii=False).encode()  # half a character could not be printed
        return _checked(found)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{place}: not a readable manifest ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """What is wrong, without anything that a terminal would obey."""
    return _CONTROL.sub("?", str(error).partition("\n")[0])[:200]


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refused(text)


def _checked(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    if "files" not in found or "digest" not in found:
        raise ValueError("it lacks files or digest")
    manifest = {key: default() for key, (default, _) in _FIELDS.items()} | found
    for key, (_, holds) in _FIELDS.items():
        if not holds(manifest[key]):
            raise ValueError(f"{key} is not what it should be")
    return manifest


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_optional_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _are_names(value: Any) -> bool:
    """Kinds with fingerprints: paths are made of both."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and _NAME.fullmatch(kind) and _NAME.fullmatch(name)
        for kind, name in value.items()
    )


def _are_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _NAME.fullmatch(k) and isinstance(d, str) for k, d in value.items()
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _are_files(value: Any) -> bool:
    return isinstance(value, dict) and all(
        not _CONTROL.search(checked_name(name))
        and isinstance(entry, dict)
        and _is_count(entry.get("size"))
        and isinstance(sha256 := entry.get("sha256"), str)
        and _DIGEST.fullmatch(sha256)
        for name, entry in value.items()
    )


def _is_config(value: Any) -> bool:
    """An object, nested no deeper than a configuration is."""
    level, depth = [value], 0
    while level:
        depth += 1
        level = [
            item
            for outer in level
            if isinstance(outer, (dict, list))
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return isinstance(value, dict) and depth <= DEPTH


_FIELDS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "stage": (str, _is_text),
    "version": (int, _is_count),
    "kind": (str, _is_text),
    "fingerprint": (str, _is_text),
    "config": (dict, _is_config),
    "models": (dict, _are_texts),
    "inputs": (dict, _are_names),
    "input_digests": (dict, _are_digests),
    "stats": (dict, _are_numbers),
    "seconds": (float, _is_number),
    "git_commit": (str, _is_optional_text),
    "run_id": (str, _is_optional_text),
    "created": (str, _is_text),
    "files": (dict, _are_files),
    "digest": (str, _is_text),
}
