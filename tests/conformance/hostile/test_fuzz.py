"""Every codec under a coverage-guided fuzzer (atheris), from the differential test's requests."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import EngineFailed
from cluster.protocols.envelope import Call, Reply, encode_calls, encode_replies
from cluster.tensors import bytes_array, tensor
from tests.conformance.differential import grpc_cases, http_cases
from tests.conformance.environments import NoEnvironment, environment

PROGRAM = Path(__file__).with_name("fuzz_codecs.py")
SECONDS = int(os.environ.get("SQUADRON_FUZZ_S", "20"))


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return environment("fuzz", "atheris==3.0.0") / "python"
    except NoEnvironment as error:
        pytest.skip(f"atheris cannot be had here: {error}")


def seeds(target: str) -> list[bytes]:
    numbers = tensor("x", np.arange(4, dtype=np.float32).reshape(1, 4))
    texts = tensor("t", bytes_array([b"", b"ab"], (1, 2)))
    match target:
        case "grpc_message":
            asked = (case for case in grpc_cases.CASES if case.rpc == "ModelInfer")
            return [case.message().SerializeToString() for case in asked]
        case "envelopes":
            call = Call(call_id=1, rows=1, left_s=1.0, inputs=(numbers, texts), wanted=("y",))
            replies = [Reply(call_id=1, outputs=(numbers, texts)), Reply(call_id=2)]
            replies.append(Reply(call_id=3, error=EngineFailed("no", why="x")))
            return [encode_calls([call, call]), encode_replies(replies)]
        case "raw_body":
            return [b"", b"text", bytes(64)]
    found = []
    for case in http_cases.CASES:
        if case.path.endswith("/infer"):
            length = case.headers.get(http_cases.HEADER, "65535")
            number = int(length) if length.isdigit() and int(length) < 65535 else 65535
            found.append(number.to_bytes(2, "little") + case.body)
    return found


@pytest.mark.parametrize(
    "target", ["json_and_binary", "quick_and_whole", "raw_body", "grpc_message", "envelopes"]
)
def test_any_bytes_are_read_or_refused(python: Path, tmp_path: Path, target: str) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds(target)):
        (corpus / str(number)).write_bytes(seed)
    options = [
        f"-max_total_time={SECONDS}",
        "-max_len=4096",
        "-timeout=10",
        "-rss_limit_mb=1024",
        f"-artifact_prefix={tmp_path}/",
        "-print_final_stats=1",
    ]
    # atheris has an environment of its own; the packages that the codecs need are ours.
    done = subprocess.run(
        [python, PROGRAM, target, corpus, *options],
        env={**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")},
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
    )

    crashes = [each for each in tmp_path.iterdir() if each.is_file()]
    found = [(each.name[:20], each.read_bytes()[:200]) for each in crashes]
    assert done.returncode == 0, f"{found}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert runs is not None
    print(f"{target}: {runs[1]} inputs in {SECONDS} s")
    assert int(runs[1]) > len(seeds(target))
