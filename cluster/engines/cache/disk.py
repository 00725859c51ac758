"""Whether a disk is full: libraries that write files themselves tell it in ways of their own."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

FULL_BYTES = 2**20


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def ran_out_of_space(
    error: BaseException, folder: Path, free: Callable[[Path], int] = free_bytes
) -> bool:
    """Asked while what was written still lies in `folder`: is that why `error` came? A runtime in
    C++ says `iostream error`, or no more than that it failed."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    try:
        return free(folder) < FULL_BYTES
    except OSError:
        return False
