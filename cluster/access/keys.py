"""API keys: how one is made, and whose it is.

`sqn_<id>_<secret>`: the id finds the key's entry, the digest of the whole proves it. The comparison
takes the same time whatever was sent, also for an id that nobody has.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cluster.config.security.api_keys import ADMIN, ALL_MODELS, METRICS, ONE_MODEL, ApiKey
from cluster.errors import Unauthorized

PREFIX = "sqn"
SCHEME = "bearer"
SECRET_BYTES = 32
ID_BYTES = 6
MAX_KEY_CHARS = 200
_NOBODY = "0" * 64

NO_KEY = "an API key is needed: send it as 'Authorization: Bearer KEY'"
WRONG_KEY = "the API key is not valid"
EXPIRED_KEY = "the API key has expired"


def key_of(key_id: str, secret: str) -> str:
    return f"{PREFIX}_{key_id}_{secret}"


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, as an entry of the file says."""

    key: ApiKey

    @property
    def is_admin(self) -> bool:
        return ADMIN in self.key.scopes

    def may_infer(self, model: str) -> bool:
        scopes = self.key.scopes
        return ADMIN in scopes or ALL_MODELS in scopes or f"{ONE_MODEL}{model}" in scopes

    def may_infer_all(self) -> bool:
        return ADMIN in self.key.scopes or ALL_MODELS in self.key.scopes

    def may_infer_some(self) -> bool:
        return any(scope == ALL_MODELS or scope.startswith(ONE_MODEL) for scope in self.key.scopes)

    def may_scrape(self) -> bool:
        return ADMIN in self.key.scopes or METRICS in self.key.scopes


class KeyRing:
    """The keys of one state of the file."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._callers = {key.id: Caller(key=key) for key in keys}

    def caller(self, authorization: str | None, now: datetime) -> Caller:
        """Whose key the `Authorization` header or metadata holds.

        Raises: Unauthorized, which says only whether there was a key and whether it was once good.
        """
        if not authorization:
            raise Unauthorized(NO_KEY)
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != SCHEME:
            raise Unauthorized(NO_KEY)
        key = key.strip()[:MAX_KEY_CHARS]
        parts = key.split("_", 2)
        found = self._callers.get(parts[1]) if len(parts) == 3 else None
        wanted = found.key.sha256 if found is not None else _NOBODY
        if not hmac.compare_digest(digest_of(key), wanted) or found is None:
            raise Unauthorized(WRONG_KEY, openai_code="invalid_api_key")
        return _in_time(found, now)

    def again(self, caller: Caller, now: datetime) -> Caller:
        """Who showed a key earlier, as the file has that key now.

        Raises: Unauthorized, where it was taken out, replaced or has expired since.
        """
        found = self._callers.get(caller.key.id)
        if found is None or not hmac.compare_digest(found.key.sha256, caller.key.sha256):
            raise Unauthorized(WRONG_KEY, openai_code="invalid_api_key")
        return _in_time(found, now)


def _in_time(caller: Caller, now: datetime) -> Caller:
    expires = caller.key.expires
    if expires is not None and now >= expires:
        # For the operator's counters and logs; no answer shows details of these names.
        raise Unauthorized(
            EXPIRED_KEY,
            openai_code="invalid_api_key",
            key_id=caller.key.id,
            key_name=caller.key.name,
        )
    return caller
