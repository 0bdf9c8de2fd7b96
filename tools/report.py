"""What `verify` found, as a table for people, as JSON and as a page."""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

COLUMNS = ("target", "output", "draws", "max abs error", "max rel error", "÷ own error", "result")

EXPLANATION = """\
Errors are against the reference in float64. The own error is what a run in the model's own dtypes is off by when every
step rounds as well as it can (sums by a unit in the last place of the sum of their terms' magnitudes); a target passes
while it is off by at most {factor:g} times that. The first rows are the reference run in the model's own dtypes."""

BY_DESIGN = """\
That reference is of the model after {names}. How far this is from the model before stands in the row {row}: it is
so on purpose, and no fault of a target."""


@dataclass(frozen=True, slots=True)
class Row:
    """One output of one entry on one target, worst over all draws; or, without `output`, why there is none.

    `ok` is None where nothing was checked: a target that is not installed, or that lacks an op of the model.
    """

    target: str
    entry: str
    output: str
    ok: bool | None
    draws: int = 0
    max_abs: float = nan
    max_rel: float = nan
    units: float = nan
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Rows of every target and output. `ok` when everything that was checked holds, and anything was."""

    rows: tuple[Row, ...]
    reference: tuple[Row, ...] = ()
    """The reference in the model's own dtypes, against itself in float64."""
    factor: float = 16.0
    approximate: tuple[str, ...] = ()
    """The passes that are approximate on purpose: what is compared with is the reference of what they leave."""
    by_design: tuple[Row, ...] = ()
    """How far they go from the model, which is no fault."""

    @property
    def ok(self) -> bool:
        checked = [row.ok for row in self.rows if row.ok is not None]
        return bool(checked) and all(checked)

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "factor": self.factor,
            "rows": [_json(row) for row in self.rows],
            "reference": [_json(row) for row in self.reference],
            "approximate": list(self.approximate),
            "by_design": [_json(row) for row in self.by_design],
        }

    def __str__(self) -> str:
        lines = _cells(self)
        widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
        text = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
        text.insert(1, "  ".join("─" * width for width in widths))
        notes = [f"{row.target}: {row.note}" for row in self.rows if row.note]
        parts = ["\n".join(text), "\n".join(notes), explanation(self)]
        return "\n\n".join(part for part in parts if part)

    def to_html(self, path: Path | str) -> None:
        """Write the report as a page of its own, whole or not at all."""
        path = Path(path)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_page(self))
        os.replace(temporary, path)


def explanation(report: Report) -> str:
    """What the columns and the rows in brackets are."""
    text = EXPLANATION.format(factor=report.factor)
    if not report.approximate:
        return text
    names = " and ".join(f"`{name}`" for name in report.approximate)
    return f"{text}\n{BY_DESIGN.format(names=names, row=report.by_design[0].target)}"


def _json(row: Row) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and isnan(value) else value for key, value in asdict(row).items()}


def _cells(report: Report) -> list[tuple[str, ...]]:
    rows = (*report.reference, *report.by_design, *report.rows)
    several = len({row.entry for row in rows if row.entry}) > 1
    lines: list[tuple[str, ...]] = [COLUMNS]
    for row in rows:
        output = f"{row.entry}.{row.output}" if several and row.output else row.output
        if row.draws == 0:
            lines.append((row.target, output, "", "", "", "", _result(row)))
            continue
        numbers = (_number(row.max_abs), _number(row.max_rel), _number(row.units))
        lines.append((row.target, output, str(row.draws), *numbers, _result(row)))
    return lines


def _number(value: float) -> str:
    return "–" if isnan(value) else f"{value:.2g}" if isfinite(value) else "inf"


def _result(row: Row) -> str:
    if row.ok is None:
        return "not checked" if row.note else ""
    return "ok" if row.ok else "FAILED"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.rjust(width) if 2 <= i <= 5 else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]


def _page(report: Report) -> str:
    head, *lines = _cells(report)
    colours = {"ok": "ok", "FAILED": "failed"}
    body = "\n".join(
        f'<tr class="{colours.get(line[-1], "")}">'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in line)
        + "</tr>"
        for line in lines
    )
    notes = "".join(f"<p>{html.escape(row.target)}: {html.escape(row.note)}</p>" for row in report.rows if row.note)
    verdict = "All checks hold." if report.ok else "A check did not hold." if report.rows else "Nothing was checked."
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>graphc verify</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 3rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
td, th {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ccc; }}
td:nth-child(-n+2), th:nth-child(-n+2), td:last-child, th:last-child {{ text-align: left; }}
.ok td:last-child {{ color: #176f2c; }}
.failed td:last-child {{ color: #b3261e; font-weight: bold; }}
</style>
<h1>graphc verify</h1>
<p>{verdict}</p>
<table>
<tr>{"".join(f"<th>{html.escape(cell)}</th>" for cell in head)}</tr>
{body}
</table>
{notes}
<p>{html.escape(explanation(report))}</p>
</html>
"""
