"""Who is asking: keys checked and quotas charged at a door."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from prometheus_client import Counter

from actors.access.key_file import LOOK_S, WatchedKeys
from actors.access.ledger import Ledger, now_s
from actors.logs.line import LINE
from cluster.access.keys import Caller
from cluster.access.quota import (
    Bucket,
    Quota,
    filled,
    give,
    requests_quota,
    take,
    tokens_quota,
)
from cluster.config.server import ServerConfig
from cluster.errors import RateLimited, SquadronError, Unauthorized
from cluster.observability.door_metrics import Denial

audit = logging.getLogger("squadron.audit")
MAX_AUDITED_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The caller of the request under way. `pays_each`: its call holds many requests, each counted
    on its own; any other call was counted when it came."""

    caller: Caller
    pays_each: bool = False


ASKING: ContextVar[Asking | None] = ContextVar("ASKING", default=None)
"""Set where keys are configured, for as long as a request is worked on."""


def has_key() -> bool:
    """Whether the caller has shown a key, which its route found good enough."""
    return ASKING.get() is not None


def is_admin() -> bool:
    """Whether the caller has shown an admin key."""
    asking = ASKING.get()
    return asking is not None and asking.caller.is_admin


def write_down(caller: Caller, what: str) -> None:
    """Who changed the server: the key's id and name, never the key."""
    # A worker's output has what is at least a warning; who needs this looks there.
    audit.warning("%r by key %s (%r)", what[:MAX_AUDITED_CHARS], caller.key.id, caller.key.name)


class Callers:
    """Of one door. The folder is shared by the doors of its node."""

    def __init__(self, keys: WatchedKeys, folder: Path, *, num_nodes: int = 1) -> None:
        self._keys = keys
        self._denials: Counter | None = None
        self._ledger = Ledger(folder)
        self._num_nodes = num_nodes

    def count_into(self, denials: Counter) -> None:
        """`squadron_door_denied`, of the door's own metrics."""
        self._denials = denials

    def deny(self, error: SquadronError, caller: Caller | None) -> None:
        """Counts it by the name of the key, of which there are as many as the file has had. Only
        what a key is about: a `Forbidden` of something else must not be given here."""
        if self._denials is not None and error.code in get_args(Denial):
            told = caller.key.name if caller is not None else error.details.get("key_name", "")
            self._denials.labels(str(told), error.code).inc()

    def caller(self, authorization: str | None) -> Caller:
        """Raises: Unauthorized."""
        line = LINE.get()
        try:
            caller = self._keys.ring().caller(authorization, datetime.now(UTC))
        except Unauthorized as error:
            # Of a key that was good once. Whoever only knows an id is not written down under it.
            if line is not None:
                line.proved(
                    str(error.details.get("key_id", "")), str(error.details.get("key_name", ""))
                )
            raise
        if line is not None:
            line.proved(caller.key.id, caller.key.name)
        return caller

    def again(self, caller: Caller) -> Caller:
        """Whose key was good when its call began: whether it still is. Raises: Unauthorized."""
        return self._keys.ring().again(caller, datetime.now(UTC))

    def charge_request(self, caller: Caller) -> None:
        """Raises: RateLimited."""
        rate = caller.key.requests_per_s
        if rate is None:
            return
        quota = requests_quota(rate, self._num_nodes)
        entry = self._ledger.of(caller.key.id)
        with entry.locked():
            requests, tokens = entry.read()
            bucket, wait_s = take(filled(requests, quota, now_s()), quota, 1.0)
            entry.write(bucket, tokens)
        if wait_s:
            raise _limited(f"the API key is for {rate:g} requests a second", wait_s)

    def forget_request(self, caller: Caller) -> None:
        """It was charged and will be charged again."""
        rate = caller.key.requests_per_s
        if rate is None:
            return
        quota = requests_quota(rate, self._num_nodes)
        entry = self._ledger.of(caller.key.id)
        with entry.locked():
            requests, tokens = entry.read()
            entry.write(give(filled(requests, quota, now_s()), quota, 1.0), tokens)

    def charge_tokens(self, caller: Caller, expected: float) -> Callable[[float], None] | None:
        """Takes what a request is expected to use; what is returned is told what it did use. None
        for a key without a limit. Raises: RateLimited."""
        limit = caller.key.tokens_per_minute
        if limit is None:
            return None
        quota = tokens_quota(limit, self._num_nodes)
        key_id = caller.key.id
        wait_s = self._change_tokens(key_id, quota, lambda bucket: take(bucket, quota, expected))
        if wait_s:
            raise _limited(f"the API key is for {limit:g} tokens a minute", wait_s)

        def settle(used: float) -> None:
            self._change_tokens(
                key_id, quota, lambda bucket: (give(bucket, quota, expected - used), 0.0)
            )

        return settle

    def _change_tokens(
        self, key_id: str, quota: Quota, change: Callable[[Bucket], tuple[Bucket, float]]
    ) -> float:
        entry = self._ledger.of(key_id)
        with entry.locked():
            requests, tokens = entry.read()
            bucket, wait_s = change(filled(tokens, quota, now_s()))
            entry.write(requests, bucket)
        return wait_s


def callers_of(
    server: ServerConfig, folder: Path, *, look_every_s: float = LOOK_S
) -> Callers | None:
    """None where no keys are configured. Raises: ConfigError."""
    if not server.api_keys:
        return None
    keys = WatchedKeys(Path(server.api_keys), look_every_s=look_every_s)
    return Callers(keys, folder / "quotas", num_nodes=server.nodes)


def _limited(what: str, wait_s: float) -> RateLimited:
    return RateLimited(f"{what}, which are used up", retry_after_s=wait_s)
