"""What identifies an artifact: the digest of everything that can change its bytes, and of nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from pipelines.dag import reference
from pipelines.dag.redaction import redacted

FINGERPRINT_LENGTH = 16


def insignificant(default: Any = dataclasses.MISSING, *, factory: Callable[[], Any] | None = None) -> Any:
    """A dataclass field that cannot change the bytes of an artifact (worker counts, log frequency, ...)."""
    metadata = {"significant": False}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def plain(value: Any, *, significant_only: bool = False) -> Any:
    """A config as JSON values; dataclasses become dicts; `significant_only` drops the other fields.

    A reference (see `reference.py`) becomes what its weights are, and its path where that counts. Credentials
    are left out: they are nobody's to read, and change no bytes.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(reference.identity(value, field, significant_only))
            if "reference" in field.metadata
            else plain(getattr(value, field.name), significant_only=significant_only)
            for field in dataclasses.fields(value)
            if not significant_only or _counts(value, field)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item, significant_only=significant_only) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, significant_only=significant_only) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PurePath):
        return redacted(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a config value must be finite, not {value}")
    if isinstance(value, str):
        return redacted(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise TypeError(f"a config holds plain values and dataclasses, not {type(value).__name__}: {value!r}")


def _counts(config: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a field can change bytes; one marked as optional cannot while it is empty."""
    if field.metadata.get("optional") and not getattr(config, field.name):
        return False
    return bool(field.metadata.get("significant", True))


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def fingerprint(name: str, version: int, config: Any, inputs: Mapping[str, str]) -> str:
    """16 hex digits that stand for a stage with its significant config and the fingerprints of its inputs.

    Args:
        name: the stage's name.
        version: the stage's version.
        config: its config dataclass; fields made with `insignificant` are left out.
        inputs: fingerprint of each input artifact by kind.
    """
    identity = {
        "name": name,
        "version": version,
        "config": plain(config, significant_only=True),
        "inputs": dict(inputs),
    }
    return hashlib.sha256(canonical_json(identity)).hexdigest()[:FINGERPRINT_LENGTH]
