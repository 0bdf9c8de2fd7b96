"""Curves of a training run: as SVG and in characters without any library, or as a figure of matplotlib's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from graphc.frontends.whole_files import write_whole

COLOURS = {"training": "#1f77b4", "validation": "#ff7f0e"}
PREFIX = "val_"
WIDTH, HEIGHT, MARGIN = 360, 240, 48
ROWS, COLUMNS = 12, 64
"""The size of a panel in characters."""


@dataclass(frozen=True)
class Panel:
    """One log: `curves` has its values in training and validation over `epochs`, counted from 1."""

    title: str
    epochs: tuple[int, ...]
    curves: Mapping[str, tuple[float, ...]]

    @property
    def points(self) -> dict[str, list[tuple[int, float]]]:
        """What can be drawn of each curve. A curve that is shorter than the epochs is of the last ones."""
        return {
            name: [(e, v) for e, v in zip(self.epochs[-len(values) :], values, strict=False) if math.isfinite(v)]
            for name, values in self.curves.items()
        }

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value; apart, also when they are the same."""
        values = [value for points in self.points.values() for _, value in points] or [0.0]
        low, high = min(values), max(values)
        return (low, high) if high > low else (low - 0.5, high + 0.5)


def panels(epochs: Sequence[int], history: Mapping[str, Sequence[float]]) -> list[Panel]:
    """A panel for each log, in order; the validation values of one are in its panel."""
    names = [name for name in history if not (name.startswith(PREFIX) and name.removeprefix(PREFIX) in history)]
    counted = tuple(epoch + 1 for epoch in epochs)
    found: list[Panel] = []
    for name in names:
        curves = {"training": tuple(history[name])}
        if PREFIX + name in history:
            curves["validation"] = tuple(history[PREFIX + name])
        if any(curves.values()):
            found.append(Panel(name, counted, curves))
    return found


def write_svg(path: Path, drawn: Sequence[Panel]) -> None:
    """Write the panels side by side. Raises `GraphcError` where the file cannot be written."""
    width = WIDTH * len(drawn)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" font-family="sans-serif" '
        f'font-size="11"><rect width="{width}" height="{HEIGHT}" fill="white"/>'
    ]
    for number, panel in enumerate(drawn):
        lines += [f'<g transform="translate({number * WIDTH} 0)">', *_panel_svg(panel), "</g>"]
    write_whole(path, "\n".join([*lines, "</svg>", ""]).encode(), overwrite=True)


def _panel_svg(panel: Panel) -> list[str]:
    low, high = panel.range
    first, last = panel.epochs[0], max(panel.epochs[-1], panel.epochs[0] + 1)
    right, bottom = WIDTH - 12, HEIGHT - MARGIN

    def at(epoch: float, value: float) -> tuple[float, float]:
        x = MARGIN + (epoch - first) / (last - first) * (right - MARGIN)
        return round(x, 1), round(bottom - (value - low) / (high - low) * (bottom - 28), 1)

    lines = [
        f'<text x="{MARGIN}" y="18" font-size="13">{escape(panel.title)}</text>',
        f'<path d="M{MARGIN} 28V{bottom}H{right}" fill="none" stroke="#888"/>',
        f'<text x="{MARGIN - 4}" y="32" text-anchor="end">{high:.4g}</text>',
        f'<text x="{MARGIN - 4}" y="{bottom}" text-anchor="end">{low:.4g}</text>',
        f'<text x="{MARGIN}" y="{bottom + 14}">{first}</text>',
        f'<text x="{right}" y="{bottom + 14}" text-anchor="end">epoch {panel.epochs[-1]}</text>',
    ]
    for number, (name, points) in enumerate(panel.points.items()):
        colour = COLOURS[name]
        path = " ".join("{},{}".format(*at(*point)) for point in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        lines += ['<circle cx="{}" cy="{}" r="2" fill="{}"/>'.format(*at(*p), colour) for p in points]
        lines.append(f'<text x="{MARGIN + 90 * number}" y="{HEIGHT - 10}" fill="{colour}">{name}</text>')
    return lines


def figure(drawn: Sequence[Panel]) -> Any:
    """A figure of matplotlib's; None where it is not installed."""
    try:
        from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    found = Figure(figsize=(4.5 * len(drawn), 3.2), layout="constrained")
    for axes, panel in zip(found.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        for name, points in panel.points.items():
            axes.plot(*zip(*points, strict=True), label=name, color=COLOURS[name]) if points else None
        axes.set_title(panel.title)
        axes.set_xlabel("epoch")
        axes.legend()
    return found


def print_drawing(drawn: Sequence[Panel]) -> None:
    """Print the panels below each other: `•` is training, `○` validation."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for panel in drawn:
        console.print(Text(panel.title, style="bold"))
        for line in drawing(panel):
            console.print(Text(line), no_wrap=True, overflow="crop")
    console.print("• training  ○ validation")


def drawing(panel: Panel) -> list[str]:
    """The lines of a panel in characters."""
    low, high = panel.range
    first, last = panel.epochs[0], max(panel.epochs[-1], panel.epochs[0] + 1)
    grid = [[" "] * COLUMNS for _ in range(ROWS)]
    for name, points in reversed(panel.points.items()):  # training lies on top
        for epoch, value in points:
            column = round((epoch - first) / (last - first) * (COLUMNS - 1))
            row = round((high - value) / (high - low) * (ROWS - 1))
            grid[row][column] = "•" if name == "training" else "○"
    labels = {0: f"{high:.4g}", ROWS - 1: f"{low:.4g}"}
    lines = [f"{labels.get(i, ''):>9} │{''.join(row)}".rstrip() for i, row in enumerate(grid)]
    end = f"epoch {panel.epochs[-1]}"
    return [*lines, f"{'':>9} └{'─' * COLUMNS}", f"{'':>11}{first:<{COLUMNS - len(end)}}{end}"]
