"""`squadron config`: the reference of a configuration's keys."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from cluster.config.reference import as_markdown, reference
from cluster.config.squadron import SquadronConfig
from cluster.errors import ConfigError

_INTRODUCTION = """# Every key of a configuration

What stands under `args:` in a Serve config file, made by `squadron config --markdown`. `<name>` is
a name of yours, `<index>` a place in a list. `squadron config batching` shows one section in the
terminal, `squadron check FILE` says what is wrong in a file.
"""


def config(
    section: Annotated[
        str, typer.Argument(help="The last part of a section's path, or all of it.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
    as_text: Annotated[bool, typer.Option("--markdown", help="Markdown on stdout.")] = False,
) -> None:
    """Every key of a configuration file: what it takes, its default, what it does.

    Examples:

      squadron config                              the whole reference

      squadron config batching                     one section

      squadron config server.limits --json         for a program
    """
    everything = list(reference(SquadronConfig))
    found = [each for each in everything if _is_meant(each.path, section)]
    if not found:
        ends = sorted({_last(each.path) for each in everything if each.path})
        raise ConfigError(
            f"no section {section!r}; there are: {', '.join(ends)}", key="section", value=section
        )
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in found], indent=2))
    elif as_text:
        print((_INTRODUCTION if not section else "") + "\n" + as_markdown(found), end="")
    else:
        Console().print(Markdown(as_markdown(found)))


def _last(path: str) -> str:
    names = [part for part in path.split(".") if not part.startswith("<")]
    return names[-1] if names else ""


def _is_meant(path: str, asked: str) -> bool:
    plain = ".".join(part for part in path.split(".") if not part.startswith("<"))
    wanted = ".".join(part for part in asked.split(".") if not part.startswith("<"))
    return not asked or plain == wanted or plain.endswith(f".{wanted}")
