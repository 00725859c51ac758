"""validate, inspect and benchmark as a user types them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from cluster.cli.main import app
from cluster.cli.toolchain.options import mendable
from cluster.errors import ConfigError
from cluster.optimization.signature import onnx_signature
from tests.cluster.optimization.tiny_nets import TinyMlp, best_classes, exported, rows


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    exported(TinyMlp(), tmp_path)
    return tmp_path / "model.onnx"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    inputs = rows(TinyMlp(), 60)
    np.savez(folder / "rows.npz", **inputs, labels=best_classes(TinyMlp(), inputs))
    return folder


def test_a_model_may_stand_in_for_itself(model: Path, data: Path) -> None:
    done = run("validate", model, model, "--data", data, "--json")

    said = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (said["passed"], said["validated"]) == (True, True)
    assert said["accuracy"]["optimised"]["value"] == 1


def test_a_model_that_says_something_else_fails_with_exit_code_1(
    model: Path, data: Path, tmp_path: Path
) -> None:
    import torch

    other = TinyMlp()
    with torch.no_grad():
        for weight in other.parameters():
            weight.neg_()
    (tmp_path / "other").mkdir()
    exported(other, tmp_path / "other")

    done = run("validate", model, tmp_path / "other" / "model.onnx", "--data", data, "--json")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["passed"] is False


def test_without_data_nothing_is_validated_and_that_is_said(model: Path) -> None:
    done = run("validate", model, model)

    assert done.exit_code == 0
    assert "random" in done.stdout
    assert "NOT VALIDATED" in done.stdout


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_program_that_does_not_say_what_it_takes_is_judged_with_the_flags_that_do(
    model: Path, tmp_path: Path
) -> None:
    import torch

    # Made here with deprecated calls; what reads it must not warn on its own.
    traced = torch.jit.trace(TinyMlp(), torch.ones(1, 64))  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(tmp_path / "net.ts"))  # type: ignore[no-untyped-call]
    named = onnx_signature(model).outputs[0].name
    tensors = ("--input", "x:FP32:-1,64", "--output", f"{named}:FP32:-1,10")

    assert run("validate", tmp_path / "net.ts", model).exit_code == 2
    done = run("validate", tmp_path / "net.ts", model, *tensors, "--json")

    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True


def test_inspect_gives_flops_and_params(model: Path) -> None:
    done = run("inspect", model, "--json")

    said = json.loads(done.stdout)
    assert said["params"] == 64 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10
    assert said["flops"] > 0


def test_benchmark_gives_a_row_a_batch_size(model: Path) -> None:
    done = run("benchmark", model, "--batch-sizes", "1,8", "--rounds", 1, "--json")

    said = json.loads(done.stdout)
    assert [each["batch_size"] for each in said["batches"]] == [1, 8]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("inspect", "nothing.onnx"), "no such file"),
        (("benchmark", "MODEL", "--batch-sizes", "one"), "write whole numbers"),
        (("benchmark", "MODEL", "--engine", "abacus"), "no engine 'abacus'"),
        (("validate", "MODEL", "MODEL", "--shape", "x"), "write NAME="),
        (("validate", "MODEL", "MODEL", "--data", "/nowhere"), "no such folder"),
        (("optimize", "MODEL", "--max-size-mb", "nan"), "--max-size-mb nan; allowed: above 0"),
        (("convert", "MODEL", "m.ort", "--max-size-mb", "inf"), "--max-size-mb inf; allowed"),
    ],
)
def test_what_the_user_can_mend_is_one_message(
    model: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = run(*(str(model) if each == "MODEL" else each for each in arguments))

    assert done.exit_code == 2
    assert says in done.stderr
    assert "Traceback" not in done.output


def test_how_far_weights_are_changed_is_told_by_name() -> None:
    from cluster.cli.toolchain.options import parse_tuning

    found = parse_tuning(["prune_ratio=0.5", "training_steps=7", "learning_rate=1e-3"])

    assert (found.prune_ratio, found.rank_energy) == (0.5, 0.999)
    assert (found.schedule.steps, found.schedule.learning_rate) == (7, 1e-3)


@pytest.mark.parametrize("text", ["depth=3", "prune_ratio", "prune_ratio=much", "=1"])
def test_what_cannot_be_tuned_is_refused_with_what_can(text: str) -> None:
    from cluster.cli.toolchain.options import parse_tuning

    with pytest.raises(ConfigError, match="write NAME=NUMBER, NAME one of prune_ratio"):
        parse_tuning([text])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["optimize", "MODEL", "--out", "FILE"], "file is a file; choose a folder with --out"),
        (["optimize", "MODEL", "--out", "FILE/out"], "cannot be made"),
        (["optimize", "MODEL", "--out", "NEW", "--cache-dir", "FILE"], "cannot be the artefact"),
        (["profile", "MODEL", "--html", "NEW/p.html"], "its folder is not there"),
        (["profile", "MODEL", "--trace", "FOLDER"], "is a folder"),
        (["convert", "MODEL", "FILE/net.ort"], "File exists"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_message(
    model: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "file").write_text("")
    places = {"MODEL": model, "FILE": tmp_path / "file", "NEW": tmp_path / "new",
              "FOLDER": tmp_path}  # fmt: skip
    given = [
        str(places[head] / rest) if (head := each.partition("/")[0]) in places else each
        for each in arguments
        for rest in [each.partition("/")[2]]
    ]

    done = run(*given, *(["--level", "basic", "--rounds", 2] if given[0] == "optimize" else []))

    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert "Traceback" not in done.output


NOISY = """
import torch

