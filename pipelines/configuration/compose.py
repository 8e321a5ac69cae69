"""The configuration: Hydra composes YAML and command line, this file makes frozen dataclasses of it.

    conf/config.yaml <- groups (experiment=NAME, decoder=XL, ...) <- key=value from the command line

The dataclasses are the schema: a key that none of them has is an error that names the nearest valid one.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

from annotated_types import Ge, Gt, Interval, Le, Lt

from pipelines.configuration.groups import chosen_groups, honour
from pipelines.dag.redaction import redacted

T = TypeVar("T")
BOUNDS: tuple[tuple[type, str, Any, str], ...] = (
    (Ge, "ge", operator.ge, "at least"),
    (Gt, "gt", operator.gt, "above"),
    (Le, "le", operator.le, "at most"),
    (Lt, "lt", operator.lt, "below"),
)
CONF_DIR = Path(__file__).resolve().parents[2] / "conf"


class ConfigError(ValueError):
    """A wrong configuration; the message names the key and what would be right, and no credentials."""

    def __init__(self, message: str):
        super().__init__(redacted(message))


def load_config(
    schema: type[T],
    overrides: Sequence[str] = (),
    conf_dir: str | Path = CONF_DIR,
) -> T:
    """Compose the configuration and return it as an instance of `schema`.

    Args:
        schema: the root dataclass. A field `experiment` left out of the YAML gets the name of the chosen
            experiment. It may have static methods: `derive` is given the values and the extras and returns
            the values with what follows from them; `extra_schemas` names dotted keys that others add, with
            their dataclasses, whose instances the field `extras` gets by key; `extra_folders` are searched
            for YAML beside `conf_dir`.
        overrides: `group=choice` and `dotted.key=value`. A text is taken as it stands; lists, numbers and
            quoted texts follow Hydra's grammar.
        conf_dir: folder of config.yaml and its groups.

    Raises:
        ConfigError: an unknown key, group or choice, a value of a wrong type, or a missing value.
    """
    conf = Path(conf_dir).resolve()
    extras: Mapping[str, type] = getattr(schema, "extra_schemas", dict)()
    folders = [conf, *getattr(schema, "extra_folders", list)()]
    values, choices = _compose([_prepared(schema, override, folders) for override in overrides], folders)
    if "experiment" in _types(schema) and "experiment" in choices:
        values.setdefault("experiment", choices["experiment"])
    _refuse_credentials(values, "")
    built = _taken_out(values, extras)
    _refuse_unknown(schema, values, "", [*valid_keys(schema), *extras])
    derive = getattr(schema, "derive", None)
    if derive is not None:
        values = derive(values, built)
    result: T = construct(schema, {**values, "extras": built} if extras else values, "")
    return result


def valid_keys(schema: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a schema."""
    for name, hint in _types(schema).items():
        key = f"{prefix}{name}"
        yield key
        for option in _options(hint):
            if dataclasses.is_dataclass(option):
                yield from valid_keys(option, f"{key}.")


def _taken_out(values: dict[str, Any], extras: Mapping[str, type]) -> dict[str, Any]:
    """Instances of the extra keys that the values have, by key; the values lose them."""
    built = {}
    for key, schema in extras.items():
        *above, last = key.split(".")
        group = dotted(values, ".".join(above)) if above else values
        if isinstance(group, dict) and last in group:
            own = group.pop(last)
            if own is not None:
                _refuse_unknown(schema, own, f"{key}.", list(valid_keys(schema, f"{key}.")))
                built[key] = construct(schema, own, key)
    return built


def _prepared(schema: Any, override: str, folders: Sequence[Path]) -> str:
    """Let Hydra set keys that the YAML does not mention (our schema judges them); check group choices."""
    key, separator, value = override.partition("=")
    if not separator:
        raise ConfigError(f"{override!r} is not of the form key=value")
    if key[:1] in "+~":
        return override
    groups = [folder / key.split("@")[0] for folder in folders]
    if not any(group.is_dir() for group in groups):
        return f"++{key}={quoted(value) if _is_text(schema, key) else value}"
    choices = sorted(path.stem for group in groups for path in group.glob("*.yaml"))
    if value not in choices:
        near = get_close_matches(value, choices, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"there is no {key} {value!r}; {hint}There are: {', '.join(choices)}")
    return override


