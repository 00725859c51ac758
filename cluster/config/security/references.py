"""Secrets that a config names and does not hold: `${NAME}` of the environment, `${file:/path}`.

Ray Serve logs an application's arguments whole and shows them to whoever may ask it, so what
stands under `args:` is no place for a secret. References are read where the value is needed, in the
process that opens the connection, and are never put back into the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, quote, urlsplit

from pydantic import AfterValidator

from cluster.config.security.secret_names import IN_ADDRESS, LOOKS_LIKE_ONE
from cluster.errors import ConfigError

ALLOWED = "${NAME} (environment) or ${file:/path} in its place"
WHY = "Ray Serve logs an application's arguments whole and shows them"

REFERENCE = re.compile(r"\$\{(?:file:(?P<file>[^}]+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*))\}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]*\]|[^:@\[\]]*)(:[0-9]*)?")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def _checked_reference(text: str) -> str:
    if "${" in REFERENCE.sub("", text):
        raise ValueError(f"${{ begins no reference; allowed: {ALLOWED}")
    return text


def _checked_address(text: str) -> str:
    _checked_reference(text)
    plain = REFERENCE.sub("", text)
    try:
        asked = parse_qs(urlsplit(plain).query)
    except ValueError:
        asked = {}
    if IN_ADDRESS.search(plain) or {"password", "sslpassword"} & asked.keys():
        raise ValueError(f"holds a password in clear, and {WHY}; allowed: {ALLOWED}")
    return text


SecretText = Annotated[str, AfterValidator(_checked_reference)]
"""A secret, best as a reference."""
SecretAddress = Annotated[str, AfterValidator(_checked_address)]
"""An address whose password, if any, is a reference, or that is one reference as a whole."""


def is_reference(text: str) -> bool:
    """Whether nothing of it stands in clear."""
    return REFERENCE.fullmatch(text) is not None


def resolve(text: str, environment: Mapping[str, str], *, key: str) -> str:
    """The text with what its references mean; a file's last line end is not part of it.

    Raises: ConfigError naming key and reference, never a value.
    """
    return REFERENCE.sub(lambda found: _read(found, environment, key), text)


def resolve_address(
    text: str, environment: Mapping[str, str], schemes: tuple[str, ...], *, key: str
) -> str:
    """The address with its secrets in it. As a part of it they may hold any character; a reference
    that is the whole address is taken as it stands.

    Raises: ConfigError, which repeats nothing of the address.
    """
    if is_reference(text):
        address = resolve(text, environment, key=key)
    else:
        address = REFERENCE.sub(lambda found: quote(_read(found, environment, key), safe=""), text)
    if not _is_address(address, schemes):
        given = f" that {text}" if is_reference(text) else ""
        raise ConfigError(
            f"{key}: the address{given} holds is none; allowed: {' or '.join(schemes)}://"
            "user:password@host:port, special characters as %XX",
            key=key,
            allowed=", ".join(schemes),
        )
    return address


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    """What clients would otherwise repeat in errors of their own: a password with an `@` or a `/`
    in it is taken for a part of host and port."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    hosts = parts.netloc.rpartition("@")[2].split(",")  # PostgreSQL takes several
    return (
        parts.scheme in schemes
        and parts.netloc.count("@") <= 1
        and all(_HOST.fullmatch(host) for host in hosts)
        and not _BROKEN_ESCAPE.search(text)
    )


def secrets_within(value: object, at: str = "") -> Iterator[str]:
    """The keys below which a secret stands in clear, by the form of their values. `url` is left to
    the field's own check, which knows references."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name != "url":
                yield from secrets_within(each, f"{at}.{name}" if at else str(name))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from secrets_within(each, f"{at}.{index}")
    elif isinstance(value, str) and (IN_ADDRESS.search(value) or LOOKS_LIKE_ONE.search(value)):
        yield at


def _read(found: re.Match[str], environment: Mapping[str, str], key: str) -> str:
    name, file = found["name"], found["file"]
    if name is not None:
        if environment.get(name):
            return environment[name]
        raise ConfigError(
            f"{key}: {found[0]}: the environment has no {name}; it is read in the processes of "
            "the cluster, on every node",
            key=key,
            value=found[0],
        )
    try:
        return Path(file).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{key}: {found[0]}: {why}", key=key, value=found[0]) from None
