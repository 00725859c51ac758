"""A run's figures as a report: README.md, summary.json, run.json and plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loadtests.goals import ISSUED, Goal, goals_of, not_measured
from loadtests.intervals import MAX_AA_DEVIATION


def write_report(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns what `summary.json` holds."""
    folder.mkdir(parents=True, exist_ok=True)
    goals = goals_of(found)
    summary = {
        "plan": found["plan"],
        "squadron": found["squadron"],
        "machine": found["machine"],
        "warnings": warnings_of(found, goals),
        "failures": found["failures"],
        "not_measured": not_measured(goals),
        "ratios": {goal.name: goal.as_json() for goal in goals},
    }
    (folder / "run.json").write_text(json.dumps(found) + "\n")
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    # Only here: what needs no pictures needs no matplotlib.
    from loadtests.plots import draw_all

    pictures = draw_all(found, folder)
    (folder / "README.md").write_text(_text(found, goals, summary["warnings"], pictures))
    return summary


def warnings_of(found: dict[str, Any], goals: list[Goal]) -> list[str]:
    """What a reader must know before believing the figures."""
    notes = []
    if found["plan"] != "full":
        plan = found["plan"]
        notes.append(f"{plan} plan: short blocks, few pairs; orders of magnitude, not percents")
    cores = found["machine"]["cores"]
    # Afterwards the run's own servers and generators are in the load too: about two for a core.
    for when, allowed in (("machine", cores), ("machine_after", 3 * cores)):
        load = found[when]["load"][0] if when in found else 0.0
        if load > allowed:
            notes.append(f"the machine was busy with other work: load {load:.1f} on {cores} cores")
    for goal in goals:
        if goal.name.endswith(".control") and abs(goal.value - 1) > MAX_AA_DEVIATION:
            notes.append(
                f"{goal.name} is {goal.value:.3f}: Squadron against itself differs by more than "
                f"{MAX_AA_DEVIATION:.0%}, so differences of that size mean nothing here"
            )
    for work, figures in found["works"].items():
        for peer, each in figures["peers"].items():
            used = max(block["generator_cores"] for block in each["blocks"])
            if used > 0.6:
                notes.append(
                    f"{work} beside {peer}: the generator used {used:.2f} of a core; the faster "
                    "side is bounded by it (compare CPU a request instead)"
                )
        opened = [*figures.get("loads", ()), *figures.get("overloads", ())]
        late = [each for each in opened if each["send_lag_p99_ms"] > 1]
        if late:
            shares = ", ".join(sorted({f"{each['share']:.0%}" for each in late}))
            notes.append(f"{work}: the generator itself was late by over 1 ms (p99) at {shares}")
    return notes


def _text(
    found: dict[str, Any], goals: list[Goal], warnings: list[str], pictures: list[str]
) -> str:
    machine = found["machine"]
    lines = [
        "# Squadron beside its peers",
        "",
        f"{found['squadron']}, plan `{found['plan']}`, {machine['at']}: {machine['processor']}, "
        f"{machine['cores']} cores that server, peers and generator share, Python "
        f"{machine['python']}, load {machine['load'][0]:.1f} at the start. Ratios hold for this "
        "run; figures do not carry to other machines. Made by `make bench`. "
        "[What was tried where a goal is missed](../TRIED.md).",
        "",
        *(f"- **{note}**" for note in warnings),
        "",
        "## Goals",
        "",
        "| what | goal | measured | 95 % interval | verdict |",
        "|---|---|---|---|---|",
        *(_goal_row(goal) for goal in goals if goal.bound is not None),
        *(_missing_row(name) for name in not_measured(goals)),
        "",
        "Intervals: bootstrap of the median log ratio over interleaved A/B/B/A pairs; of a p99, "
        "from order statistics. Met or missed: the whole interval says so; else open, as one pair "
        "leaves it.",
        "",
        "## Everything else that is a ratio",
        "",
        "| what | measured | 95 % interval |",
        "|---|---|---|",
        *(_shown_row(goal) for goal in goals if goal.bound is None),
        "",
    ]
    for work, figures in found["works"].items():
        lines += _work_text(work, figures)
    lines += _identity_text(found["works"].get("identity", {}))
    lines += ["## Could not be measured", ""]
    lines += [f"- {step}: {why}" for step, why in found["failures"].items()] or ["Nothing."]
    lines += ["", "## Pictures", "", *(f"![{name}]({name})\n" for name in pictures)]
    return "\n".join(lines)


def _work_text(work: str, figures: dict[str, Any]) -> list[str]:
    if "sweep" not in figures:
        return [f"## {work}", "", "Not measured; see below.", ""]
    lines = [
        f"## {work}",
        "",
        "| server | connections | requests/s | p50 ms | p99 ms | server CPU-us a request |",
        "|---|---|---|---|---|---|",
        *(_point_row("squadron", each) for each in figures["sweep"]),
    ]
    for name, each in figures["peers"].items():
        lines.append(_point_row(f"{name} {each['version']}", each["c1"]))
        cpu = f"{each['b_cpu_us']:.0f}" if "b_cpu_us" in each else ""
        lines.append(f"| {name} | 64 | {each['b_per_s']:.0f} | | | {cpu} |")
    lines += ["", *_open_text(figures), *_levels_text(figures.get("levels", {})), ""]
    return lines


