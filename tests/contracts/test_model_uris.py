"""Model stores at a URI: a real S3 server on loopback, real processes, a real cache."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cluster.config.model_card import ModelCard
from cluster.config.storage.location import ModelCacheConfig, StoreUri, parse_location
from cluster.config.store import ModelStore, new_version, seal
from cluster.errors import ConfigError
from cluster.optimization.progress import Silent, SilentTransfer
from cluster.optimization.remote.mirror import MirroredStore, bring_into, open_store, publish
from cluster.optimization.remote.space import Place, let_go
from cluster.optimization.remote.transfer import CHUNK_BYTES, SUMS, ObjectStore
from tests.s3_server import SECRET, needs_s3, s3_server

pytestmark = needs_s3

URI = "s3://shelf/models"


@pytest.fixture(autouse=True)
def bucket() -> Iterator[None]:
    """Empty, reached as the environment says."""
    with s3_server("shelf"):
        yield


def uri() -> StoreUri:
    found = parse_location(URI)
    assert isinstance(found, StoreUri)
    return found


def local_store(
    folder: Path, *, num_bytes: int = 1000, names: str = "a", fill: int = 7
) -> ModelStore:
    """Models of one artefact and one file in a folder beside it."""
    store = ModelStore(folder / "local")
    for name in names:
        card = ModelCard.model_validate(
            {
                "name": name,
                "version": "1",
                "format": "onnx",
                "artefact": "model.onnx",
                "signature": {
                    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
                    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
                },
            }
        )
        with new_version(store.root, name, "1") as version:
            (version / "model.onnx").write_bytes(bytes([fill]) * num_bytes)
            (version / "words").mkdir()
            (version / "words/list.txt").write_text(f"words of {name}")
            seal(version, card)
    return store


def mirror(folder: Path, *, max_bytes: int = 10**9) -> MirroredStore:
    config = ModelCacheConfig(path=str(folder / "cache"), max_bytes=max_bytes)
    found = open_store(URI, config)
    assert isinstance(found, MirroredStore)
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != SUMS
    }


def test_what_was_published_comes_back_as_it_was(tmp_path: Path) -> None:
    local = local_store(tmp_path)
    publish(local, uri(), "a")

    found = mirror(tmp_path)

    assert found.card("a") == local.card("a")
    assert files_of(found.folder("a")) == files_of(local.folder("a"))
    assert found.verify("a") == local.card("a")


def test_a_file_uri_and_a_mounted_path_are_the_folder_itself(tmp_path: Path) -> None:
    local = local_store(tmp_path)

    for location in (str(local.root), f"file://{local.root}"):
        found = open_store(location)
        assert type(found) is ModelStore
        assert found.folder("a") == local.folder("a")


def test_a_version_is_published_once(tmp_path: Path) -> None:
    local = local_store(tmp_path)
    publish(local, uri(), "a")

    with pytest.raises(ConfigError, match="there already"):
        publish(local, uri(), "a")


def test_the_newest_whole_version_is_taken(tmp_path: Path) -> None:
    publish(local_store(tmp_path), uri(), "a")
    store = ObjectStore(uri())
    store.write(b"begun, its card not yet there", "a/2/model.onnx")

    assert mirror(tmp_path).card("a").version == "1"


def test_content_that_is_not_what_was_published_is_refused_and_thrown_away(tmp_path: Path) -> None:
    local = local_store(tmp_path)
    publish(local, uri(), "a")
    store = ObjectStore(uri())
    store.write(b"\x08" * 1000, "a/1/model.onnx")
    found = mirror(tmp_path)

    with pytest.raises(ConfigError, match="expected sha256"):
        found.card("a")
    assert not Place(found.root, "a", "1").folder.exists()

    store.write(b"\x07" * 1000, "a/1/model.onnx")
    assert files_of(found.folder("a")) == files_of(local.folder("a"))


def test_a_file_that_the_list_of_hashes_does_not_know_is_refused(tmp_path: Path) -> None:
    publish(local_store(tmp_path), uri(), "a")
    ObjectStore(uri()).write(b"import os", "a/1/extra.py")

    with pytest.raises(ConfigError, match=r"extra\.py"):
        mirror(tmp_path).card("a")


def test_a_card_that_names_a_file_elsewhere_touches_nothing(tmp_path: Path) -> None:
    """Its hash is wrong, and what has a wrong hash is thrown away."""
    local = local_store(tmp_path)
    card = local.card("a").model_dump()
    victim = tmp_path / "kept.txt"
    victim.write_text("mine")
    found = mirror(tmp_path)
    partial = Place(found.root, "a", "1").partial
    store = ObjectStore(uri())
    store.write(b"\x07", "a/1/model.onnx")
    for path in (os.path.relpath(victim, partial), str(victim)):
        lie = {**card, "artefact": path, "sha256": "0" * 64}
        store.write(yaml.safe_dump(lie).encode(), "a/1/model.yaml")

        with pytest.raises(ConfigError, match="leads out of the version's folder"):
            found.card("a")
        assert victim.read_text() == "mine"


def test_a_store_that_sends_more_than_it_said_fills_no_disk(tmp_path: Path) -> None:
    publish(local_store(tmp_path, num_bytes=2 * CHUNK_BYTES), uri(), "a")
    store = ObjectStore(uri())
    (file,) = (each for each in store.files("a/1") if each.name == "model.onnx")
    arrived: list[int] = []

    class Counts(SilentTransfer):
        def update(self, num_bytes: int) -> None:
            arrived.append(num_bytes)

    class Telling(Silent):
        def download(self, file: str, total_bytes: int | None) -> SilentTransfer:
            return Counts()

    with pytest.raises(ConfigError, match="should have 10 bytes"):
        store.bring(replace(file, num_bytes=10), tmp_path / "come" / "model.onnx", Telling())

    assert sum(arrived) == 11
    assert [each.name for each in (tmp_path / "come").iterdir()] == ["model.onnx.mark"]


def test_a_card_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    ObjectStore(uri()).write(b"#" * (16 * 2**20 + 1), "a/1/model.yaml")

    with pytest.raises(ConfigError, match="more than 16777216 bytes"):
        mirror(tmp_path).versions("a")


def test_a_name_that_leads_elsewhere_is_no_model(tmp_path: Path) -> None:
    for name in ("../a", ".hidden", "a/../../b", ""):
        with pytest.raises(ConfigError, match="no model"):
            mirror(tmp_path).card(name)


DIES = """
import os, sys
from pathlib import Path
from cluster.config.storage.location import ModelCacheConfig
from cluster.optimization.progress import Silent, SilentTransfer
from cluster.optimization.remote.mirror import open_store

