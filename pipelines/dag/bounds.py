"""Bounds of the numbers in a configuration."""

from __future__ import annotations


def check_bounds(config: object, place: str, **bounds: tuple[float, float]) -> None:
    """Refuse numbers out of their range, which includes both ends.

    Args:
        config: has the fields that `bounds` names.
        place: of its fields in the whole configuration ("download.fetch").
        **bounds: field name to smallest and largest value.

    Raises:
        ValueError: names the field, its range and its value.
    """
    for name, (smallest, largest) in bounds.items():
        value = getattr(config, name)
        if not smallest <= value <= largest:  # also for what is no number (nan)
            raise ValueError(f"{place}.{name} must be between {smallest:,} and {largest:,}, not {value}")
