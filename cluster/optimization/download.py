"""Pinned archives from a Python package index into `<store>/.archives/`; hash checked every time.

Nothing is installed and no `setup.py` runs: the files are only ever read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cluster.config.store import sha256_of
from cluster.errors import ConfigError
from cluster.optimization.progress import Progress, Silent
from cluster.optimization.sources import Archive

if TYPE_CHECKING:
    from pypi_simple import PyPISimple

CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 120.0
NUM_RETRIES = 4


class Index(Protocol):
    """Where archives come from. A test's fake is one class."""

    def download(self, archive: Archive, target: Path, progress: Progress) -> None:
        """Write the archive to `target`. Raises: ConfigError when it cannot be had."""


class PackageIndex:
    """A simple-API index: `PIP_INDEX_URL` or pypi.org; proxies and certificates as requests'."""

    def __init__(self, url: str = "") -> None:
        self.url = url or os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple/"

    def download(self, archive: Archive, target: Path, progress: Progress) -> None:
        # Imported here: with its requests and BeautifulSoup it costs more than a no-op fetch.
        import requests
        from pypi_simple import NoSuchProjectError

        timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        try:
            with self._client() as client:
                page = client.get_project_page(archive.package, timeout=timeout)
                found = [p for p in page.packages if p.filename == archive.file]
                if not found:
                    raise self._unavailable(archive, "the index does not list this file")
                # Our own pinned hash is checked afterwards; an index need not give any.
                client.download_package(
                    found[0],
                    target,
                    verify=False,
                    timeout=timeout,
                    progress=lambda total: progress.download(archive.file, total),
                )
        except (requests.RequestException, NoSuchProjectError, OSError) as error:
            # The operator acts: a proxy, a mirror, or the file put there by hand.
            raise self._unavailable(archive, str(error)) from error

    def _client(self) -> PyPISimple:
        import requests
        from pypi_simple import PyPISimple
        from requests.adapters import HTTPAdapter
        from urllib3.util.retry import Retry

        session = requests.Session()
        retry = Retry(total=NUM_RETRIES, backoff_factor=1.0, status_forcelist=(429, 502, 503, 504))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        session.mount("http://", HTTPAdapter(max_retries=retry))
        return PyPISimple(self.url, session=session)

    def _unavailable(self, archive: Archive, why: str) -> ConfigError:
        return ConfigError(
            f"cannot download {archive.file} ({archive.package} {archive.version}) from "
            f"{_without_credentials(self.url)}: {_without_credentials(why)}. "
            "Set PIP_INDEX_URL to an index that has it, or put the file into the store's "
            ".archives folder by hand (its hash is checked)",
            file=archive.file,
        )


class ArchiveCache:
    """`<store>/.archives/`: what is there has the pinned hash, or it is refused."""

    def __init__(
        self, folder: Path, *, index: Index | None = None, progress: Progress | None = None
    ) -> None:
        self.folder = folder
        self.downloaded_bytes = 0
        self._index = index or PackageIndex()
        self._progress = progress or Silent()

    def get(self, archive: Archive) -> Path:
        """The archive's path, downloaded if need be; its hash was checked just now.

        Raises: ConfigError when it cannot be had or is not the pinned file.
        """
        path = self.folder / archive.file
        if not path.exists():
            self._download(archive, path)
        check_sha256(path, archive.sha256)
        return path

    def _download(self, archive: Archive, path: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Named by process: two fetches at once may both download, neither sees half a file.
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            self._index.download(archive, partial, self._progress)
            check_sha256(partial, archive.sha256, name=archive.file)
            self.downloaded_bytes += partial.stat().st_size
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def check_sha256(path: Path, expected: str, *, name: str = "") -> None:
    """Raises: ConfigError with the file, the expected and the found hash."""
    found = sha256_of(path)
    if found != expected:
        raise ConfigError(
            f"{name or path}: not the file that was pinned: expected sha256 {expected}, found "
            f"{found}. Remove it and fetch again; if that repeats, do not use it",
            file=name or str(path),
            key="sha256",
            value=found,
            allowed=expected,
        )


def _without_credentials(text: str) -> str:
    """`https://user:token@host` loses user and token, wherever in the text it stands."""
    return re.sub(r"://[^/@\s]+@", "://", text)
