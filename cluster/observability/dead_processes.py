"""Metrics files of processes that are gone, added up in one file of each kind.

A replica that is replaced leaves its counters behind, and they count on: without this every restart
of a process left files that each scrape had to read, for as long as the node lives.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

_MERGED = "merged"
"""Stands where a process's id stands in the name of its file: `counter_merged.db`."""
_JOURNAL = "merging.json"
_LOCK = "merging.lock"
_LARGEST, _SMALLEST, _NEWEST = "gauge_max", "gauge_min", "gauge_mostrecent"
_KINDS = ("counter", "histogram", "summary", "gauge_sum", _LARGEST, _SMALLEST, _NEWEST)
"""What is kept of a process that is gone (prometheus_client's `multiprocess_mode`): its `live`
gauges are not, and `gauge_all` is told process by process."""

_Values = dict[str, tuple[float, float]]
"""Key -> value and its time, in seconds since 1970."""


@contextmanager
def settled(folder: Path) -> Iterator[None]:
    """Inside, every number stands in `folder` once: what dead processes left has been merged, and
    nobody merges meanwhile. Who reads without it may see a number twice, and less the next time.
    """
    if not folder.is_dir():
        yield
        return
    if _left_behind(folder) or (folder / _JOURNAL).exists():
        with _locked(folder, fcntl.LOCK_EX):
            _finish(folder)
            _merge(folder)
    with _locked(folder, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    with (folder / _LOCK).open("a") as lock:
        fcntl.flock(lock, how)
        yield


def _left_behind(folder: Path) -> dict[str, list[Path]]:
    """Kind -> files of processes that are gone. None where nobody can say who lives."""
    if not Path("/proc/self").exists():
        return {}
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*_*.db")):
        kind, _, pid = file.stem.rpartition("_")
        is_ours = kind in _KINDS or kind.startswith("gauge_live")
        if is_ours and pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            found.setdefault(kind, []).append(file)
    return found


def _merge(folder: Path) -> None:
    for kind, files in _left_behind(folder).items():
        if kind not in _KINDS:
            _remove(files)
            continue
        merged = folder / f"{kind}_{_MERGED}.db"
        values: _Values = {}
        for file in (*([merged] if merged.exists() else []), *files):
            _add(kind, values, file)
        # The rename is the one step that counts: killed before it, the old files hold; killed after
        # it, whoever comes next finds by the journal which of them are in the new one already.
        fresh = folder / f"{kind}_{_MERGED}.new"
        fresh.unlink(missing_ok=True)
        _write(fresh, values)
        _note(folder, fresh, files)
        os.replace(fresh, merged)
        _finish(folder)


def _finish(folder: Path) -> None:
    """Undoes or ends what a process that was killed while merging had begun."""
    journal = folder / _JOURNAL
    if not journal.exists():
        return
    noted = json.loads(journal.read_text())
    fresh = folder / noted["fresh"]
    if fresh.exists():
        fresh.unlink()
    else:
        _remove(folder / name for name in noted["merged"])
    journal.unlink()


def _note(folder: Path, fresh: Path, files: Iterable[Path]) -> None:
    noted = {"fresh": fresh.name, "merged": [file.name for file in files]}
    whole = folder / f"{_JOURNAL}.new"
    whole.write_text(json.dumps(noted))
    os.replace(whole, folder / _JOURNAL)


def _add(kind: str, values: _Values, file: Path) -> None:
    if not file.stat().st_size:  # it went before it had written anything
        return
    for key, value, time_s, _ in MmapedDict.read_all_values_from_file(str(file)):
        if key not in values:
            values[key] = (value, time_s)
            continue
        before, before_s = values[key]
        if kind == _NEWEST:
            values[key] = max((before_s, before), (time_s, value))[::-1]
        elif kind in (_LARGEST, _SMALLEST):
            choose = max if kind == _LARGEST else min
            values[key] = (choose(before, value), 0.0)
        else:
            values[key] = (before + value, 0.0)


def _write(file: Path, values: _Values) -> None:
    written = MmapedDict(str(file))
    for key, (value, time_s) in values.items():
        written.write_value(key, value, time_s)
    written.close()


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        with suppress(FileNotFoundError):
            file.unlink()
