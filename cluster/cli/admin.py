"""`squadron status`, `traffic`, `experiment` and `explain`: the admin API on the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.console import Group, RenderableType

from cluster.cli.held.showing import print_value, show, table_of
from cluster.cli.own_door import key_headers
from cluster.errors import ConfigError

Url = Annotated[
    str,
    typer.Option("--url", envvar="SQUADRON_URL", help="The server's HTTP door, on this machine."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show it anew every second.")]
NAME = Annotated[str, typer.Argument(help="The experiment.", metavar="NAME")]
DEFAULT_URL = "http://127.0.0.1:8000"
PATIENCE_S = 60.0

traffic_app = typer.Typer(no_args_is_help=True, help="How an experiment's traffic splits.")
experiment_app = typer.Typer(no_args_is_help=True, help="What an experiment has shown so far.")


def ask(url: str, method: str, path: str, content: object = None) -> Any:
    """The admin API's answer. Raises: ConfigError with the server's own words."""
    try:
        answer = httpx.request(
            method,
            f"{url.rstrip('/')}/admin/v1/{path}",
            json=content,
            headers=key_headers(),
            timeout=PATIENCE_S,
        )
        found = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ConfigError(
            f"no answer from {url}: {type(error).__name__}; is the server there? (--url)"
        ) from None
    if answer.status_code != 200:
        raise ConfigError(str(found.get("error", found)))
    return found


def status(url: Url = DEFAULT_URL, as_json: AsJson = False, watch: Watch = False) -> None:
    """Every model, its state, and the experiments that run.

    Example: squadron status --watch
    """

    def found() -> Any:
        return {
            "models": ask(url, "GET", "models"),
            "experiments": ask(url, "GET", "experiments"),
        }

    def drawn(value: Any) -> RenderableType:
        models = table_of("model", "kind", "state", "reason")
        for model in value["models"]:
            models.add_row(model["name"], model["kind"], model["state"], model["reason"])
        return Group(models, *(_experiment(each) for each in value["experiments"]))

    show(found, drawn, as_json=as_json, watch=watch)


@traffic_app.command("show")
def show_traffic(url: Url = DEFAULT_URL, as_json: AsJson = False, watch: Watch = False) -> None:
    """The weights of every experiment.

    Example: squadron traffic show
    """

    def drawn(value: Any) -> RenderableType:
        table = table_of("experiment", "arm", "weight", "share")
        for name, weights in value["experiments"].items():
            for arm, weight in weights.items():
                table.add_row(name, arm, f"{weight:g}", f"{weight / sum(weights.values()):.1%}")
        return table

    show(lambda: ask(url, "GET", "traffic"), drawn, as_json=as_json, watch=watch)


@traffic_app.command("set")
def set_traffic(
    name: Annotated[str, typer.Argument(help="The experiment.")],
    weights: Annotated[list[str], typer.Argument(help="ARM=WEIGHT of every arm.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Set the weights. They hold at every door when this returns, and until the experiment's
    section of the configuration changes.

    Example: squadron traffic set photo-classifier photo-classifier-fp32=50 photo-classifier-int8=50
    """
    asked: dict[str, float] = {}
    for text in weights:
        arm, _, weight = text.rpartition("=")
        try:
            asked[arm] = float(weight)
        except ValueError:
            arm = ""
        if not arm or not 0 <= asked[arm] < math.inf:
            raise ConfigError(
                f"{text!r} is no weight; allowed: ARM=NUMBER with a number >= 0, as in control=90"
            )
    if len(asked) < len(weights):
        raise ConfigError(f"an arm has two weights in {' '.join(weights)!r}; allowed: one an arm")
    found = ask(url, "PUT", f"experiments/{quote(name, safe='')}/weights", asked)
    print_value(found, _experiment, as_json=as_json)


