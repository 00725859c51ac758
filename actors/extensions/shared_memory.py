"""Tensors in the callers' shared memory: the one place of a door that touches it.

Regions are read by `pread` and written by `pwrite`, never mapped. The caller owns the object and
may cut it short at any moment; touching a mapped page that is gone ends the process (SIGBUS), and
what was checked in a mapping can be changed before it is used. A `pread` beyond the end is a short
read, an error of one request. It costs one copy of the tensor (DECISIONS.md has the figures).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from actors.extensions.cuda_memory import CudaMemory
from actors.extensions.open_region import HeldRegions, OpenRegion, cut_short, locked
from actors.extensions.region_registry import RegionRegistry, Registered, Stamp
from cluster.config.server import SharedMemoryConfig
from cluster.errors import (
    AlreadyExists,
    RegionNotFound,
    RegionNotOpened,
    Unsupported,
)
from cluster.protocols.extensions.shared_memory import (
    DISABLED,
    DISABLED_TEXT,
    REMOTE,
    Places,
    Regions,
    Registration,
    check_object_size,
    check_within,
    cuda_sizes,
    registration,
)
from cluster.requests import RegionSlice, RequestedOutput

OBJECTS = Path("/dev/shm")
"""Where Linux keeps POSIX shared-memory objects."""

LOOK_S = 0.005
"""How often an unregistration looks whether the last request has left."""

_NOTHING: AbstractContextManager[Places] = nullcontext(DISABLED)


class SharedMemory:
    """Lives on one door's event loop. `folder` is shared by the doors of the node."""

    def __init__(self, config: SharedMemoryConfig, folder: Path, cuda: CudaMemory) -> None:
        self.config = config
        self._cuda = cuda
        self._registry = RegionRegistry(folder)
        self._open: dict[str, OpenRegion] = {}
        self._entries: dict[str, Registered] = {}
        self._stamp: Stamp = (0, 0)

    def regions(self, *, is_local: bool) -> Regions:
        """What a caller may use in its requests."""
        if not self.config.enabled:
            return DISABLED
        return self if is_local else REMOTE

    def status(self, name: str = "") -> list[dict[str, str | int]]:
        """Raises: RegionNotFound, Unsupported."""
        self._check_enabled()
        entries = self._registry.entries()
        if name and name not in entries:
            raise RegionNotFound(f"Unable to find system shared memory region: '{name[:256]}'")
        return [
            {"name": e.name, "key": e.key, "offset": e.offset, "byte_size": e.byte_size}
            for e in sorted(entries.values(), key=lambda entry: entry.name)
            if name in ("", e.name)
        ]

    async def register(self, name: str, key: object, offset: object, byte_size: object) -> None:
        """Raises: InvalidRequest, Forbidden, AlreadyExists, RegionNotOpened, Unsupported."""
        self._check_enabled()
        asked = registration(name, key, offset, byte_size, self.config)
        if name in self._cuda:
            raise AlreadyExists(f"shared memory region '{name}' already in manager")
        fd = self._open_key(asked)
        try:
            about = os.fstat(fd)
            check_object_size(asked, about.st_size)
            holder = f"/proc/{os.getpid()}/fd/{fd}"
            entry = await asyncio.to_thread(
                self._registry.add, asked, about, holder, self.config.max_regions
            )
        except BaseException:
            os.close(fd)
            raise
        self._refresh()
        if self._entries.get(name) == entry and name not in self._open:
            self._adopt(entry, fd)
        else:
            os.close(fd)

    async def unregister(self, name: str = "") -> None:
        """One region or all; an unknown name is no error. Returns when no door uses it any more.

        Raises: Unsupported.
        """
        self._check_enabled()
        gone = await asyncio.to_thread(self._registry.remove, name)
        self._refresh()
        for entry in gone:
            await self._left_by_all(entry)

    def cuda_status(self, name: str = "") -> list[dict[str, str | int]]:
        """Raises: RegionNotFound, Unsupported."""
        self._check_enabled()
        return self._cuda.status(name)

    def cuda_register(self, name: str, handle: bytes, device_id: object, byte_size: object) -> None:
        """Raises: Unsupported where there is no GPU; AlreadyExists, InvalidRequest."""
        self._check_enabled()
        self._cuda.check_possible()
        device, size = cuda_sizes(name, device_id, byte_size)
        if name in self._registry.entries():
            raise AlreadyExists(f"shared memory region '{name}' already in manager")
        self._cuda.register(name, handle, device, size)

    def cuda_unregister(self, name: str = "") -> None:
        """One or all; an unknown name is no error. Raises: Unsupported."""
        self._check_enabled()
        self._cuda.unregister(name)

    def read(self, place: RegionSlice) -> bytes:
        """A copy of the slice. Raises: RegionNotFound, RegionNotOpened, InvalidRequest."""
        if place.region in self._cuda:
            return self._cuda.read(place)
        region = self._found(place)
        data = os.pread(region.fd, place.byte_size, region.entry.offset + place.offset)
        if len(data) != place.byte_size:
            raise cut_short(place)
        return data

    def check(self, place: RegionSlice) -> None:
        """Whether the slice is there. Raises: RegionNotFound, RegionNotOpened, InvalidRequest."""
        if place.region in self._cuda:
            self._cuda.check(place)
        else:
            self._found(place)

    def held(self, outputs: Iterable[RequestedOutput]) -> AbstractContextManager[Places]:
        """What writes these outputs; while it is entered, nobody is told that their regions are
        unregistered."""
        names = {output.place.region for output in outputs if output.place is not None}
        return HeldRegions(self.enter, names, self._cuda) if names else _NOTHING

    def enter(self, name: str) -> OpenRegion:
        """Begin to use a region. Raises: RegionNotFound, RegionNotOpened."""
        region = self._current(name)
        if not region.enter():
            raise _unknown(name)
        # Whoever removes it takes it off the list first and then waits for the lock; so once we
        # have the lock and it is still on the list, it stays until we leave.
        self._refresh()
        if region.is_gone:
            region.leave()
            raise _unknown(name)
        return region

    def _found(self, place: RegionSlice) -> OpenRegion:
        region = self._current(place.region)
        check_within(place, region.entry.byte_size)
        return region

    def _current(self, name: str) -> OpenRegion:
        self._refresh()
        region = self._open.get(name)
        if region is not None:
            return region
        entry = self._entries.get(name)
        if entry is None:
            raise _unknown(name)
        return self._adopt(entry, self._open_entry(entry))

    def _refresh(self) -> None:
        stamp = self._registry.stamp()
        if stamp == self._stamp:
            return
        # The stamp is taken before the content: a change in between is seen next time.
        self._stamp = stamp
        self._entries = self._registry.entries()
        for name, region in list(self._open.items()):
            if self._entries.get(name) != region.entry:
                del self._open[name]
                region.forget()

    def _adopt(self, entry: Registered, fd: int) -> OpenRegion:
        try:
            lock_fd = os.open(self._registry.lock_file(entry.token), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            os.close(fd)
            raise _unknown(entry.name) from None
        region = self._open[entry.name] = OpenRegion(entry=entry, fd=fd, lock_fd=lock_fd)
        return region

    def _open_key(self, asked: Registration | Registered) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(OBJECTS / asked.key.lstrip("/"), flags)
        except (OSError, ValueError):
            raise RegionNotOpened(f"Unable to open shared memory region: '{asked.key}'") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise RegionNotOpened(f"Unable to open shared memory region: '{asked.key}'")
        return fd

    def _open_entry(self, entry: Registered) -> int:
        """The object that was registered, also after its key is gone or means another one."""
        try:
            fd = self._open_key(entry)
        except RegionNotOpened:
            fd = -1
        if fd < 0 or not _is(entry, fd):
            if fd >= 0:
                os.close(fd)
            fd = self._open_holder(entry)
        return fd

    def _open_holder(self, entry: Registered) -> int:
        try:
            fd = os.open(entry.holder, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            fd = -1
        if fd >= 0 and _is(entry, fd):
            return fd
        if fd >= 0:
            os.close(fd)
        raise RegionNotOpened(f"Unable to open shared memory region: '{entry.key}'")

    async def _left_by_all(self, entry: Registered) -> None:
        """Wait until no door holds the registration's lock, then remove its file."""
        path = self._registry.lock_file(entry.token)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            # Doors are processes: no event of this loop could tell.
            while not locked(fd, fcntl.LOCK_EX):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
            path.unlink(missing_ok=True)
        finally:
            os.close(fd)

    def _check_enabled(self) -> None:
        if not self.config.enabled:
            raise Unsupported(DISABLED_TEXT)


def _is(entry: Registered, fd: int) -> bool:
    about = os.fstat(fd)
    return (about.st_dev, about.st_ino) == (entry.device, entry.inode)


def _unknown(name: str) -> RegionNotFound:
    return RegionNotFound(f"Unable to find shared memory region: '{name[:256]}'")