class Dies(SilentTransfer):
    seen = 0
    def update(self, num_bytes):
        self.seen += num_bytes
        if self.seen >= 8 * 2**20:
            sys.stdout.flush()
            os._exit(9)

class Telling(Silent):
    def download(self, file, total_bytes):
        return Dies()

open_store(sys.argv[1], ModelCacheConfig(path=sys.argv[2]), Telling()).card("a")
"""


def test_a_download_that_was_killed_is_not_seen_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    local = local_store(tmp_path, num_bytes=2 * CHUNK_BYTES + 5)
    publish(local, uri(), "a")
    done = subprocess.run([sys.executable, "-c", DIES, URI, str(tmp_path / "cache")], check=False)
    assert done.returncode == 9
    arrived: dict[str, list[int]] = {}

    class Telling(Silent):
        def download(self, file: str, total_bytes: int | None) -> SilentTransfer:
            parts = arrived.setdefault(file, [])

            class Transfer(SilentTransfer):
                def update(self, num_bytes: int, /) -> None:
                    parts.append(num_bytes)

            return Transfer()

    config = ModelCacheConfig(path=str(tmp_path / "cache"))
    found = MirroredStore(uri(), config, Telling())
    place = Place(found.root, "a", "1")
    assert not place.folder.exists()
    assert (place.partial / "model.onnx.partial").stat().st_size == CHUNK_BYTES

    assert files_of(found.folder("a")) == files_of(local.folder("a"))
    assert arrived["model.onnx"] == [CHUNK_BYTES, CHUNK_BYTES, 5]


def test_what_changed_meanwhile_is_begun_anew(tmp_path: Path) -> None:
    publish(local_store(tmp_path, num_bytes=2 * CHUNK_BYTES), uri(), "a")
    subprocess.run([sys.executable, "-c", DIES, URI, str(tmp_path / "cache")], check=False)
    ObjectStore(uri())._fs.rm("shelf/models/a", recursive=True)
    other = local_store(tmp_path / "other", num_bytes=2 * CHUNK_BYTES, fill=9)
    publish(other, uri(), "a")

    assert files_of(mirror(tmp_path).folder("a")) == files_of(other.folder("a"))


BRINGS = """
import sys
from cluster.config.storage.location import ModelCacheConfig
from cluster.optimization.remote.mirror import open_store
store = open_store(sys.argv[1], ModelCacheConfig(path=sys.argv[2], max_bytes=int(sys.argv[3])))
print(store.verify(sys.argv[4]).sha256, flush=True)
sys.stdin.read()
"""


def bringing(folder: Path, name: str, max_bytes: int = 10**9) -> subprocess.Popen[str]:
    """A process that brings a model and uses it until its standard input ends."""
    arguments = [URI, str(folder / "cache"), str(max_bytes), name]
    return subprocess.Popen(
        [sys.executable, "-c", BRINGS, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_three_processes_at_once_all_get_it_whole(tmp_path: Path) -> None:
    local = local_store(tmp_path, num_bytes=3 * CHUNK_BYTES)
    publish(local, uri(), "a")

    processes = [bringing(tmp_path, "a") for _ in range(3)]
    said = [process.communicate()[0].strip() for process in processes]

    assert said == [local.card("a").sha256] * 3


def test_the_cache_lets_go_of_what_was_used_least_recently_and_nobody_uses(tmp_path: Path) -> None:
    local = local_store(tmp_path, num_bytes=100_000, names="abc")
    for name in "abc":
        publish(local, uri(), name)
    room_for_two = 250_000
    for name in "ab":
        bringing(tmp_path, name, room_for_two).communicate()
    found = mirror(tmp_path, max_bytes=room_for_two)
    found.card("a")  # used again: now b is the least recent

    found.card("c")

    there = {name for name in "abc" if Place(found.root, name, "1").folder.exists()}
    assert there == {"a", "c"}
    for name in "ac":
        let_go(Place(found.root, name, "1"))


def test_what_another_process_uses_stays_and_the_refusal_says_how_much_is_needed(
    tmp_path: Path,
) -> None:
    local = local_store(tmp_path, num_bytes=100_000, names="ab")
    for name in "ab":
        publish(local, uri(), name)
    user = bringing(tmp_path, "a", 150_000)
    assert user.stdout is not None
    user.stdout.readline()
    found = mirror(tmp_path, max_bytes=150_000)

    with pytest.raises(ConfigError, match="no room for b version 1"):
        found.card("b")
    user.communicate()
    assert found.card("b").name == "b"
    let_go(Place(found.root, "b", "1"))


def test_a_cached_model_is_served_while_the_store_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(local_store(tmp_path), uri(), "a")
    mirror(tmp_path).card("a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    assert mirror(tmp_path).card("a").name == "a"
    with pytest.raises(ConfigError, match="s3://shelf/models"):
        mirror(tmp_path).card("never-brought")


def test_no_error_repeats_a_secret_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9/{SECRET}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(ConfigError) as caught:
        mirror(tmp_path).card("a")

    assert SECRET not in str(caught.value) + str(caught.value.details)


def test_a_version_is_copied_into_a_store_of_one_s_own(tmp_path: Path) -> None:
    local = local_store(tmp_path)
    publish(local, uri(), "a")
    mine = ModelStore(tmp_path / "mine")

    first = bring_into(mine.root, f"{URI}/a")
    again = bring_into(mine.root, f"{URI}/a/1")

    assert mine.verify("a") == local.card("a")
    assert files_of(mine.folder("a")) == files_of(local.folder("a"))
    assert (first.is_new, again.is_new) == (True, False)
