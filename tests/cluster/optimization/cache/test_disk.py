"""A full disk, told from other mishaps."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cluster.engines.cache.disk import ran_out_of_space

MIB = 2**20


@pytest.mark.parametrize(
    ("error", "free_bytes", "is_full"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 9 * MIB, True),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), 9 * MIB, True),
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), 9 * MIB, False),
        # What OpenVINO says when it cannot write.
        (RuntimeError("basic_ios::clear: iostream error"), MIB // 2, True),
        (RuntimeError("basic_ios::clear: iostream error"), 9 * MIB, False),
    ],
)
def test_the_disk_is_asked_where_the_error_does_not_say(
    tmp_path: Path, error: Exception, free_bytes: int, is_full: bool
) -> None:
    assert ran_out_of_space(error, tmp_path, lambda folder: free_bytes) is is_full


def test_a_folder_that_is_gone_is_no_full_disk(tmp_path: Path) -> None:
    assert not ran_out_of_space(RuntimeError("other"), tmp_path / "gone")
