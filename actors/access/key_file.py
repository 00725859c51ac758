"""The file of API keys, read again when it changes: keys come and go without a restart."""

from __future__ import annotations

import logging
from pathlib import Path

from cluster.access.keys import KeyRing
from cluster.config.security.api_keys import read_keys
from cluster.errors import ConfigError

logger = logging.getLogger("squadron.access")

_Seen = tuple[int, int, int]


class WatchedKeys:
    """The keys as the file has them now. A file that cannot be read leaves the last good ones in
    force: half a copy must not lock everybody out, and revoking a key is a good file again."""

    def __init__(self, file: Path) -> None:
        """Raises: ConfigError."""
        self._file = file
        self._seen = self._look()
        self._ring = KeyRing(read_keys(file).keys)

    def ring(self) -> KeyRing:
        # Asked for with every request: 2 µs, and a key that was revoked is refused at once.
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
