"""The pictures of a report, as SVG and PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "squadron"


def draw_all(found: dict[str, Any], folder: Path) -> list[str]:
    """File names of the PNGs made, each with an SVG beside it."""
    works = {name: each for name, each in found["works"].items() if "sweep" in each}
    if not works:
        return []
    drawn = [
        ("throughput_latency", _throughput_latency),
        ("latency_load", _latency_load),
        ("goodput", _goodput),
        ("batch_sizes", _batch_sizes),
        ("peers", _peers),
    ]
    names = []
    for name, draw in drawn:
        figure, axes = plt.subplots(1, len(works), figsize=(4.2 * len(works), 3.4), squeeze=False)
        for axis, (work, figures) in zip(axes[0], works.items(), strict=True):
            draw(axis, figures)
            axis.set_title(work)
            axis.grid(alpha=0.3)
        figure.tight_layout()
        figure.savefig(folder / f"{name}.png", dpi=110)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
        names.append(f"{name}.png")
    return names


def _throughput_latency(axis: Any, figures: dict[str, Any]) -> None:
    points = [each for each in figures["sweep"] if "p50" in each["quantiles_ms"]]
    rates = [each["ok_per_s"] for each in points]
    axis.plot(rates, [each["quantiles_ms"]["p50"]["ms"] for each in points], "o-", label="p50")
    tails = [each for each in points if "p99" in each["quantiles_ms"]]
    axis.plot(
        [each["ok_per_s"] for each in tails],
        [each["quantiles_ms"]["p99"]["ms"] for each in tails],
        "s--",
        label="p99",
    )
    for rate, each in zip(rates, points, strict=True):
        place = (rate, each["quantiles_ms"]["p50"]["ms"])
        axis.annotate(str(each["connections"]), place, textcoords="offset points", xytext=(4, -10))
    axis.set(xlabel="requests/s (closed loop, connections marked)", ylabel="ms", yscale="log")
    axis.legend()


def _latency_load(axis: Any, figures: dict[str, Any]) -> None:
    for name, style in (("p50", "o-"), ("p99", "s--")):
        points = [each for each in figures.get("loads", ()) if name in each["quantiles_ms"]]
        found = [each["quantiles_ms"][name] for each in points]
        below = [each["ms"] - each["low_ms"] for each in found]
        above = [max(0.0, each["high_ms"] - each["ms"]) for each in found]
        shares = [each["share"] for each in points]
        values = [each["ms"] for each in found]
        axis.errorbar(shares, values, yerr=[below, above], fmt=style, label=name, capsize=3)
    axis.set(xlabel="offered / capacity (open loop, Poisson)", ylabel="ms", yscale="log")
    axis.legend()


def _goodput(axis: Any, figures: dict[str, Any]) -> None:
    points = figures.get("overloads", ())
    offered = [each["offered_per_s"] for each in points]
    axis.plot(offered, [each["good_per_s"] for each in points], "o-", label="in time")
    axis.plot(offered, [each["ok_per_s"] for each in points], "s--", label="answered 200")
    axis.plot(offered, offered, ":", color="grey", label="offered")
    if points:
        axis.set_ylim(0, 1.3 * max(each["ok_per_s"] for each in points) + 1)
    axis.set(xlabel="offered requests/s", ylabel="requests/s")
    axis.legend()


def _batch_sizes(axis: Any, figures: dict[str, Any]) -> None:
    buckets = figures.get("levels", {}).get("batches", {}).get("buckets", {})
    bounds = [bound.removesuffix(".0") for bound in buckets if float(bound) <= 64]
    axis.bar(bounds, list(buckets.values())[: len(bounds)])
    axis.set(xlabel="rows a batch, at most (64 connections)", ylabel="batches")


def _peers(axis: Any, figures: dict[str, Any]) -> None:
    rates = {name: each["b_per_s"] for name, each in figures["peers"].items()}
    rates["squadron"] = max(each["ok_per_s"] for each in figures["sweep"])
    names = sorted(rates, key=lambda name: rates[name])
    colours = ["tab:orange" if name == "squadron" else "tab:blue" for name in names]
    axis.barh(names, [rates[name] for name in names], color=colours)
    axis.set(xlabel="requests/s at 64 connections", xscale="log")
