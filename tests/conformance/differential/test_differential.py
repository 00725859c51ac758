"""The same requests to Squadron and to the real Triton: equal answers, or a listed deviation."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.servers import ServerFailed
from tests.conformance.differential import deviations, grpc_cases, http_cases
from tests.conformance.differential.answers import Answer, ask_grpc, ask_http, differences
from tests.conformance.differential.models import write_squadron, write_triton_repository
from tests.conformance.differential.triton import triton
from tests.e2e.running import running

pytestmark = [pytest.mark.e2e]
NAMES = [
    *(f"http: {case.name}" for case in http_cases.CASES),
    *(f"grpc: {case.name}" for case in grpc_cases.CASES),
]
Answers = dict[str, tuple[Answer, Answer]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Every case asked once of both: Triton's answer and ours."""
    folder = tmp_path_factory.mktemp("differential")
    repository = folder / "repository"
    repository.mkdir()
    write_triton_repository(repository)
    file = write_squadron(folder)
    try:
        theirs = triton(repository, folder)
        with theirs as real, running(file, folder, store=folder / "store") as ours:
            found: Answers = {
                f"http: {case.name}": (ask_http(real.http, case), ask_http(ours.http, case))
                for case in http_cases.CASES
            }
            found |= {
                f"grpc: {case.name}": (ask_grpc(real.grpc, case), ask_grpc(ours.grpc, case))
                for case in grpc_cases.CASES
            }
    except ServerFailed as error:
        pytest.skip(f"Triton cannot be had here: {error}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_equal_or_a_listed_deviation(answers: Answers, name: str) -> None:
    triton_answer, ours = answers[name]

    found = differences(triton_answer, ours)

    assert found == deviations.explained(name), (
        f"differs in {sorted(found)}, listed are {sorted(deviations.explained(name))}\n"
        f"Triton:   {triton_answer.shown()}\nSquadron: {ours.shown()}"
    )


def test_what_is_taken_out_of_every_answer_is_still_there(answers: Answers) -> None:
    seen = frozenset[str]().union(*(a.marks | b.marks for a, b in answers.values()))

    assert seen == {each.mark for each in deviations.DEVIATIONS if each.mark}


@pytest.mark.slice
def test_every_pattern_of_a_deviation_names_a_case() -> None:
    for deviation in deviations.DEVIATIONS:
        assert bool(deviation.cases) != bool(deviation.mark), deviation.id
        for pattern in deviation.cases:
            only = deviations.Deviation(
                id="", triton="", ours="", why="", fields=("x",), cases=(pattern,)
            )
            assert any(only.explains(name) for name in NAMES), (deviation.id, pattern)


@pytest.mark.slice
def test_the_page_says_what_the_table_says() -> None:
    assert Path(deviations.FILE).read_text(encoding="utf-8") == deviations.rendered()
