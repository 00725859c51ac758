"""Run by an interpreter of its own: a torch.export program as a file for phones, tried out.

    python edge_worker.py litert|executorch PROGRAM.pt2 TARGET INPUTS.npz ANSWERS.npz ROUNDS

Converts, opens the file with the real runtime, runs every row of INPUTS and writes what comes out.
Prints one JSON object: the runtime and the milliseconds of each timed call. Imports nothing of
Squadron's.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def main() -> None:
    kind, program, target, inputs, answers, rounds = sys.argv[1:7]
    exported = torch.export.load(program)
    with np.load(inputs, allow_pickle=False) as archive:
        columns = [archive[name] for name in archive.files]
    rows = [[np.asarray(column[i]) for column in columns] for i in range(len(columns[0]))]
    make = {"litert": litert, "executorch": executorch}[kind]
    runtime, run = make(exported, target, rows[0])
    found = [run(row) for row in rows]
    outputs = {f"output_{i}": np.stack(c) for i, c in enumerate(zip(*found, strict=True))}
    np.savez(answers, **outputs)  # type: ignore[arg-type]
    timings = []
    for number in range(int(rounds)):
        began_s = time.perf_counter()
        run(rows[number % len(rows)])
        timings.append(1000 * (time.perf_counter() - began_s))
    print(json.dumps({"runtime": runtime, "wall_ms": timings}))


def litert(exported: Any, target: str, row: list[Any]) -> tuple[str, Callable[..., Any]]:
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

    given = tuple(torch.from_numpy(each) for each in row)
    litert_torch.convert(exported.module(), given).export(target)
    interpreter = Interpreter(target, num_threads=1)
    interpreter.allocate_tensors()
    # Inputs are called serving_default_args_N, and are not always listed in that order.
    takes = sorted(interpreter.get_input_details(), key=lambda each: number_of(each["name"]))
    gives = sorted(interpreter.get_output_details(), key=lambda each: number_of(each["name"]))

    def run(values: list[Any]) -> list[Any]:
        for detail, value in zip(takes, values, strict=True):
            interpreter.set_tensor(detail["index"], value.astype(detail["dtype"]))
        interpreter.invoke()
        return [interpreter.get_tensor(each["index"]) for each in gives]

    from importlib.metadata import version

    return f"LiteRT {version('ai-edge-litert')}, XNNPACK", run


def executorch(exported: Any, target: str, row: list[Any]) -> tuple[str, Callable[..., Any]]:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    with open(target, "wb") as file:
        file.write(lowered.to_executorch().buffer)
    method = Runtime.get().load_program(target).load_method("forward")

    def run(values: list[Any]) -> list[Any]:
        given = [torch.from_numpy(np.ascontiguousarray(each)) for each in values]
        # A copy: the runtime writes the next answer into the same memory.
        return [np.array(each.numpy()) for each in method.execute(given)]

    from importlib.metadata import version

    return f"ExecuTorch {version('executorch')}, XNNPACK", run


def number_of(name: str) -> int:
    digits = "".join(each if each.isdigit() else " " for each in name).split()
    return int(digits[-1]) if digits else 0


if __name__ == "__main__":
    main()
