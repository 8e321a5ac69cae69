"""The configuration: Hydra composes YAML and command line, this file makes frozen dataclasses of it.

    conf/config.yaml <- groups (experiment=NAME, decoder=XL, ...) <- key=value from the command line

The dataclasses are the schema: a key that none of them has is an error that names the nearest valid one.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pipelines.configuration.choices import there_is_no
from pipelines.configuration.construct import ConfigError, construct, field_types, options_of
from pipelines.configuration.groups import chosen_groups, honour
from pipelines.dag.redaction import redacted
from pipelines.dag.reference import HOME

T = TypeVar("T")
CONF_DIR = HOME / "conf"


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
    if "experiment" in field_types(schema) and "experiment" in choices:
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
    for name, hint in field_types(schema).items():
        key = f"{prefix}{name}"
        yield key
        for option in options_of(hint):
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
        raise ConfigError(there_is_no(key, value, choices))
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
                options_of(field_types(option).get(name, Any))
                if dataclasses.is_dataclass(option)
                else options_of(typing.get_args(option)[1])
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
    hints = field_types(schema)
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in hints:
            raise ConfigError(f"unknown key {key}; did you mean {_nearest(key, valid)}?")
        for option in options_of(hints[name]):
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
