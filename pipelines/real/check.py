"""One check: networks that our loaders load once, and what is measured of them, row by row."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from pipelines.dag.redaction import redacted
from pipelines.real.material import Material
from pipelines.real.stated import Stated, Values, judge
from reptok.terminal import visible

PASSED, DIFFERS, FAILED = "passed", "differs", "failed"
NOT_LOADED, SKIPPED = "could not be loaded", "skipped"
GOOD = (PASSED, SKIPPED)
KEPT = 16
"""Numbers of a longer vector that are written down; all of them are compared."""


class Skipped(Exception):
    """There is nothing to check; says why."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a row: its file in the results' folder, and what it shows."""

    file: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured.

    Attributes:
        ours: Numbers or a text.
        theirs: Of the publisher's own code, run beside ours; None where the value is stated.
        tolerance: In the place of the stated one, where it depends on what was measured.
        note: Told beside it.
        pictures: To look at.
    """

    ours: Values
    theirs: Values | None = None
    tolerance: tuple[float, ...] | None = None
    note: str = ""
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Check:
    """What is loaded, and the rows that it gives.

    Attributes:
        what: The network, in words.
        place: Hub id, name, folder or file that it is loaded from.
        load: Loads it.
        rows: By name, what measures one row of what was loaded.
    """

    what: str
    place: str
    load: Callable[[Material], Any]
    rows: Mapping[str, Callable[[Any, Material], Measured]]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A row of the report.

    Attributes:
        name: Of the row.
        what: Of the network.
        place: It was loaded from.
        of: What is compared.
        source: Who states it.
        outcome: One of the words above.
        ours: Numbers, at most `KEPT` of them, or a text; None without a measurement.
        theirs: As above.
        compared: How many numbers were compared.
        difference: The largest of a number.
        tolerance: What of each number, or of all, passes.
        seconds: Loading (of a check's first row) and measuring.
        note: More, or the sentence that says what went wrong.
        pictures: To look at.
    """

    name: str
    what: str
    place: str
    of: str
    source: str
    outcome: str
    ours: Values | None = None
    theirs: Values | None = None
    compared: int = 0
    difference: float | None = None
    tolerance: tuple[float, ...] = ()
    seconds: float = 0.0
    note: str = ""
    pictures: tuple[Picture, ...] = ()


def run_check(check: Check, stated: Mapping[str, Stated], material: Material) -> Iterator[Result]:
    """Load and measure; whatever goes wrong becomes a result, and stops no other row."""
    started, loaded = time.monotonic(), None
    missing: tuple[str, str] | None = None
    try:
        loaded = check.load(material)
    except Skipped as reason:
        missing = SKIPPED, str(reason)
    except Exception as error:
        missing = NOT_LOADED, said(error)
    for name, measure in check.rows.items():
        value = stated[name]
        row = Result(
            name=name, what=check.what, place=redacted(check.place), of=value.of, source=value.source,
            outcome=SKIPPED,
        )  # fmt: skip
        if missing:
            row = replace(row, outcome=missing[0], note=missing[1])
        else:
            row = _measured(row, value, partial(measure, loaded, material))
        yield replace(row, seconds=time.monotonic() - started)
        started = time.monotonic()
    del loaded
    gc.collect()
    if material.device.type == "cuda":
        torch.cuda.empty_cache()


def _measured(row: Result, stated: Stated, measure: Callable[[], Measured]) -> Result:
    try:
        measured = measure()
        theirs = stated.values if measured.theirs is None else measured.theirs
        if theirs is None:
            raise ValueError("there is nothing to compare with")
    except Exception as error:
        return replace(row, outcome=NOT_LOADED if isinstance(error, OSError) else FAILED, note=said(error))
    tolerance = stated.tolerance if measured.tolerance is None else measured.tolerance
    difference, passes = judge(measured.ours, theirs, tolerance)
    return replace(
        row, outcome=PASSED if passes else DIFFERS, ours=_kept(measured.ours), theirs=_kept(theirs),
        compared=1 if isinstance(measured.ours, str) else len(measured.ours),
        difference=difference if difference is not None and math.isfinite(difference) else None,
        tolerance=tolerance[:KEPT], note=measured.note, pictures=measured.pictures,
    )  # fmt: skip


def _kept(values: Values) -> Values:
    return values if isinstance(values, str) else values[:KEPT]


def said(error: Exception) -> str:
    """An error as one sentence that can be shown."""
    text = " ".join(visible(redacted(str(error))).split())
    return text if isinstance(error, OSError | ValueError) and text else f"{type(error).__name__}: {text}"
