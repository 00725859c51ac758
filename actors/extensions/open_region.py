"""One region as a door has it open, and the regions that a request holds."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

from actors.extensions.cuda_memory import CudaMemory
from actors.extensions.region_registry import Registered
from cluster.errors import InvalidRequest
from cluster.protocols.extensions.shared_memory import Places, check_within
from cluster.requests import RegionSlice


@dataclass(slots=True, kw_only=True, eq=False)
class OpenRegion:
    """A region as this door has it open. `num_users`: requests whose answer goes there."""

    entry: Registered
    fd: int
    lock_fd: int
    num_users: int = 0
    is_gone: bool = False

    def enter(self) -> bool:
        """False when it is just being unregistered."""
        if self.num_users == 0 and not locked(self.lock_fd, fcntl.LOCK_SH):
            return False
        self.num_users += 1
        return True

    def leave(self) -> None:
        self.num_users -= 1
        if self.num_users == 0:
            fcntl.flock(self.lock_fd, fcntl.LOCK_UN)
            if self.is_gone:
                self._close()

    def forget(self) -> None:
        """Not registered any more: closed when the last request has left."""
        self.is_gone = True
        if self.num_users == 0:
            self._close()

    def _close(self) -> None:
        os.close(self.fd)
        os.close(self.lock_fd)


class HeldRegions:
    """The regions of one request's outputs, entered and left together."""

    def __init__(
        self, enter: Callable[[str], OpenRegion], names: Iterable[str], cuda: CudaMemory
    ) -> None:
        self._enter = enter
        self._cuda = cuda
        self._names = names
        self._entered: dict[str, OpenRegion] = {}

    def __enter__(self) -> Places:
        try:
            for name in self._names:
                if name in self._cuda:
                    continue
                self._entered[name] = self._enter(name)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def write(self, place: RegionSlice, data: bytes | memoryview) -> None:
        """Raises: InvalidRequest."""
        region = self._entered.get(place.region)
        if region is None:
            self._cuda.write(place, data)
            return
        check_within(place, region.entry.byte_size)
        at = region.entry.offset + place.offset
        # Writing beyond the end would make the object grow: its owner made it shorter on purpose.
        if os.fstat(region.fd).st_size < at + len(data):
            raise cut_short(place)
        left = memoryview(data)
        while left:
            try:
                num_written = os.pwrite(region.fd, left, at)
            except OSError as error:
                raise InvalidRequest(
                    f"shared memory region '{place.region}' cannot be written: {error.strerror}"
                ) from None
            at += num_written
            left = left[num_written:]

    def _leave(self) -> None:
        for region in self._entered.values():
            region.leave()
        self._entered = {}


def locked(fd: int, kind: int) -> bool:
    """Whether the lock could be had at once."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def cut_short(place: RegionSlice) -> InvalidRequest:
    return InvalidRequest(
        f"shared memory region '{place.region}' has become shorter than it was registered: offset "
        f"{place.offset} + byte size {place.byte_size} are beyond the object's end"
    )