print("imported")

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        print("made")
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x):
        print("asked")
        return self.layer(x)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "NET", "--json"),
        ("benchmark", "NET", "--rounds", 1, "--json"),
        ("profile", "NET", "--calls", 1, "--json"),
        ("convert", "NET", "OUT", "--json"),
        ("validate", "MODEL", "MODEL", "--json"),
    ],
)
def test_stdout_is_one_json_object_whatever_else_is_said(
    model: Path, tmp_path: Path, arguments: tuple[object, ...]
) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    places = {"MODEL": model, "NET": f"{tmp_path / 'noisy.py'}:Net", "OUT": tmp_path / "net.onnx"}
    takes_net = "NET" in arguments

    done = run(
        *(places.get(str(each), each) for each in arguments),
        *(["--input", "x:FP32:-1,4"] if takes_net else []),
    )

    assert done.exit_code == 0, done.output
    assert isinstance(json.loads(done.stdout), dict)
    assert done.stderr  # progress, and what the class said
    assert not takes_net or "imported" in done.stderr


@pytest.mark.parametrize("what", ["itself", "an error that a library makes of it"])
def test_ctrl_c_is_one_message_and_exit_code_130(
    capsys: pytest.CaptureFixture[str], what: str
) -> None:
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if what == "itself":
                raise
            raise ImportError("initialization failed") from None

    before = signal.getsignal(signal.SIGINT)

    with pytest.raises(typer.Exit) as ended, mendable("go on"):
        work()

    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == "squadron: stopped; go on\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_that_nobody_can_mend_is_shown_as_it_is() -> None:
    with pytest.raises(ImportError, match="no such symbol"), mendable():
        raise ImportError("no such symbol")


@pytest.mark.parametrize("command", ["inspect", "convert"])
def test_weights_that_torch_saved_are_told_from_a_program(tmp_path: Path, command: str) -> None:
    import torch

    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "net.pt")
    tensors = ["--input", "x:FP32:-1,4", "--output", "y:FP32:-1,4"]
    target = [tmp_path / "net.onnx"] if command == "convert" else []

    done = run(command, tmp_path / "net.pt", *target, *tensors)

    assert done.exit_code == 2, done.output
    assert "not a TorchScript program" in done.stderr
    assert "give the class, as in my_net.py:Net" in done.stderr
    assert not list(tmp_path.glob("*.onnx*"))
