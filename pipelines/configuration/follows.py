"""The one way in which a value follows from others, or contradicts them."""

from __future__ import annotations

from typing import Any

from pipelines.configuration.compose import dotted, put
from pipelines.configuration.construct import ConfigError


def follows(values: dict[str, Any], key: str, value: Any, because: str) -> None:
    """Set what follows from other keys, unless it is typed; then it must be the same.

    Args:
        values: The configuration.
        key: What follows.
        value: Its value; None where it cannot be known, and must be typed.
        because: From which key, in words that go on "it follows from".
    """
    typed = dotted(values, key)
    if value is None and typed is None:
        raise ConfigError(f"{key} would follow from {because}, which is not known here: give {key}=...")
    if typed is None:
        put(values, key, value)
    elif value is not None and typed != value:
        raise ConfigError(
            f"{key}={typed} contradicts {because}, from which {value} follows; leave {key} out, or change "
            "that"
        )
