"""A process that replaced an OpenVINO engine can still be sent signals."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAM = """
import faulthandler, signal, sys
from pathlib import Path
faulthandler.enable()  # as Ray's workers have it: handlers run on a signal stack
from cluster.engines.table import make_engine
from tests.contracts.tiny_models import TINY

name, make = TINY["onnx_on_openvino"]
setup = make(Path(sys.argv[1]))
old, new = make_engine(name, setup), make_engine(name, setup)
old.load()
new.load()
old.close()
new.close()
del old, new
signal.signal(signal.SIGTERM, lambda *_: print("told"))
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_a_signal_reaches_its_handler_after_one_engine_replaced_another(
    root: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["told"]), done.stderr[-2000:]
