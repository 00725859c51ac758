"""The artefact cache: one build a key, whole entries only, bounded."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import pytest

from cluster.engines.cache.artefact_cache import (
    ENTRY_FILE,
    ArtefactCache,
    CacheKey,
    cache_key,
)
from cluster.errors import ConfigError
from cluster.optimization.cache import fingerprint
from cluster.optimization.cache.fingerprint import (
    TOOLCHAIN,
    hardware,
    library_versions,
    toolchain_version,
)


def key(recipe: str = "int8", model: str = "a" * 64, **changes: object) -> CacheKey:
    parts: dict[str, object] = {"libraries": {"onnx": "1"}, "hardware": {"processor": "p"}}
    parts |= changes
    return cache_key(model_sha256=model, recipe={"name": recipe}, **parts)  # type: ignore[arg-type]


def write(folder: Path, content: bytes = b"weights") -> None:
    (folder / "model.onnx").write_bytes(content)


def test_the_second_call_takes_what_the_first_built(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path)

    first = cache.get_or_build(key(), write)
    second = cache.get_or_build(key(), lambda folder: pytest.fail("built twice"))

    assert (first.was_built, second.was_built) == (True, False)
    assert second.folder == first.folder
    assert (second.folder / "model.onnx").read_bytes() == b"weights"


@pytest.mark.parametrize(
    "other",
    [
        key(recipe="fp16"),
        key(model="b" * 64),
        key(libraries={"onnx": "2"}),
        key(hardware={"processor": "q"}),
    ],
)
def test_another_model_recipe_library_or_machine_is_another_artefact(
    tmp_path: Path, other: CacheKey
) -> None:
    cache = ArtefactCache(tmp_path)
    cache.get_or_build(key(), write)

    assert cache.get_or_build(other, write).was_built


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "no list", "list is no JSON"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, damage: str) -> None:
    cache = ArtefactCache(tmp_path)
    folder = cache.get_or_build(key(), write).folder
    match damage:
        case "changed":
            (folder / "model.onnx").write_bytes(b"weighty")
        case "cut":
            (folder / "model.onnx").write_bytes(b"wei")
        case "gone":
            (folder / "model.onnx").unlink()
        case "no list":
            (folder / ENTRY_FILE).unlink()
        case _:
            (folder / ENTRY_FILE).write_text("[")

    found = cache.get_or_build(key(), write)

    assert found.was_built
    assert (found.folder / "model.onnx").read_bytes() == b"weights"


def test_a_pickle_in_the_place_of_an_entry_is_never_loaded(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "owned"),))

    cache = ArtefactCache(tmp_path / "cache")
    folder = cache.get_or_build(key(), write).folder
    (folder / ENTRY_FILE).write_bytes(pickle.dumps(Payload()))
    (folder / "model.onnx").write_bytes(pickle.dumps(Payload()))

    assert cache.get_or_build(key(), write).was_built
    assert not (tmp_path / "owned").exists()


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path)

    def fails(folder: Path) -> None:
        write(folder)
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        cache.get_or_build(key(), fails)

    assert cache.num_bytes() == 0
    assert not list(tmp_path.rglob("model.onnx"))
    assert cache.get_or_build(key(), write).was_built


def test_no_space_is_a_clear_error_and_nothing_half_written_stays(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path)

    def fills_the_disk(folder: Path) -> None:
        write(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ConfigError, match="no space left") as caught:
        cache.get_or_build(key(), fills_the_disk)

    assert caught.value.details["file"] == str(tmp_path)
    assert not list(tmp_path.rglob("model.onnx"))


def test_the_least_recently_used_entries_go_first(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, max_bytes=4000, grace_s=0)
    keys = [key(recipe=str(index)) for index in range(3)]
    for age_s, each in zip((30, 20, 10), keys, strict=True):
        folder = cache.get_or_build(each, lambda f: write(f, b"x" * 1000)).folder
        used_s = (folder / ENTRY_FILE).stat().st_mtime - age_s
        os.utime(folder / ENTRY_FILE, (used_s, used_s))
    cache.get_or_build(keys[0], write)  # used again: now the second is the oldest

    cache.get_or_build(key(recipe="new"), lambda f: write(f, b"x" * 1000))

    assert cache.num_bytes() <= 4000
    left = [each for each in keys if (tmp_path / each.digest[:2] / each.digest).is_dir()]
    assert left == [keys[0], keys[2]] or left == [keys[0]]


def test_what_was_used_just_now_is_kept_though_the_cache_is_full(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, max_bytes=1)
    first = cache.get_or_build(key(recipe="1"), write)
    cache.get_or_build(key(recipe="2"), write)

    assert first.folder.is_dir()


def _build_in_a_process(root: str, log: str) -> None:
    def build(folder: Path) -> None:
        with Path(log).open("a") as file:
            file.write("built\n")
        write(folder)

    ArtefactCache(Path(root)).get_or_build(key(), build)


def test_what_a_search_holds_outlives_a_cache_that_is_too_small_for_it(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, max_bytes=100, grace_s=0)
    with cache.holding():
        hits = [cache.get_or_build(key(name), write) for name in ("a", "b", "c")]
        stamp = hits[0].folder / ENTRY_FILE
        os.utime(stamp, (1, 1))
        cache.get_or_build(key("d"), write)

        assert all((hit.folder / "model.onnx").is_file() for hit in hits)
        # Another process sees it used.
        assert stamp.stat().st_mtime > 1

    cache.get_or_build(key("e"), write)
    assert not any(hit.folder.exists() for hit in hits)


def test_of_two_processes_that_want_the_same_one_builds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    spawn = multiprocessing.get_context("spawn")
    arguments = (str(tmp_path / "cache"), str(log))
    processes = [spawn.Process(target=_build_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0]
    assert log.read_text() == "built\n"


def test_a_size_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_bytes is 0"):
        ArtefactCache(tmp_path, max_bytes=0)


def test_the_fingerprint_names_the_processor_its_generation_and_its_instructions(
    tmp_path: Path,
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "model name\t: Some CPU\ncpu family\t: 6\nmodel\t\t: 207\nstepping\t: 2\n"
        "flags\t\t: fpu avx2 avx512_vnni amx_int8\n"
    )

    found = hardware(cpuinfo)

    assert found.processor == "Some CPU (family 6 model 207 stepping 2)"
    assert found.instructions == ("avx2", "avx512_vnni", "amx_int8")


def test_only_installed_libraries_have_a_version() -> None:
    assert set(library_versions(("numpy", "no-such-library"))) == {"numpy", TOOLCHAIN}


def test_code_that_builds_otherwise_is_another_version_of_the_toolchain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = library_versions()[TOOLCHAIN]
    copied = tmp_path / "optimization"
    source = Path(fingerprint.__file__).parent.parent
    shutil.copytree(source, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "__file__", str(copied / "cache" / "fingerprint.py"))
    toolchain_version.cache_clear()
    try:
        assert library_versions()[TOOLCHAIN] == before
        with (copied / "precision" / "int8.py").open("a") as file:
            file.write("# mended\n")
        toolchain_version.cache_clear()
        assert library_versions()[TOOLCHAIN] != before
    finally:
        toolchain_version.cache_clear()


def test_a_folder_that_cannot_be_a_cache_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"file cannot be the artefact cache: Not a directory"):
        ArtefactCache(tmp_path / "file").get_or_build(key(), write)


def test_what_a_killed_build_left_behind_goes_after_a_day(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path)
    folder = cache.get_or_build(key(), write).folder.parent
    old, new = folder / ".partial-old", folder / ".partial-new"
    for each in (old, new):
        each.mkdir()
        write(each)
    os.utime(old, (0, 0))

    cache.get_or_build(key("another"), write)

    assert (old.exists(), new.exists()) == (False, True)
