from __future__ import annotations

import pickle

import pytest

from cluster.errors import ERRORS_BY_NAME, Overloaded, ShardLost, SquadronError


@pytest.mark.parametrize("kind", ERRORS_BY_NAME.values(), ids=ERRORS_BY_NAME.keys())
def test_every_error_survives_pickling_with_class_message_and_details(
    kind: type[SquadronError],
) -> None:
    sent = kind("what happened", tensor="image", retry_after_s=2)

    received = pickle.loads(pickle.dumps(sent))

    assert type(received) is kind
    assert (received.message, received.details) == (
        "what happened",
        {"tensor": "image", "retry_after_s": 2},
    )
    assert str(received) == "what happened"


def test_every_error_has_a_status_for_both_protocols() -> None:
    for kind in ERRORS_BY_NAME.values():
        assert 400 <= kind.http_status <= 599
        assert kind.grpc_status.isupper()


def test_retry_after_is_a_number_or_nothing() -> None:
    assert Overloaded("full", retry_after_s=3).retry_after_s == 3.0
    assert Overloaded("full").retry_after_s is None


def test_what_a_lost_shard_did_not_answer_may_be_asked_again_in_a_moment() -> None:
    assert ShardLost("gone").retry_after_s == 1.0
    assert ShardLost("gone", retry_after_s=7).retry_after_s == 7.0
