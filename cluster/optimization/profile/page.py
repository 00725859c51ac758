"""A profile as one HTML file that needs no network: bottlenecks, flame view, table."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from cluster.optimization.profile.report import ProfileReport, bottlenecks
from cluster.optimization.search.page import STYLE

WIDTH, ROW = 1100, 20
MAX_DEPTH = 8
MIN_WIDTH = 1.5
"""Bars narrower than this many pixels are left out of the picture; the table has them."""


@dataclass(slots=True)
class Frame:
    us: float = 0.0
    children: dict[str, Frame] = field(default_factory=dict)


def page(report: ProfileReport) -> str:
    total = sum(each.us_per_call for each in report.operators) or 1.0
    words = "".join(f"<li>{escape(each)}</li>" for each in bottlenecks(report))
    rows = "".join(
        f"<tr><td>{escape('/'.join(each.path))}</td><td>{escape(each.operator)}</td>"
        f'<td class="n">{each.us_per_call:.1f}</td>'
        f'<td class="n">{each.us_per_call / total:.1%}</td>'
        f'<td class="n">{each.output_bytes / 1024:.0f}</td></tr>'
        for each in sorted(report.operators, key=lambda o: -o.us_per_call)[:200]
    )
    energy = report.energy_note
    if report.energy_joule is not None:
        energy = f"{report.energy_joule:.3f} J ({report.energy_note})"
    peak = f"{report.peak_bytes / 1e6:.0f} MB" if report.peak_bytes else "not measured"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(report.model)}'
        f" profiled</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(report.model)} on {escape(report.engine)}</h1>"
        f"<p>{report.call_us / 1000:.3f} ms a call over {report.num_calls} calls; peak memory of a "
        f"process {peak}; energy: {escape(energy)}.</p>"
        f"<h2>Bottlenecks</h2><ul>{words}</ul><h2>Flame view</h2>{flame(report)}"
        "<h2>Operators</h2><table><thead><tr><th>name</th><th>operator</th><th>us a call</th>"
        f"<th>share</th><th>KiB out</th></tr></thead><tbody>{rows}</tbody></table></body></html>\n"
    )


def flame(report: ProfileReport) -> str:
    """Bars as wide as their time, parts of a name below each other."""
    root = Frame()
    for each in report.operators:
        here = root
        here.us += each.us_per_call
        for part in each.path[:MAX_DEPTH]:
            here = here.children.setdefault(part, Frame())
            here.us += each.us_per_call
    bars: list[str] = []
    deepest = _draw(root, report.model, 0.0, 0, WIDTH / (root.us or 1.0), bars)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {(deepest + 1) * ROW}" '
        'font-family="system-ui,sans-serif" font-size="11">' + "".join(bars) + "</svg>"
    )


def _draw(frame: Frame, name: str, x: float, depth: int, scale: float, bars: list[str]) -> int:
    width = frame.us * scale
    if width < MIN_WIDTH:
        return depth
    text = escape(name[: max(0, int(width / 6.5))])
    hue = 20 + sum(map(ord, name)) % 40
    bars.append(
        f"<g><title>{escape(name)}: {frame.us:.1f} us</title>"
        f'<rect x="{x:.1f}" y="{depth * ROW}" width="{width:.1f}" height="{ROW - 1}" '
        f'fill="hsl({hue} 75% 70%)"/><text x="{x + 3:.1f}" y="{depth * ROW + 14}">{text}</text></g>'
    )
    deepest = depth
    for part, child in sorted(frame.children.items(), key=lambda item: -item[1].us):
        deepest = max(deepest, _draw(child, part, x, depth + 1, scale, bars))
        x += child.us * scale
    return deepest
