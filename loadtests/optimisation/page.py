"""The table and the picture of the optimisation runs, from their JSON files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "squadron"


def slug(processor: str) -> str:
    """A processor's name in a file's: `amd-epyc-family-26-model-2`."""
    kind = re.sub(r" stepping \d+", "", processor)
    return re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")


def write_page(folder: Path, names: list[str]) -> None:
    """README.md and speedups.svg from those of `names` that have been run, on any processor."""
    runs = [
        json.loads(path.read_text())
        for name in names
        for path in sorted(folder.glob(f"{name}.*.json"))
    ]
    if not runs:
        return
    machines = {run["hardware"]["processor"]: run["hardware"] for run in runs}
    lines = [
        "# Optimised variants",
        "",
        "One thread of a machine with two cores, shared with other work. Each model's variants "
        "took turns in one run; speed-ups are ratios of CPU time to eager torch fp32 with a 95 % "
        "bootstrap interval over rounds. Wall milliseconds on a busy machine do not travel; CPU "
        "milliseconds and ratios do better, from one kind of processor to the next neither. Made "
        "by `python -m loadtests.optimisation`.",
        "",
        *[
            f"- {kind}: {', '.join(machine['instructions'])}"
            for kind, machine in sorted(machines.items())
        ],
        "",
        "![speed-ups](speedups.svg)",
        "",
        "## Goals",
        "",
        "| model | processor | goal over eager fp32 | best that passed | said |",
        "|---|---|---|---|---|",
        *[_goal(run) for run in runs if run["goal"]],
        "",
    ]
    for run in runs:
        lines += _section(run)
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    _draw(runs, folder / "speedups.svg")


def _measured(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in run["candidates"] if each.get("speedup")]


def _processor(run: dict[str, Any]) -> str:
    return re.sub(r" stepping \d+", "", str(run["hardware"]["processor"]))


def _goal(run: dict[str, Any]) -> str:
    best = max(_measured(run), key=lambda each: float(each["speedup"]))
    low, high = best["speedup_interval"]
    met = "met" if best["speedup"] >= run["goal"] else "**missed**"
    said = "judged on real inputs" if run["validated"] else "random weights: speed only"
    return (
        f"| {run['says']} | {_processor(run)} | {run['goal']} | {best['speedup']:.2f} "
        f"[{low:.2f}, {high:.2f}] ({best['name']}) | {met}; {said} |"
    )


def _section(run: dict[str, Any]) -> list[str]:
    fp32 = [each for each in _measured(run)
            if each["precision"] == "fp32" and each["engine"] != "torch"]  # fmt: skip
    best = min(fp32, key=lambda each: float(each["cpu_ms"]), default=None)
    lines = [
        f"## {run['work']}, {_processor(run)}",
        "",
        f"{run['says']}; judged on {run['data']}.",
        "",
        "| variant | p50 ms | CPU ms | items / CPU-s | × eager fp32 | × best fp32 engine | MB | "
        "peak MB | accuracy or agreement |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in sorted(_measured(run), key=lambda each: -float(each["cpu_ms"])):
        over = f"{best['cpu_ms'] / each['cpu_ms']:.2f}" if best else "-"
        low, high = each["speedup_interval"]
        peak = each["peak_memory_bytes"]
        star = " **chosen**" if each["name"] == run["chosen"]["name"] else ""
        lines.append(
            f"| {each['name']}{star} | {each['latency_ms']:.1f} | {each['cpu_ms']:.2f} | "
            f"{1e3 / each['cpu_ms']:.1f} | {each['speedup']:.2f} [{low:.2f}, {high:.2f}] | {over} "
            f"| {each['size_bytes'] / 1e6:.1f} | {f'{peak / 1e6:.0f}' if peak else '-'} | "
            f"{_quality(each, run)} |"
        )
    others = [each for each in run["candidates"] if not each.get("speedup")]
    lines += ["", *[f"- {each['name']}: {each['status']}: {each['reason']}" for each in others], ""]
    return lines


def _quality(each: dict[str, Any], run: dict[str, Any]) -> str:
    gate = each["gate"]
    if gate is None:
        return "the reference"
    agreement = gate["agreement"]
    cosine = f"cosine {agreement['cosine']['value']:.4f} (least {agreement['cosine_min']:.4f})"
    if not run["validated"]:
        return f"not validated; {cosine} on noise"
    if gate["accuracy"] is not None:
        accuracy = gate["accuracy"]
        change = accuracy["change_points"]
        return (
            f"{accuracy['optimised']['value']:.2%} right, {change['value']:+.2f} points "
            f"[{change['low']:+.2f}, {change['high']:+.2f}], n={accuracy['num_items']}"
        )
    if agreement["top1"] is None:
        return f"{cosine}, n={agreement['num_items']}"
    top1 = agreement["top1"]
    return (
        f"top-1 agrees {top1['value']:.1%} [{top1['low']:.1%}, {top1['high']:.1%}], {cosine}, "
        f"n={agreement['num_items']}"
    )


def _draw(runs: list[dict[str, Any]], path: Path) -> None:
    figure, axes = plt.subplots(len(runs), 1, figsize=(8, 1.9 * len(runs)), squeeze=False)
    for axis, run in zip(axes[:, 0], runs, strict=True):
        measured = sorted(_measured(run), key=lambda each: float(each["speedup"]))
        values = [each["speedup"] for each in measured]
        axis.barh([each["name"] for each in measured], values, color="#2b7a4b")
        if run["goal"]:
            axis.axvline(run["goal"], color="#d0642a", linestyle="--", label="goal")
            axis.legend(fontsize=7)
        axis.set_title(f"{run['says']}; {_processor(run)}", fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3, axis="x")
    axes[-1, 0].set_xlabel("times as fast as eager torch fp32 (CPU time)", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
