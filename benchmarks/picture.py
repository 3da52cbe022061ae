"""The picture: wall time next to its bound, for each number of targets, on logarithmic scales. SVG by hand. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.figures import Row

_PANEL, _WIDTH, _TOP, _HEIGHT, _LEFT, _FOOT = 290, 250, 72, 240, 56, 46
_WORKER, _BOUND = "#0b6e99", "#d9730d"
_DASHES = ("", "7 3", "2 3", "1 6")


def picture(rows: Sequence[Row], title: str) -> str:
    """A panel for each situation, and in it a pair of lines for each latency."""
    situations = list(dict.fromkeys(row.situation for row in rows))
    latencies = sorted({row.latency for row in rows})
    values = [row.wall for row in rows] + [row.bound for row in rows if row.bound > 0]
    bottom, top = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    width, height = _LEFT + _PANEL * len(situations), _TOP + _HEIGHT + _FOOT
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(_LEFT, 20, title, 'font-size="14"'),
    ]
    at = _LEFT
    for words, colour, dash in [
        ("worker, from start to end", _WORKER, ""),
        ("bound", _BOUND, ""),
        *((f"OpenAI {1000 * latency:.0f} ms", "#666", _DASHES[i % 4]) for i, latency in enumerate(latencies)),
    ]:
        parts += [_line([(at, 40), (at + 26, 40)], colour, dash), _text(at + 32, 44, words)]
        at += 52 + 7 * len(words)
    for number, situation in enumerate(situations):
        panel = _Panel(_LEFT + number * _PANEL, sorted({row.targets for row in rows}), bottom, max(top, bottom + 1))
        parts += panel.frame(situation, labelled=number == 0)
        for i, latency in enumerate(latencies):
            same = [row for row in rows if (row.situation, row.latency) == (situation, latency)]
            parts += panel.curve([(row.targets, row.wall) for row in same], _WORKER, _DASHES[i % 4])
            bounds = [(row.targets, row.bound) for row in same if row.bound > 0]
            parts += panel.curve(bounds, _BOUND, _DASHES[i % 4])
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True, slots=True)
class _Panel:
    """`bottom` and `top`: powers of ten of a second."""

    left: int
    sizes: list[int]
    bottom: int
    top: int

    def across(self, targets: int) -> float:
        first, last = math.log10(self.sizes[0]), math.log10(self.sizes[-1])
        share = (math.log10(targets) - first) / (last - first) if last > first else 0.5
        return self.left + 12 + (_WIDTH - 24) * share

    def up(self, seconds: float) -> float:
        return _TOP + _HEIGHT * (self.top - math.log10(seconds)) / (self.top - self.bottom)

    def frame(self, situation: str, *, labelled: bool) -> list[str]:
        middle = self.left + _WIDTH / 2
        parts = [_text(middle, _TOP - 8, situation, 'text-anchor="middle" font-weight="bold"')]
        for power in range(self.bottom, self.top + 1):
            y = self.up(10.0**power)
            parts.append(_line([(self.left, y), (self.left + _WIDTH, y)], "#ddd"))
            if labelled:
                parts.append(_text(self.left - 6, y + 4, f"{10.0**power:g} s", 'text-anchor="end"'))
        below = _TOP + _HEIGHT + 18
        parts += [_text(self.across(size), below, f"{size:,}", 'text-anchor="middle"') for size in self.sizes]
        return [*parts, _text(middle, below + 18, "targets", 'text-anchor="middle"')]

    def curve(self, points: Sequence[tuple[int, float]], colour: str, dash: str) -> list[str]:
        places = [(self.across(targets), self.up(seconds)) for targets, seconds in sorted(points)]
        dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        return [_line(places, colour, dash), *dots] if places else []


def _line(points: Sequence[tuple[float, float]], colour: str, dash: str = "") -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dashes}/>'


def _text(x: float, y: float, words: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(words)}</text>'
