"""Where the model store is: a folder of this machine, or a URI that is mirrored into one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator

from cluster.config.section import Section
from cluster.errors import ConfigError

SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
"""Scheme -> the package that reads it."""
ALLOWED = "a folder, file:///FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, hf://OWNER/REPOSITORY"
CACHE_VARIABLE = "SQUADRON_MODEL_CACHE"

_DIGEST_CHARACTERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUri:
    """`path`: bucket or repository and what lies below it, without a slash at its end."""

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    @property
    def folder(self) -> str:
        """The mirror's name in a cache, the same in every process and on every node."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:_DIGEST_CHARACTERS]


class ModelCacheConfig(Section):
    """Where models of a store at a URI lie on each node. `path`: `$SQUADRON_MODEL_CACHE` goes
    before it, `~` is the user's folder. Beyond `max_bytes` the model goes that was used least
    recently and that no process uses."""

    path: str = "~/.cache/squadron/models"
    max_bytes: int = Field(default=50 * 2**30, gt=0)


class StoreConfig(Section):
    """`path`: the model store. A folder (relative paths start where Serve was started), or a URI
    whose versions are mirrored into `cache` as they are needed. Credentials come from the
    environment, as the providers' own tools read them."""

    path: str = "models"
    cache: ModelCacheConfig = ModelCacheConfig()

    @field_validator("path")
    @classmethod
    def _is_a_location(cls, path: str) -> str:
        try:
            parse_location(path)
        except ConfigError as error:
            raise ValueError(error.message) from None
        return path


def parse_location(text: str) -> Path | StoreUri:
    """A folder of this machine or a URI.

    Raises: ConfigError for another scheme, for no bucket, and for credentials inside (which are
    not repeated).
    """
    scheme, mark, rest = text.partition("://")
    if not mark:
        return Path(text)
    if scheme == "file":
        if not rest.startswith("/"):
            raise _refused(text, "a file URI names a whole path (three slashes)")
        return Path(rest)
    if scheme not in SCHEMES:
        raise _refused(f"{scheme}://…", "no such kind of store")
    path = rest.strip("/")
    bucket = path.partition("/")[0]
    # `hf://owner/repository@revision` is the only place for an @.
    if ("@" in bucket) or ":" in path or "?" in path or "#" in path:
        raise _refused(
            f"{scheme}://…", "a store's URI holds no credentials and no query; set them as the "
            "provider's environment variables (AWS_ACCESS_KEY_ID, …)"
        )  # fmt: skip
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bucket) or ".." in path.split("/"):
        raise _refused(text, "no bucket or repository is named")
    if scheme == "hf" and "/" not in path:
        raise _refused(text, "a repository has an owner and a name")
    return StoreUri(scheme=scheme, path=path)


def _refused(told: str, reason: str) -> ConfigError:
    return ConfigError(
        f"store.path {told}: {reason}; allowed: {ALLOWED}",
        key="store.path",
        value=told,
        allowed=ALLOWED,
    )
