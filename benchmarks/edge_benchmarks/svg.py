"""Plots as inline SVG: axes, lines, bars and points, drawn with the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 40

Scale = Callable[[float], float]


class Plot:
    """One plot.

    Args:
        x: least and greatest value shown.
        y: the same, upwards.
        x_label: of the axis, with its unit.
        y_label: of the axis, with its unit.
        x_ticks: value and text of each; None takes round numbers.
        log_x: logarithmic.
        log_y: the same.
        height: pixels.
    """

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        x_label: str,
        y_label: str,
        x_ticks: Sequence[tuple[float, str]] | None = None,
        log_x: bool = False,
        log_y: bool = False,
        height: int = HEIGHT,
    ) -> None:
        self.height = height
        self._x = _scale(x, (LEFT, WIDTH - RIGHT), log_x)
        self._y = _scale(y, (height - BOTTOM, TOP), log_y)
        self._parts: list[str] = []
        floor = height - BOTTOM
        for value, text in x_ticks or [(v, _number(v)) for v in ticks(*x, log=log_x)]:
            at = self._x(value)
            self._parts.append(f'<line class="grid" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{floor}"/>')
            self._parts.append(
                f'<text class="tick" x="{at:.1f}" y="{floor + 15}" text-anchor="middle">{escape(text)}</text>'
            )
        for value in ticks(*y, log=log_y, count=4 if height < 150 else 6):
            at = self._y(value)
            self._parts.append(
                f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>'
            )
            self._parts.append(
                f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_number(value)}</text>'
            )
        middle = (LEFT + WIDTH - RIGHT) / 2
        self._parts.append(
            f'<text class="label" x="{middle:.0f}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>'
        )
        up = (TOP + floor) / 2
        self._parts.append(
            f'<text class="label" transform="translate(13 {up:.0f}) rotate(-90)" text-anchor="middle">'
            f"{escape(y_label)}</text>"
        )

    def line(self, points: Sequence[tuple[float, float]], color: int, *, dashed: bool = False) -> None:
        """Connect points."""
        if points:
            path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
            dash = ' stroke-dasharray="4 3"' if dashed else ""
            self._parts.append(f'<polyline class="line c{color}"{dash} points="{path}"/>')

    def band(self, points: Sequence[tuple[float, float, float]], color: int) -> None:
        """Fill between (x, low, high)."""
        if points:
            there = [f"{self._x(x):.1f},{self._y(high):.1f}" for x, _, high in points]
            back = [f"{self._x(x):.1f},{self._y(low):.1f}" for x, low, _ in reversed(points)]
            self._parts.append(f'<polygon class="band c{color}" points="{" ".join(there + back)}"/>')

    def bar(self, x: tuple[float, float], y: tuple[float, float], color: int, title: str) -> None:
        """A rectangle between two values on either axis."""
        x0, x1, y0, y1 = self._x(x[0]), self._x(x[1]), self._y(y[1]), self._y(y[0])
        self._parts.append(
            f'<rect class="bar c{color}" x="{x0:.2f}" y="{y0:.2f}" width="{max(0.8, x1 - x0):.2f}" '
            f'height="{max(0.0, y1 - y0):.2f}"><title>{escape(title)}</title></rect>'
        )

    def point(self, x: float, y: float, color: int, title: str) -> None:
        """A dot."""
        self._parts.append(
            f'<circle class="dot c{color}" cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="5">'
            f"<title>{escape(title)}</title></circle>"
        )

    def whisker(self, x: tuple[float, float], y: tuple[float, float], color: int) -> None:
        """A thin line, such as an interval."""
        self._parts.append(
            f'<line class="line c{color}" x1="{self._x(x[0]):.1f}" y1="{self._y(y[0]):.1f}" '
            f'x2="{self._x(x[1]):.1f}" y2="{self._y(y[1]):.1f}"/>'
        )

    def mark(self, x: float, text: str, level: int = 0) -> None:
        """A vertical line with a word at its head; ``level`` puts the word lower, so that neighbours stay legible."""
        at = self._x(x)
        anchor, shift = ("end", -4) if at > WIDTH - 110 else ("start", 4)
        self._parts.append(
            f'<line class="mark" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{self.height - BOTTOM}"/>'
            f'<text class="tick" x="{at + shift:.1f}" y="{TOP + 10 + 13 * level}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )

    def svg(self, title: str) -> str:
        """The element."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(title, quote=True)}">'
            + "".join(self._parts)
            + "</svg>"
        )


def ticks(low: float, high: float, *, log: bool = False, count: int = 6) -> list[float]:
    """Round values between two."""
    if log and high / low > 8:
        found = [
            m * 10.0**e
            for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for m in ((1, 2, 5) if high / low < 1000 else (1,))
        ]
    else:
        raw = (high - low) / count
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
        found = [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [v for v in found if low <= v <= high]


def padded(values: Sequence[float], share: float = 0.05) -> tuple[float, float]:
    """A range that shows all values with some air; never empty."""
    low, high = min(values), max(values)
    air = (high - low) * share or abs(high) * share or 1.0
    return low - air, high + air


def _scale(value: tuple[float, float], pixel: tuple[float, float], log: bool) -> Scale:
    low, high = (math.log10(v) for v in value) if log else value
    slope = (pixel[1] - pixel[0]) / (high - low)

    def place(v: float) -> float:
        return pixel[0] + ((math.log10(v) if log else v) - low) * slope

    return place


def _number(value: float) -> str:
    return f"{value:.10g}" if abs(value) < 1e6 else f"{value:.3g}"
