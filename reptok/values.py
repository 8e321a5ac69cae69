"""JSON that somebody else wrote into configuration dataclasses, and numbers within their bounds."""

from __future__ import annotations

import os
import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from reptok.data.remote import data_path

C = TypeVar("C")


def from_values(cls: type[C], values: Any, source: object) -> C:
    """Build a configuration dataclass of what JSON holds.

    Args:
        cls: The dataclass; its fields are numbers, strings, paths, tuples of strings, None, or such
            dataclasses.
        values: A JSON object.
        source: What it stands in, for the message.

    Raises:
        ValueError: A key is unknown or missing, a value is of another type, or the dataclass refuses it.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{source}: {cls.__name__} must be a JSON object, not {type(values).__name__}")
    hints = get_type_hints(cls)
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ValueError(f"{source}: {cls.__name__} has no {', '.join(map(repr, unknown[:5]))}")
    checked = {key: _checked(hints[key], value, f"{source}: {key}") for key, value in values.items()}
    try:
        return cls(**checked)
    except TypeError as error:
        raise ValueError(f"{source}: {error}") from error


def check_ranges(owner: str, values: Any, **ranges: tuple[float, float]) -> None:
    """Check numbers of a dataclass against their bounds, both included; None passes.

    Raises:
        ValueError: Names the key, its bounds and what it is.
    """
    for name, (low, high) in ranges.items():
        value = getattr(values, name)
        if value is not None and not low <= value <= high:
            at_least = f"in [{low:g}, {high:g}]" if high < float("inf") else f"at least {low:g}"
            raise ValueError(f"{owner}.{name} must be {at_least}, got {value}")


def _checked(hint: Any, value: Any, place: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        hint = next(option for option in get_args(hint) if option is not type(None))
    if is_dataclass(hint) and isinstance(hint, type):
        return from_values(hint, value, place)
    if get_origin(hint) is Literal:
        allowed = get_args(hint)
        return value if value in allowed else _wrong(" or ".join(map(str, allowed)), value, place)
    if get_origin(hint) is os.PathLike:
        return data_path(value) if isinstance(value, str) else _wrong("a path", value, place)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**53 else _wrong(hint, value, place)
    if get_origin(hint) is tuple:
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        return _wrong(hint, value, place)
    return value if type(value) is hint else _wrong(hint, value, place)


def _wrong(hint: Any, value: Any, place: str) -> Any:
    shown = repr(value)
    raise ValueError(f"{place} must be {getattr(hint, '__name__', hint)}, got {shown[:80]}")