def quoted(value: str) -> str:
    """A text that Hydra's grammar reads as exactly this text; null and what is quoted already stay.

    Only `${...}` keeps its meaning.
    """
    if value == "null" or (len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]):
        return value
    # Backslashes are doubled where a quote follows: elsewhere the grammar takes them as they are.
    return "'" + re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value) + "'"


def _is_text(schema: Any, key: str) -> bool:
    """Whether the schema has a text, and nothing that needs Hydra's grammar, under a dotted key."""
    options: tuple[Any, ...] = (schema,)
    for name in key.split("."):
        options = tuple(
            inner
            for option in options
            for inner in (
                _options(_types(option).get(name, Any))
                if dataclasses.is_dataclass(option)
                else _options(typing.get_args(option)[1])
                if typing.get_origin(option) is dict
                else ()
            )
        )
    return str in options and all(option in (str, type(None)) for option in options)


def _compose(overrides: list[str], folders: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The composed values, without Hydra's own, and the chosen option of each group."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(folders[0])):
            search = ["hydra.searchpath=[{}]".format(",".join(f"file://{folder}" for folder in folders[1:]))]
            composed = compose("config", search + overrides, return_hydra_config=True)
            chosen = {
                key: OmegaConf.to_container(compose(None, [*search, f"+{key}={choice}"]))
                for key, choice in chosen_groups(overrides, folders)
            }
        choices = OmegaConf.to_container(composed.hydra.runtime.choices)
        user = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        honour(user, chosen, overrides)
        values = OmegaConf.to_container(user, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{' '.join(overrides)}: {_one_line(error)}".lstrip(": ")) from None
    return typing.cast(dict[str, Any], values), typing.cast(dict[str, Any], choices)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(line for line in lines if not line.startswith(("object_type", "Set the env")))


def _refuse_credentials(values: Any, key: str) -> None:
    """Whatever the configuration holds is shown: in manifests, runs, reports and the list of processes."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            _refuse_credentials(str(name), f"a key of {key}" if key else "a key")
            _refuse_credentials(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, (list, tuple)):
        for index, value in enumerate(values):
            _refuse_credentials(value, f"{key}[{index}]")
    elif isinstance(values, str) and redacted(values) != values:
        raise ConfigError(
            f"{key} holds credentials ({values}), and a configuration is shown in many places; give them by "
            "the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, MLFLOW_TRACKING_URI, PGPASSFILE), "
            "or fetch the file first and name its copy"
        )


def _refuse_unknown(schema: Any, values: Any, prefix: str, valid: list[str]) -> None:
    """Look for keys that the schema does not have, anywhere, before any value is judged."""
    if not isinstance(values, Mapping):
        return
    hints = _types(schema)
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in hints:
            raise ConfigError(f"unknown key {key}; did you mean {_nearest(key, valid)}?")
        for option in _options(hints[name]):
            arguments = typing.get_args(option)
            if dataclasses.is_dataclass(option):
                _refuse_unknown(option, value, f"{key}.", valid)
            elif typing.get_origin(option) is dict and dataclasses.is_dataclass(arguments[1]):
                for entry, item in (value or {}).items():
                    _refuse_unknown(arguments[1], item, f"{key}.{entry}.", valid)


def _nearest(key: str, valid: list[str]) -> str:
    """The valid key that was meant: a sibling, else the same word elsewhere, else the closest path."""
    parent, _, word = key.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in valid if k.rpartition(".")[0] == parent}
    everywhere = {k.rpartition(".")[2]: k for k in reversed(valid)}
    for words in (siblings, everywhere):
        if near := get_close_matches(word, words, n=1):
            return words[near[0]]
    return get_close_matches(key, valid, n=1, cutoff=0.0)[0]


def dotted(values: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key in nested mappings; None where there is none."""
    found: Any = values
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, making what is above it."""
    *above, last = key.split(".")
    for name in above:
        values = values.setdefault(name, {})
    values[last] = value


def construct(schema: Any, values: Any, path: str) -> Any:
    """An instance of a dataclass from composed values; messages name keys below `path`."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must be a group of keys, not {values!r}")
    hints, arguments = _types(schema), {}
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


def _types(schema: Any) -> dict[str, Any]:
    """Field types of a dataclass by name."""
    hints = typing.get_type_hints(schema, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(hint) or f"of type {hint}"
