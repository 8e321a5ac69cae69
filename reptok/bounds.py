"""Numbers that a configuration may hold, as types: `steps: Count`.

They are annotations, checked where a configuration is composed; a bound that ties two values together stands
in `__post_init__` of their dataclass.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

Count = Annotated[int, Ge(1)]
"""At least one."""

Whole = Annotated[int, Ge(0)]
"""None, or more."""

Number = Annotated[float, Ge(0)]
"""Not negative."""

Positive = Annotated[float, Gt(0)]
"""Above zero."""

Share = Annotated[float, Interval(ge=0, le=1)]
"""A part of a whole, a probability, a flow time."""

Decay = Annotated[float, Interval(ge=0, lt=1)]
"""A share that is never all: of a moving average, of validation samples."""

Signed = Annotated[float, Interval()]
"""Any finite number."""

Pixels = Annotated[int, Interval(ge=1, le=65_535)]
"""The side of a picture; JPEG knows no longer one."""

Quality = Annotated[int, Interval(ge=1, le=100)]
"""Of a JPEG."""

Quantisation = Literal["round", "truncate"]
"""How images in [-1, 1] become bytes."""
