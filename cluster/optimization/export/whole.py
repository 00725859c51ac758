"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster.engines.cache.disk import ran_out_of_space
from cluster.errors import ConfigError


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """An empty folder on `target`'s own disk, gone afterwards with what was not moved out of it.

    A rename out of it cannot run out of space; a copy from another disk can, half way.

    Raises: ConfigError when there was no space left, whatever a library makes of that.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
    except Exception as error:
        if not ran_out_of_space(error, folder):
            raise
        raise ConfigError(
            f"no space left in {target.parent.absolute()} for {target.name}; nothing half-written "
            "was kept",
            file=str(target),
            key="target",
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(files: Sequence[Path], target: Path) -> list[Path]:
    """Move the files of a `beside` folder next to `target`, `target` itself last: who sees it sees
    all that it needs.

    Raises: ConfigError when one of the names is taken; then nothing was moved.
    """
    places = [target.with_name(file.name) for file in files]
    refuse_existing(places)
    pairs = sorted(zip(files, places, strict=True), key=lambda pair: pair[1] == target)
    for file, place in pairs:
        file.rename(place)
    return places


def refuse_existing(places: Sequence[Path]) -> None:
    """Raises: ConfigError naming the first of them that is there."""
    for place in places:
        if place.exists():
            raise ConfigError(
                f"{place} exists; it was left as it is", file=str(place), key="target"
            )


def write_whole(target: Path, text: str) -> None:
    """In place of what was there. Raises: OSError, and then what was there is as it was."""
    with beside(target) as folder:
        made = folder / target.name
        made.write_text(text, encoding="utf-8")
        made.replace(target)
