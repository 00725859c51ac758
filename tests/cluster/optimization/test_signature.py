from __future__ import annotations

import pytest

from cluster.config.model_card import SignatureCard, TensorCard
from cluster.errors import ConfigError
from cluster.optimization.signature import chosen_signature, is_batched, parse_tensor


def card(name: str, *shape: int) -> TensorCard:
    return TensorCard(name=name, datatype="FP32", shape=list(shape))


FOUND = SignatureCard(inputs=[card("a", -1, 4)], outputs=[card("b", -1)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image:FP32:-1,3,224,224", card("image", -1, 3, 224, 224)),
        ("x:0:fp32:-1", card("x:0", -1)),
        ("scalar:FP32:", card("scalar")),
    ],
)
def test_tensor_is_read_from_text(text: str, expected: TensorCard) -> None:
    assert parse_tensor(text) == expected


@pytest.mark.parametrize("text", ["x", "x:FP32", ":FP32:1", "x:FP31:1", "x:FP32:a", "x:FP32:-2"])
def test_text_that_is_no_tensor_shows_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="image:FP32:-1,3,224,224"):
        parse_tensor(text)


def test_flags_win_over_what_the_artefact_says() -> None:
    assert chosen_signature(FOUND, [card("c", 1, 4)], [], what="m") == SignatureCard(
        inputs=[card("c", 1, 4)], outputs=[card("b", -1)]
    )


def test_flags_must_count_the_artefact_s_tensors() -> None:
    with pytest.raises(ConfigError, match=r"1 inputs \(a\), but --input was given 2 times"):
        chosen_signature(FOUND, [card("c"), card("d")], [], what="m")


def test_artefact_that_says_nothing_needs_both_flags() -> None:
    with pytest.raises(ConfigError, match=r"m\.pt does not name its tensors"):
        chosen_signature(None, [card("c")], [], what="m.pt")


def test_batched_means_a_free_leading_dimension_everywhere() -> None:
    assert is_batched(FOUND)
    assert not is_batched(SignatureCard(inputs=[card("a", -1)], outputs=[card("b", 1, 2)]))
    assert not is_batched(SignatureCard(inputs=[card("a")], outputs=[card("b", -1)]))