def _open_text(figures: dict[str, Any]) -> list[str]:
    parts = [
        f"{each['share']:.0%}: {_ms(each, 'p50')} / {_ms(each, 'p99')}"
        for each in figures.get("loads", ())
    ]
    lines = []
    if parts:
        lines.append(f"Open loop at shares of capacity, p50 / p99 ms: {'; '.join(parts)}.\n")
    parts = [
        f"{each['share']:g}x: {each['good_per_s']:.0f} good of {each['offered_per_s']:.0f}"
        for each in figures.get("overloads", ())
    ]
    if parts:
        slo_ms = figures["overloads"][0]["slo_ms"]
        text = f"Goodput (200 within {slo_ms:.0f} ms) a second: {'; '.join(parts)}."
        if "recovery_s" in figures:
            text += f" At its usual speed again {figures['recovery_s']:.1f} s after the overload."
        lines.append(text + "\n")
    return lines


def _levels_text(levels: dict[str, Any]) -> list[str]:
    if "L0_per_s" not in levels:
        return []
    text = (
        f"Levels, rows/s: L0 engine at {levels['batches']['mean_rows']:.1f} rows a batch "
        f"{levels['L0_per_s']:.0f}"
    )
    if "L1" in levels:
        text += (
            f"; L1 replica alone {levels['L1']['rows_per_s']:.0f} "
            f"(one call {levels['L1']['p50_ms']:.2f} ms)"
        )
    if "L3_against_L2" in levels:
        text += f"; L2 door and replica in one process {levels['L3_against_L2']['b_per_s']:.0f}"
    return [text + f"; L3 the Serve application {levels['L3_per_s']:.0f}.\n"]


def _identity_text(figures: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    if "sweep" in figures:
        busiest = figures["sweep"][-1]
        parts = sorted(busiest["cpu_us"].items(), key=lambda each: -each[1])
        costs = ", ".join(f"{label} {cost:.0f}" for label, cost in parts if cost >= 1)
        lines += [
            f"## Where the CPU goes (identity, {busiest['connections']} connections)",
            "",
            f"CPU-us a request by process: {costs}.",
            "",
        ]
    for name in ("identity-split", "identity-chain"):
        for each in figures.get(name, ()):
            lines.append(
                f"L4 {name}, {each['connections']} connections: {each['ok_per_s']:.0f} requests/s, "
                f"p50 {_ms(each, 'p50')} ms.\n"
            )
    if figures.get("wrk_per_s"):
        others = {name: each.get("wrk_per_s") for name, each in figures["peers"].items()}
        text = ", ".join(f"{name} {rate:.0f}" for name, rate in others.items() if rate)
        lines.append(
            f"wrk's opinion (one thread, 64 connections, requests/s): squadron "
            f"{figures['wrk_per_s']:.0f}, {text}.\n"
        )
    if "grpc" in figures:
        grpc = figures["grpc"]
        lines.append(
            f"gRPC, 64 calls on one channel, a grpc.aio client on the same cores: squadron "
            f"{grpc['a_per_s']:.0f}, bare grpc.aio {grpc['b_per_s']:.0f} a second.\n"
        )
    return lines


def _goal_row(goal: Goal) -> str:
    return (
        f"| {goal.what} | {goal.kind} {goal.bound:g} | {goal.value:.3g} | {_interval(goal)} "
        f"| {goal.verdict} |"
    )


def _missing_row(name: str) -> str:
    what, goal = ISSUED[name]
    return f"| {name.partition('.')[0]}: {what} | {goal} | – | | not measured |"


def _shown_row(goal: Goal) -> str:
    return f"| {goal.what} | {goal.value:.3g} | {_interval(goal)} |"


def _interval(goal: Goal) -> str:
    if goal.low is None or goal.high is None:
        return "one measurement"
    if goal.num_pairs == 1:
        return "one steady pair"
    return f"{goal.low:.3g} to {goal.high:.3g}"


def _point_row(server: str, each: dict[str, Any]) -> str:
    cpu = each["cpu_us"].get("server")
    return (
        f"| {server} | {each['connections']} | {each['ok_per_s']:.0f} | {_ms(each, 'p50')} "
        f"| {_ms(each, 'p99')} | {'' if cpu is None else f'{cpu:.0f}'} |"
    )


def _ms(each: dict[str, Any], name: str) -> str:
    """`-` where there were too few samples for this quantile."""
    found = each["quantiles_ms"].get(name)
    return "-" if found is None else f"{found['ms']:.2f}"
