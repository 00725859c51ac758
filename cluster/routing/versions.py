"""Several versions under one name: which are there, and whether they fit together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """`route` serves `version` of `model`; its own name is another where it is an older one."""

    route: str
    model: str
    version: str

    @property
    def is_older(self) -> bool:
        return self.route != self.model


def versions_by_model(every: Iterable[Served]) -> dict[str, dict[str, str]]:
    """Model -> version, rising -> route."""
    found: dict[str, dict[str, str]] = {}
    for each in sorted(every, key=lambda each: (int(each.version), each.is_older)):
        found.setdefault(each.model, {}).setdefault(each.version, each.route)
    return found


def check_versions(every: Iterable[Served]) -> None:
    """Raises: ConfigError for a version that is there twice, or above the one without a version."""
    served = list(every)
    newest = {each.model: each.version for each in served if not each.is_older}
    taken: dict[tuple[str, str], str] = {}
    for each in served:
        above = newest.get(each.model)
        if not each.is_older or above is None:  # its source may have gone from the store
            continue
        other = taken.setdefault((each.model, each.version), each.route)
        if int(each.version) < int(above) and other == each.route:
            continue
        twice = "" if other == each.route else f", and {other} is this version already"
        raise ConfigError(
            f"variants.{each.route}.version_of: it is version {each.version}; {each.model} itself, "
            f"the highest, is {above}{twice}",
            key=f"variants.{each.route}.version_of",
            value=each.model,
            allowed=f"a version below {above} that no other variant has",
        )
