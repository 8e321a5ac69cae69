"""Frozen dataclasses of composed values: types, bounds, and messages that name the key."""

from __future__ import annotations

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union

from annotated_types import Ge, Gt, Interval, Le, Lt

from pipelines.dag.redaction import redacted

BOUNDS: tuple[tuple[type, str, Any, str], ...] = (
    (Ge, "ge", operator.ge, "at least"),
    (Gt, "gt", operator.gt, "above"),
    (Le, "le", operator.le, "at most"),
    (Lt, "lt", operator.lt, "below"),
)


class ConfigError(ValueError):
    """A wrong configuration; the message names the key and what would be right, and no credentials."""

    def __init__(self, message: str):
        super().__init__(redacted(message))


def construct(schema: Any, values: Any, path: str) -> Any:
    """An instance of a dataclass from composed values; messages name keys below `path`."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must be a group of keys, not {values!r}")
    hints, arguments = field_types(schema), {}
    for field in dataclasses.fields(schema):
        key = f"{path}.{field.name}" if path else field.name
        if field.name in values:
            arguments[field.name] = _coerce(hints[field.name], values[field.name], key)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{key} has no value; give one with {key}=...")
    try:
        return schema(**arguments)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}" if path else str(error)) from error


def _coerce(hint: Any, value: Any, key: str) -> Any:
    """A YAML value as the field's type: lists become tuples, integers floats; nothing else changes."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _within(_coerce(arguments[0], value, key), arguments[1:], key)
    if origin in (Union, types.UnionType):
        return _coerce_union(arguments, value, key)
    if dataclasses.is_dataclass(hint):
        return construct(hint, value, key)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{key} is one of {', '.join(map(str, arguments))}, not {value!r}")
    if origin in (tuple, list, Sequence) and isinstance(value, (list, tuple)):
        return _coerce_sequence(origin, arguments, value, key)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {str(name): _coerce(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
    if hint is Any or (hint is type(None) and value is None):
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(f"{key} must be a finite number, not {value}")
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{key} must be {_type_name(hint)}, not {value!r}")


def _within(value: Any, bounds: Sequence[Any], key: str) -> Any:
    """The value, if it lies within the bounds that its field's type states (see `reptok/bounds.py`)."""
    for bound in (part for group in bounds for part in (group if isinstance(group, Interval) else (group,))):
        for kind, name, holds, words in BOUNDS:
            if isinstance(bound, kind) and not holds(value, getattr(bound, name)):
                raise ConfigError(f"{key} must be {words} {getattr(bound, name)}, not {value}")
    return value


def _coerce_union(options: tuple[Any, ...], value: Any, key: str) -> Any:
    if value is None and type(None) in options:
        return None
    errors = []
    for option in sorted(options, key=lambda option: option is not type(value)):
        try:
            return _coerce(option, value, key)
        except ConfigError as error:
            if option is not type(None):
                errors.append(error)
    raise errors[0]


def _coerce_sequence(origin: Any, arguments: tuple[Any, ...], values: Sequence[Any], key: str) -> Any:
    if origin is tuple and arguments[-1] is not Ellipsis:
        if len(values) != len(arguments):
            raise ConfigError(f"{key} takes {len(arguments)} values, not {len(values)}")
        kinds = arguments
    else:
        kinds = (arguments[0],) * len(values)
    pairs = enumerate(zip(kinds, values, strict=True))
    items = [_coerce(kind, value, f"{key}[{index}]") for index, (kind, value) in pairs]
    return items if origin is list else tuple(items)


def field_types(schema: Any) -> dict[str, Any]:
    """Field types of a dataclass by name."""
    hints = typing.get_type_hints(schema, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def options_of(hint: Any) -> tuple[Any, ...]:
    """Return the types that a hint allows."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(hint) or f"of type {hint}"
