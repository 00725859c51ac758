from __future__ import annotations

from actors.experiments.kept import dumped, parsed
from actors.repository.state import Kept, RepositoryKeeper
from cluster.control.repository import Setting, Settings
from tests.actors.experiments.test_control import Memory, control

KEPT = Kept(
    settings=Settings().with_setting("m", Setting(is_loaded=True, section="digest")),
    serving={"m": Setting(is_loaded=True)},
)


def test_what_was_loaded_is_where_the_rest_of_the_state_is() -> None:
    """In a file, Redis or PostgreSQL too: Ray's own store is gone with a head without a disk."""
    memory = Memory()
    RepositoryKeeper(control(memory), lambda: None).write(KEPT)

    memory.kept = parsed(dumped(memory.kept))
    after = control(memory)

    assert RepositoryKeeper(after, lambda: None).read() == KEPT
    after.set_weights("e", {"a": 1, "b": 3})
    assert RepositoryKeeper(control(memory), lambda: None).read() == KEPT


def test_what_an_earlier_version_kept_elsewhere_is_found() -> None:
    memory = Memory()
    keeper = RepositoryKeeper(control(memory), lambda: KEPT.model_dump_json().encode())

    assert keeper.read() == KEPT
    keeper.write(Kept())
    assert keeper.read() == Kept()


def test_what_cannot_be_read_is_left() -> None:
    memory = Memory()
    made = control(memory)
    made.keep_repository("{not json")

    assert RepositoryKeeper(made, lambda: None).read() == Kept()
