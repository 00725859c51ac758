"""The file of API keys: who may what, until when and how much. It holds no key, only digests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

import orjson
from pydantic import AwareDatetime, Field, field_validator, model_validator

from cluster.config.section import NAME_PATTERN, Section
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError

ALL_MODELS = "infer"
ONE_MODEL = "infer:"
ADMIN = "admin"
METRICS = "metrics"
SCOPES = "infer (every model), infer:MODEL, admin (everything), metrics (scraping)"


class ApiKey(Section):
    """`id` is the part of the key that is no secret, `name` says whose it is.

    `sha256` is of the whole key: 256 random bits need no slow hash. The limits hold for all doors
    of a node together; each of the server's nodes gives an equal part of them.
    """

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    name: str = Field(min_length=1, max_length=100)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    scopes: tuple[str, ...] = Field(min_length=1)
    created: AwareDatetime | None = None
    expires: AwareDatetime | None = None
    requests_per_s: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)

    @field_validator("scopes")
    @classmethod
    def _scopes_are_known(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        for scope in scopes:
            if not is_scope(scope):
                raise ValueError(f"{scope!r} is no scope; allowed: {SCOPES}")
        return scopes


class KeysFile(Section):
    """What `squadron keys` writes and the doors read."""

    keys: tuple[ApiKey, ...] = ()

    @model_validator(mode="after")
    def _every_id_is_its_own(self) -> Self:
        ids = [key.id for key in self.keys]
        for each in ids:
            if ids.count(each) > 1:
                raise ValueError(f"two keys have the id {each!r}")
        return self


def is_scope(text: str) -> bool:
    if text.startswith(ONE_MODEL):
        return re.fullmatch(NAME_PATTERN, text.removeprefix(ONE_MODEL)) is not None
    return text in (ALL_MODELS, ADMIN, METRICS)


def read_keys(file: Path) -> KeysFile:
    """Raises: ConfigError naming file, key, value and what is allowed."""
    try:
        content = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"server.api_keys: {file}: no such file; `squadron keys create --file {file}` makes it",
            file=str(file),
            key="server.api_keys",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"server.api_keys: {file}: {error.strerror}", file=str(file), key="server.api_keys"
        ) from None
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{file}: not JSON: {error}", file=str(file)) from None
    return check_section(content, KeysFile, source=str(file))
