"""The options of an engine, checked by name and kind before they are used."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.errors import ConfigError

Option = str | int | float | bool


def check_option_names(engine: str, options: Mapping[str, Option], known: tuple[str, ...]) -> None:
    """Raises: ConfigError naming the option and those that exist."""
    for name in options:
        if name not in known:
            allowed = ", ".join(known) or "none"
            raise ConfigError(
                f"engine {engine} has no option {name!r}; allowed: {allowed}",
                key=f"options.{name}",
                value=str(options[name]),
                allowed=allowed,
            )


def number_option(engine: str, options: Mapping[str, Option], name: str) -> float | None:
    """Raises: ConfigError for a value that is no number."""
    value = options.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ConfigError(
        f"engine {engine}: option {name!r} is a number, got {value!r}",
        key=f"options.{name}",
        value=str(value),
        allowed="a number",
    )
