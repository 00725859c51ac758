"""Wake at a time to within tens of microseconds; event loops round their timers to milliseconds.

Linux's timerfd where there is one (Python has it from 3.13 on, ctypes before), else the loop's.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time

_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_TIMER_ABSTIME = 1, 0o4000, 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class PreciseTimer:
    """One waiter at a time. Times are those of `time.perf_counter` (CLOCK_MONOTONIC on Linux)."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._fd = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK)
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._rang)

    async def until(self, at_s: float) -> None:
        """Returns at `at_s`, or after one turn of the loop when that is past."""
        if at_s - time.perf_counter() < 0.00002:
            await asyncio.sleep(0)
            return
        if self._fd < 0:
            await asyncio.sleep(at_s - time.perf_counter())
            return
        whole_s = int(at_s)
        spec = _TimerSpec(
            _Timespec(0, 0), _Timespec(whole_s, max(1, int((at_s - whole_s) * 1_000_000_000)))
        )
        self._waiter = self._loop.create_future()
        self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)
        await self._waiter

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _rang(self) -> None:
        os.read(self._fd, 8)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
