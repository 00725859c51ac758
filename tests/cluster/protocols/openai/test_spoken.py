"""Two equal answers say the same, however they were cut and numbered."""

from __future__ import annotations

from cluster.protocols.openai.spoken import spoken


def test_a_chat_answer_and_its_stream_say_the_same() -> None:
    whole = b'{"id":"a","choices":[{"index":0,"message":{"role":"assistant","content":"Paris."}}]}'
    stream = [
        b'data: {"id":"b","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
        b'data: {"id":"b","choices":[{"index":0,"delta":{"content":"Pa"}}]}\n\n',
        b'data: {"id":"b","choices":[{"index":0,"delta":{"content":"ris."}}]}\n\n',
        b'data: {"id":"b","choices":[],"usage":{}}\n\ndata: [DONE]\n\n',
    ]

    assert spoken([whole]) == spoken(stream) == ["Paris."]


def test_choices_come_in_their_order() -> None:
    whole = b'{"choices":[{"index":1,"text":"b"},{"index":0,"text":"a"}]}'

    assert spoken([whole]) == ["a", "b"]


def test_calls_of_functions_are_said_too() -> None:
    call = b'{"index":0,"id":"call_1","function":{"name":"f","arguments":"{}"}}'
    whole = b'{"choices":[{"index":0,"message":{"content":null,"tool_calls":[%s]}}]}' % call

    assert spoken([whole]) == ["f{}"]


def test_pieces_of_v2_are_joined() -> None:
    assert spoken([b"Once ", b"upon"]) == ["Once upon"]


def test_text_that_looks_like_an_object_is_text() -> None:
    assert spoken([b"{not ", b"json"]) == ["{not json"]
