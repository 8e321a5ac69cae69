"""A group that the command line chose is honoured, whatever an experiment says of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MISSING = "???"


def chosen_groups(overrides: Sequence[str], folders: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Group and choice of those overrides that choose one, apart from the experiment."""
    for override in overrides:
        key, _, choice = override.partition("=")
        if key != "experiment" and any((folder / key).is_dir() for folder in folders):
            yield key, choice


def honour(values: Any, chosen: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Give a group that the command line chose what an experiment took from it as a whole, and say the rest.

    An experiment refines groups, and may set one to null. What the command line chooses is not lost for that:
    a null, or a group in the place of a chosen null, gives way.
    """
    from omegaconf import OmegaConf

    final = OmegaConf.to_container(values)
    typed = {override.lstrip("+~").partition("=")[0] for override in overrides} - chosen.keys()
    for group, own in chosen.items():
        for name in own:
            if name in typed:
                continue
            if (own[name] is None) != (final.get(name) is None):
                given = [key for key in typed if key.startswith(f"{name}.")]
                kept = {key: OmegaConf.select(values, key) for key in given}
                OmegaConf.update(values, str(name), own[name], merge=False, force_add=True)
                for key, value in kept.items():
                    OmegaConf.update(values, key, value, force_add=True)
            elif (changed := _refined(own[name], final[name], str(name))) and not changed <= typed:
                keys = ", ".join(sorted(changed - typed))
                print(f"note: the experiment refines {group}: {keys}", file=sys.stderr)


def _refined(own: Any, final: Any, prefix: str) -> set[str]:
    """Dotted keys of a group's own file whose final values are others."""
    if not isinstance(own, Mapping) or not isinstance(final, Mapping):
        return {prefix} if own not in (final, MISSING) else set()
    return {key for name in own for key in _refined(own[name], final.get(name), f"{prefix}.{name}")}