@traffic_app.command("reset")
def reset_traffic(
    name: Annotated[str, typer.Argument(help="The experiment.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Back to the configuration's weights; what was counted is dropped.

    Example: squadron traffic reset photo-classifier
    """
    found = ask(url, "DELETE", f"experiments/{quote(name, safe='')}/weights")
    print_value(found, _experiment, as_json=as_json)


@experiment_app.command("list")
def list_experiments(url: Url = DEFAULT_URL, as_json: AsJson = False, watch: Watch = False) -> None:
    """Every experiment.

    Example: squadron experiment list
    """

    def drawn(value: Any) -> RenderableType:
        return Group(*(_experiment(each) for each in value))

    show(lambda: ask(url, "GET", "experiments"), drawn, as_json=as_json, watch=watch)


@experiment_app.command("show")
def show_experiment(
    name: Annotated[str, typer.Argument(help="The experiment.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
    watch: Watch = False,
) -> None:
    """One experiment: its arms, the verdict and why.

    Example: squadron experiment show photo-classifier --watch
    """
    path = f"experiments/{quote(name, safe='')}"
    show(lambda: ask(url, "GET", path), _experiment, as_json=as_json, watch=watch)


@experiment_app.command("promote")
def promote(
    name: NAME,
    arm: Annotated[str, typer.Argument(help="Which; needed where there are several.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Give an arm all of the traffic, now. A canary goes no further by itself.

    Example: squadron experiment promote photo-classifier
    """
    arms, control = _arms(url, name)
    others = [each for each in arms if each != control]
    if not arm and len(others) != 1:
        allowed = ", ".join(others) or "none"
        raise ConfigError(f"which arm of {name} is to be promoted? allowed: {allowed}")
    _give_all(url, name, arm or others[0], arms, as_json=as_json)


@experiment_app.command("rollback")
def rollback(name: NAME, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Give the control all of the traffic, now: also after a promotion.

    Example: squadron experiment rollback photo-classifier
    """
    arms, control = _arms(url, name)
    _give_all(url, name, control, arms, as_json=as_json)


@experiment_app.command("stop")
def stop(name: NAME, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Leave the weights where they are: no canary step and no bandit moves them any more. Broken
    guardrails still take an arm out.

    Example: squadron experiment stop photo-classifier --json
    """
    path = f"experiments/{quote(name, safe='')}/weights"
    found = ask(url, "GET", path.removesuffix("/weights"))
    if found["status"] in ("promoted", "rolled_back"):
        # To set its weights would begin it anew.
        raise ConfigError(f"{name} is over ({found['status']}): nothing moves its weights")
    arms, _ = _arms(url, name)
    print_value(ask(url, "PUT", path, arms), _experiment, as_json=as_json)


def _arms(url: str, name: str) -> tuple[dict[str, float], str]:
    """The weights of the arms, and the control."""
    found = ask(url, "GET", f"experiments/{quote(name, safe='')}")
    split = ask(url, "GET", "traffic")["experiments"].get(name, {})
    weights = {each["name"]: each["weight"] for each in found["arms"] if each["name"] in split}
    return weights, found["control"]


def _give_all(url: str, name: str, arm: str, arms: Mapping[str, float], *, as_json: bool) -> None:
    if arm not in arms:
        raise ConfigError(f"{name} has no arm {arm!r}; allowed: {', '.join(arms)}")
    weights = {each: 1.0 if each == arm else 0.0 for each in arms}
    path = f"experiments/{quote(name, safe='')}/weights"
    print_value(ask(url, "PUT", path, weights), _experiment, as_json=as_json)


def explain(
    name: Annotated[str, typer.Argument(help="A model, or nothing for all.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
    watch: Watch = False,
    config: Annotated[
        Path | None,
        typer.Option(help="A Serve config file: what it decides, without a server."),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(help="A log of the controller or the autoscaler: its decisions made again."),
    ] = None,
) -> None:
    """What was decided and why: placements, traffic, verdicts, scaling.

    Examples:

      squadron explain photo-classifier

      squadron explain --config serve_configs/prod.yaml   no server: what would be decided

      squadron explain --replay worker-ab12.err   ends with 1 where this version decides otherwise
    """
    if config is not None and replay is not None:
        raise ConfigError("--config and --replay are two questions; allowed: one of them")
    if replay is not None:
        from cluster.cli.held.replayed import replay_file  # the policies, which only this asks

        made = [each for each in replay_file(replay) if name in ("", each.subject)]
        print_value([asdict(each) for each in made], _replayed, as_json=as_json)
        if not all(each.is_same for each in made):
            raise typer.Exit(1)
        return
    if config is not None:
        from cluster.cli.explained import explain_file  # the planner, which only this asks

        told = [asdict(each) for each in explain_file(config, name)]
        print_value(told, _decisions, as_json=as_json)
        return

    def found() -> Any:
        events = ask(url, "GET", "events")
        decisions = ask(url, "GET", "autoscaling")
        placed = [each for each in ask(url, "GET", "variants") if each.get("placement")]
        told = {
            "placements": [
                {"variant": each["name"], "reason": each["placement"]}
                for each in placed
                if name in ("", each["name"])
            ],
            "events": [
                each for each in events if name in ("", each["subject"]) or each["kind"] == "start"
            ],
            "autoscaling": [each for each in decisions if name in ("", each.get("variant"))],
        }
        if name and all(each.get("kind") == "start" for part in told.values() for each in part):
            _check_model(url, name)
        return told

    def drawn(value: Any) -> RenderableType:
        table = table_of("when", "what", "of", "why")
        for each in value["placements"]:
            table.add_row("at start", "placement", each["variant"], each["reason"])
        for event in value["events"]:
            table.add_row(_clock(event), event["kind"], event["subject"], event["reason"])
        for decision in value["autoscaling"]:
            variant = str(decision.get("variant", ""))
            table.add_row(_clock(decision), "autoscaling", variant, decision["reason"])
        return table

    show(found, drawn, as_json=as_json, watch=watch)


def _check_model(url: str, name: str) -> None:
    known = [each["name"] for each in ask(url, "GET", "models")]
    if name not in known:
        raise ConfigError(f"there is no model {name!r}; allowed: {', '.join(known)}")


def _decisions(value: Any) -> RenderableType:
    table = table_of("what", "of", "why")
    for each in value:
        table.add_row(each["kind"], each["subject"], each["reason"])
    return table


def _replayed(value: Any) -> RenderableType:
    if not value:
        return "no decision stands in this log"
    table = table_of("line", "what", "of", "again", "why")
    for each in value:
        again = "the same" if each["is_same"] else f"otherwise: {each['now'] or 'nothing'}"
        table.add_row(str(each["line"]), each["kind"], each["subject"], again, each["reason"])
    return table


def _experiment(value: Any) -> RenderableType:
    title = f"{value['name']}: {value['status']}, {value['verdict']}"
    table = table_of("arm", "weight", "requests", "errors", "p50", "p99", "quality", "improvement")
    table.title, table.title_justify = title, "left"
    for arm in value["arms"]:
        interval = arm["interval"]
        better = "" if arm["improvement"] is None else f"{arm['improvement']:+.1%}"
        if interval:
            better += f" [{interval[0]:+.1%}, {interval[1]:+.1%}]"
        table.add_row(
            arm["name"],
            f"{arm['weight']:g}",
            str(arm["requests"]),
            str(arm["errors"]),
            _ms(arm["latency_ms"]["p50"]),
            _ms(arm["latency_ms"]["p99"]),
            "" if arm["quality"] is None else f"{arm['quality']:.4g}",
            better,
        )
    ratio = value["sample_ratio"]
    table.caption = f"{value['reason']}\nsample ratio {'ok' if ratio['ok'] else 'off'}"
    table.caption_justify = "left"
    return table


def _clock(event: Any) -> str:
    at_s = event.get("at_s")
    if at_s is None:
        return "now"
    at = datetime.fromtimestamp(at_s)
    # Events outlive servers: one may be of another day.
    is_today = at.date() == datetime.now().date()
    return at.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S")


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} ms"
