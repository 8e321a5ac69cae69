"""What a selection drops, for programs and for people."""

from __future__ import annotations

import html
import posixpath
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipelines.urls.scan import Scan

_PAGE = """<!doctype html>
<meta charset="utf-8"><title>Dropped URLs</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; color: #333; }}
table {{ border-collapse: collapse; width: 100%; }} td, th {{ padding: .25em .7em; text-align: right; }}
td:first-child, th:first-child {{ text-align: left; }} tr {{ border-bottom: 1px solid #ddd; }}
.bar {{ width: 35%; }} .bar div {{ height: .6em; background: #3f7fd1; }}
.bar div + div {{ background: #e07b39; }}
</style>
<h1>{rows_out:,} of {rows_in:,} rows stay ({share:.1%})</h1>
<p>Every rule with the rows that it would drop if it were the only one (blue), and those that it drops after
the rules above it (orange).</p>
<table><tr><th>rule<th>threshold<th>alone<th>in order<th class="bar"></tr>
{lines}
</table>
<h2>Read</h2>
<table><tr><th>file<th>rows</tr>
{sources}
</table>
"""
_LINE = (
    "<tr><td>{rule}<td>{threshold}<td>{alone:,}<td>{dropped:,}"
    '<td class="bar"><div style="width: {alone_width:.2f}%"></div>'
    '<div style="width: {width:.2f}%"></div></tr>'
)


def as_json(scan: Scan) -> dict[str, Any]:
    """`{"rows_in", "rows_out", "rules": [{"rule", "threshold", "alone", "dropped"}], "sources": [...]}`."""
    return {
        "rows_in": scan.rows,
        "rows_out": scan.alive.total(),
        "rules": [asdict(drops) for drops in scan.drops],
        "sources": [{"file": posixpath.basename(name), "rows": rows} for name, rows in scan.files],
    }


def as_html(report: Mapping[str, Any]) -> str:
    """A page with a table and bars."""
    rows = max(1, report["rows_in"])
    lines = [
        _LINE.format(
            rule=html.escape(rule["rule"]),
            threshold=html.escape(str("" if rule["threshold"] is None else rule["threshold"])),
            alone=rule["alone"],
            dropped=rule["dropped"],
            alone_width=100 * rule["alone"] / rows,
            width=100 * rule["dropped"] / rows,
        )
        for rule in report["rules"]
    ]
    sources = [
        f"<tr><td>{html.escape(source['file'])}<td>{source['rows']:,}</tr>" for source in report["sources"]
    ]
    return _PAGE.format(
        rows_in=report["rows_in"],
        rows_out=report["rows_out"],
        share=report["rows_out"] / rows,
        lines="\n".join(lines),
        sources="\n".join(sources),
    )
