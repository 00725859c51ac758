"""The file of API keys, read again when it changes: keys come and go without a restart."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from cluster.access.keys import KeyRing
from cluster.config.security.api_keys import read_keys
from cluster.errors import ConfigError

logger = logging.getLogger("squadron.access")

_Seen = tuple[int, int, int]

LOOK_S = 0.1
"""How often the file is looked at: 6 µs on an overlay file system, too much for every request."""


class WatchedKeys:
    """The keys as the file has them now. A file that cannot be read leaves the last good ones in
    force: half a copy must not lock everybody out, and revoking a key is a good file again."""

    def __init__(self, file: Path, *, look_every_s: float = LOOK_S) -> None:
        """Raises: ConfigError."""
        self._file = file
        self._look_every_s = look_every_s
        self._look_again_s = 0.0
        self._seen = self._look()
        self._ring = KeyRing(read_keys(file).keys)

    def ring(self) -> KeyRing:
        now_s = time.monotonic()
        if now_s < self._look_again_s:
            return self._ring
        self._look_again_s = now_s + self._look_every_s
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._ring = KeyRing(read_keys(self._file).keys)
                logger.info("the API keys were read again from %s", self._file)
            except ConfigError as error:
                logger.error("the API keys stay as they were: %s", error.message)
        return self._ring

    def _look(self) -> _Seen | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size
