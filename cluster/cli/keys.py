"""`squadron keys`: the file of API keys that the doors read (`server.api_keys`)."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.access.keys import ID_BYTES, SECRET_BYTES, digest_of, key_of
from cluster.config.security.api_keys import ApiKey, KeysFile, read_keys
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="API keys: who may use which model, and how much.")
# Names are anybody's words: brackets in them are no styles.
console = Console(highlight=False, markup=False)

File = Annotated[Path, typer.Option("--file", envvar="SQUADRON_API_KEYS", help="The file of keys.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
DEFAULT_FILE = Path("api_keys.json")
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    scopes: Annotated[
        list[str],
        typer.Option("--scope", help="infer, infer:MODEL, admin or metrics; may be repeated."),
    ],
    file: File = DEFAULT_FILE,
    expires: Annotated[
        str, typer.Option("--expires", help="30m, 12h, 90d, or a date as 2027-01-31.")
    ] = "",
    requests_per_s: Annotated[
        float | None, typer.Option("--requests-per-s", help="At most so many requests a second.")
    ] = None,
    tokens_per_minute: Annotated[
        float | None,
        typer.Option("--tokens-per-minute", help="At most so many language-model tokens a minute."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once: the file keeps its digest only. Doors that run take it
    a tenth of a second later.

    Examples:

      squadron keys create mobile-app --scope infer:photo-classifier --expires 90d

      squadron keys create batch --scope infer --requests-per-s 50 --tokens-per-minute 100000

      squadron keys create operator --scope admin
    """
    key_id = secrets.token_hex(ID_BYTES)
    key = key_of(key_id, secrets.token_urlsafe(SECRET_BYTES))
    now = datetime.now(UTC).replace(microsecond=0)
    if not name.isprintable():
        raise ConfigError(f"name {name!r}; allowed: printable characters", key="name", value=name)
    made = check_section(
        {
            "id": key_id,
            "name": name,
            "sha256": digest_of(key),
            "scopes": tuple(scopes),
            "created": now,
            "expires": _expiry(expires, now),
            "requests_per_s": requests_per_s,
            "tokens_per_minute": tokens_per_minute,
        },
        ApiKey,
        source="squadron keys create",
    )
    with _changing(file) as keys:
        keys.append(made)
    if as_json:
        print(json.dumps({"key": key, **_shown(made)}))
        return
    console.print(f"made key {key_id} for {name} in {file}; it is shown this once:", soft_wrap=True)
    print(key)


@app.command("list")
def list_keys(file: File = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Every key: whose, for what, until when.

    Example: squadron keys list --file api_keys.json
    """
    keys = read_keys(file).keys
    if as_json:
        print(json.dumps([_shown(key) for key in keys]))
        return
    table = Table("id", "name", "scopes", "expires", "requests/s", "tokens/min", box=None)
    now = datetime.now(UTC)
    for key in keys:
        until = "never" if key.expires is None else key.expires.isoformat()
        if key.expires is not None and key.expires <= now:
            until += " (over)"
        limits = [
            "" if each is None else f"{each:g}"
            for each in (key.requests_per_s, key.tokens_per_minute)
        ]
        table.add_row(key.id, key.name, ", ".join(key.scopes), until, *limits)
    console.print(table)


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `list` shows it.")],
    file: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Take a key out of the file. Doors that run refuse it a tenth of a second later.

    Example: squadron keys revoke 3f2a9c0d1b7e
    """
    with _changing(file) as keys:
        found = next((key for key in keys if key.id == key_id), None)
        if found is None:
            known = ", ".join(key.id for key in keys) or "none"
            raise ConfigError(f"{file}: there is no key {key_id[:40]!r}; allowed: {known}")
        keys.remove(found)
    if as_json:
        print(json.dumps({"revoked": _shown(found)}))
    else:
        console.print(f"revoked key {found.id} of {found.name}", soft_wrap=True)


@contextmanager
def _changing(file: Path) -> Iterator[list[ApiKey]]:
    """The keys, to be changed; what they are afterwards is written, whole or not at all."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_name(f".{file.name}.lock").open("a")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", file=str(file)) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = list(read_keys(file).keys) if file.exists() else []
        yield keys
        content = KeysFile(keys=tuple(keys)).model_dump(mode="json", exclude_none=True)
        # Made with mode 600: digests help nobody, but neither do they concern anybody.
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as fresh:
            fresh.write(json.dumps(content, indent=2) + "\n")
            fresh.flush()
            os.fsync(fresh.fileno())
        try:
            if file.exists():
                shutil.copymode(file, fresh.name)
                _keep_owner(file, fresh.name)
                _keep_owner(file, lock.name)
            os.replace(fresh.name, file)
        except BaseException:
            os.unlink(fresh.name)
            raise


def _keep_owner(file: Path, fresh: str) -> None:
    """A server that may no longer read its keys leaves the old ones in force, also those that were
    to go. Raises: ConfigError where this user cannot give a file to the owner."""
    was, now = file.stat(), os.stat(fresh)
    if (was.st_uid, was.st_gid) == (now.st_uid, now.st_gid):
        return
    try:
        os.chown(fresh, was.st_uid, was.st_gid)
    except OSError:
        raise ConfigError(
            f"{file}: belongs to user {was.st_uid}, group {was.st_gid}, which user {os.geteuid()} "
            "cannot keep; nothing was changed; allowed: its owner, or root",
            file=str(file),
        ) from None


def _expiry(text: str, now: datetime) -> datetime | None:
    """Raises: ConfigError."""
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,6})([mhd])", text)
    try:
        if found is not None:
            date = now + timedelta(seconds=int(found[1]) * _UNITS_S[found[2]])
        else:
            date = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"--expires {text!r}; allowed: a time from now as 30m, 12h or 90d, or a date as "
            "2027-01-31 or 2027-01-31T12:00:00+00:00"
        ) from None
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    if date <= now:
        raise ConfigError(f"--expires {text!r} is over; allowed: a time to come (UTC)")
    return date


def _shown(key: ApiKey) -> dict[str, object]:
    shown: dict[str, object] = key.model_dump(mode="json", exclude={"sha256"})
    return shown
