"""The report of a search as one HTML file that needs no network: table, plot, reasons."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from cluster.optimization.search.report import Candidate, OptimizeReport

WIDTH, HEIGHT, MARGIN = 720, 360, 56
STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;"
    "color:#1c2733;background:#fff}table{border-collapse:collapse;width:100%}"
    "th,td{padding:.35rem .6rem;border-bottom:1px solid #d8dee6;text-align:left}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}tr.chosen{background:#e8f4ea}"
    "tr.off{color:#7a8694}svg{max-width:100%}small{color:#5a6673}"
)


def page(report: OptimizeReport) -> str:
    rows = "".join(_row(each, each is report.chosen) for each in _sorted(report.candidates))
    warning = (
        ""
        if report.is_real_data
        else "<p><strong>Not validated:</strong> the inputs were random, so the accuracy of every "
        "variant is unknown.</p>"
    )
    ignored = "".join(
        f"<li>{escape(name)}: {escape(why)}</li>" for name, why in report.ignored.items()
    )
    machine = ", ".join(f"{name} {value}" for name, value in report.hardware.items())
    versions = ", ".join(f"{name} {value}" for name, value in report.libraries.items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(report.model)}'
        f" optimised</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(report.model)}</h1><p>{escape(report.reason)}</p>{warning}"
        f"<p>Data: {escape(report.data)}. Baseline: {escape(report.baseline)}. Batch "
        f"{report.batch_size}, {report.threads} thread(s). Speed-ups are ratios of "
        f"{'CPU' if report.speedup_of == 'cpu_ms' else 'wall'} time in one interleaved run.</p>"
        f"{plot(report.candidates, report.chosen)}"
        "<table><thead><tr><th>variant</th><th>p50 ms</th><th>CPU ms</th><th>speed-up</th>"
        "<th>MB</th><th>peak MB</th><th>quality</th><th></th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        + (f"<h2>Options that did not act</h2><ul>{ignored}</ul>" if ignored else "")
        + f"<p><small>{escape(machine)}<br>{escape(versions)}<br>sha256 of the model "
        f"{report.sha256}</small></p></body></html>\n"
    )


def plot(candidates: Sequence[Candidate], chosen: Candidate) -> str:
    """Cost against size as SVG; the front is filled, the chosen one ringed."""
    points = [each for each in candidates if each.timing is not None]
    if not points:
        return ""
    most_ms = 1.1 * max(each.cost_ms for each in points)
    most_bytes = 1.1 * max(each.size_bytes for each in points) or 1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui,sans-serif" font-size="11" role="img">'
        "<title>Cost against size</title>",
        f'<path d="M{MARGIN},{HEIGHT - MARGIN}H{WIDTH - 10}M{MARGIN},{HEIGHT - MARGIN}V10" '
        'stroke="#8893a0" fill="none"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">'
        f"{'wall' if points[0].is_by_wall else 'CPU'} ms a call (0 to {most_ms:.3g})</text>",
        f'<text x="14" y="{HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {HEIGHT / 2})">MB (0 to {most_bytes / 1e6:.3g})</text>',
    ]
    for each in points:
        x = MARGIN + (WIDTH - MARGIN - 90) * each.cost_ms / most_ms
        y = HEIGHT - MARGIN - (HEIGHT - MARGIN - 24) * each.size_bytes / most_bytes
        fill = "#2b7a4b" if each.is_on_front else "#fff"
        if each is chosen:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" fill="none" stroke="#d0642a"/>')
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{fill}" stroke="#2b7a4b"/>'
            f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(each.name)}</text>'
        )
    return "".join([*parts, "</svg>"])


def _sorted(candidates: Sequence[Candidate]) -> list[Candidate]:
    measured = [each for each in candidates if each.timing is not None]
    others = [each for each in candidates if each.timing is None]
    return sorted(measured, key=lambda each: each.cost_ms) + others


def _row(each: Candidate, is_chosen: bool) -> str:
    kind = "chosen" if is_chosen else ("" if each.timing else "off")
    if each.timing is None or each.speedup is None:
        cells = '<td class="n">-</td>' * 3
    else:
        said = each.speedup
        cells = (
            f'<td class="n">{each.timing.p50_ms:.2f}</td>'
            f'<td class="n">{each.timing.cpu_p50_ms:.2f}</td>'
            f'<td class="n">{said.value:.2f} [{said.low:.2f}, {said.high:.2f}]</td>'
        )
    size = f"{each.size_bytes / 1e6:.1f}" if each.size_bytes else "-"
    peak = f"{each.peak_bytes / 1e6:.0f}" if each.peak_bytes else "-"
    note = "chosen" if is_chosen else ("front" if each.is_on_front else each.status)
    reason = f"<br><small>{escape(each.reason)}</small>" if each.reason else ""
    return (
        f'<tr class="{kind}"><td>{escape(each.name)}<br><small>{escape(each.says)}</small></td>'
        f'{cells}<td class="n">{size}</td><td class="n">{peak}</td>'
        f"<td>{escape(each.quality)}</td><td>{escape(note)}{reason}</td></tr>"
    )
