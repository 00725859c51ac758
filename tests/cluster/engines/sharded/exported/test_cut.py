from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cluster.config.model_card import ModelCard
from cluster.config.placement import PlacementConfig
from cluster.engines.sharded.exported.cut import segments, write_stages
from cluster.engines.sharded.exported.part import ExportedPart
from cluster.engines.sharded.part import PartSetup, Step
from cluster.errors import ConfigError
from cluster.placement.partition import Shard, lay_out
from tests.cluster.engines.sharded.directories import MODELS, VOCABULARY

PIPELINE_3 = PlacementConfig(strategy="pipeline", shards=3)
BATCH = torch.export.Dim("batch", min=1, max=64)


class Residual(nn.Module):
    """Its skip leaves no place to cut inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Linear(width, 4 * width)
        self.two = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.two(torch.relu(self.one(x)))


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Residual(8) for _ in range(4)))
        self.register_buffer("scale", torch.arange(8.0))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.blocks(x) * self.scale
        # A size read off the input far before.
        return {"y": hidden.reshape(x.shape[0], 2, 4), "rows": hidden.sum(-1)}


class Masked(nn.Module):
    """A second input is needed again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(20, 8)
        self.second = nn.Linear(8, 8)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(ids))) * mask.unsqueeze(-1)


class Deep(nn.Module):
    """Every block reads one mask, made once of the second input and of a size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(20, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.first(ids)
        length = ids.shape[1]
        seen = torch.ones(length, length).tril() * mask[:, None, :]
        for block in self.blocks:
            hidden = hidden + seen @ torch.tanh(block(hidden))
        return hidden


class Filled(Deep):
    """As Deep; the mask is changed in place, so that no stage can make it again."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.first(ids)
        seen = mask[:, None, :] * torch.ones(ids.shape[1], 1)
        seen.masked_fill_(seen > 0.5, 2.0)
        for block in self.blocks:
            hidden = hidden + seen @ torch.tanh(block(hidden))
        return hidden


class Small(nn.Module):
    """Convolutions, a batch norm and a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
        )  # fmt: skip

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(image)
        return found


CASES: dict[str, tuple[type[nn.Module], tuple[torch.Tensor, ...], list[str]]] = {
    "stack": (Stack, (torch.randn(3, 8),), ["y", "rows"]),
    "masked": (Masked, (torch.randint(0, 20, (3, 5)), torch.rand(3, 5)), ["y"]),
    "deep": (Deep, (torch.randint(0, 20, (3, 5)), torch.rand(3, 5)), ["y"]),
    "filled": (Filled, (torch.randint(0, 20, (3, 5)), torch.rand(3, 5)), ["y"]),
    "small": (Small, (torch.randn(3, 3, 9, 9),), ["y"]),
}


def exported(name: str, folder: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    kind, given, _ = CASES[name]
    model = kind().eval()
    shapes = tuple({0: BATCH} for _ in given)
    file = folder / "model.pt2"
    torch.export.save(torch.export.export(model, given, dynamic_shapes=shapes), file)
    return model, file


def card(name: str) -> ModelCard:
    outputs = [{"name": o, "datatype": "FP32", "shape": [-1, -1]} for o in CASES[name][2]]
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}]
    return ModelCard.model_validate(
        {
            "name": name,
            "format": "torch_export",
            "artefact": "model.pt2",
            "signature": {"inputs": inputs, "outputs": outputs},
        }
    )


def parts(name: str, file: Path, runs: list[range]) -> list[ExportedPart]:
    found = []
    for index, run in enumerate(runs):
        shard = Shard(
            rank=index,
            stage=index,
            num_stages=len(runs),
            tensor_rank=0,
            tensor_degree=1,
            layers=run,
            device="cpu",
        )
        artefact = str(file.parent / f"stage-{index}.pt2")
        setup = PartSetup(card=card(name), folder=file.parent, shard=shard, artefact=artefact)
        found.append(ExportedPart(setup))
    return found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [1, 3, 7])
def test_the_stages_of_a_program_compute_what_the_whole_one_does(
    name: str, rows: int, tmp_path: Path
) -> None:
    model, file = exported(name, tmp_path)
    count = segments(file).num_layers
    runs = [range(start, stop) for start, stop in pairwise((0, 1, count // 2, count))]
    write_stages(file, tmp_path, [run for run in runs if len(run)])
    given = [t[:1].repeat(rows, *[1] * (t.dim() - 1)) for t in CASES[name][1]]
    names = _names(file)
    values: dict[str, Any] = {n: t.numpy() for n, t in zip(names, given, strict=True)}

    for part in parts(name, file, [run for run in runs if len(run)]):
        part.load()
        values = part.run(values, Step())

    wanted = model(*given)
    wanted = wanted if isinstance(wanted, dict) else {"y": wanted}
    assert values.keys() == wanted.keys()
    for output, tensor in wanted.items():
        assert np.abs(values[output].numpy() - tensor.detach().numpy()).max() < 1e-6


def test_a_stage_holds_its_own_weights_and_no_others(tmp_path: Path) -> None:
    _, file = exported("stack", tmp_path)
    layered = segments(file)
    half = next(
        n for n in range(layered.num_layers) if sum(layered.layer_bytes[:n]) * 2 >= 4 * 2 * 8 * 33
    )
    runs = [range(half), range(half, layered.num_layers)]
    write_stages(file, tmp_path, runs)

    found = [part.load().weight_bytes for part in parts("stack", file, runs)]

    assert found == [sum(layered.layer_bytes[run.start : run.stop]) for run in runs]
    assert sum(found) == sum(layered.layer_bytes)


def test_a_skip_leaves_no_cut_beside_it_unless_it_skips_from_the_input(tmp_path: Path) -> None:
    model, file = exported("stack", tmp_path)
    layered = segments(file)

    block = sum(p.numel() * 4 for p in model.blocks[0].parameters())  # type: ignore[union-attr,index]

    one, two = (8 * 32 + 32) * 4, (32 * 8 + 8) * 4
    assert block == one + two
    assert [size for size in layered.layer_bytes if size > 32] == [one, two, block, block, block]


def test_a_mask_that_all_blocks_read_leaves_the_places_between_them(tmp_path: Path) -> None:
    _, file = exported("deep", tmp_path)
    block = (8 * 8 + 8) * 4

    assert [size for size in segments(file).layer_bytes if size] == [20 * 8 * 4, *[block] * 4]


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x + self.count


def test_a_program_with_state_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Counting(), (torch.zeros(2),)), file)

    with pytest.raises(ConfigError, match="changes its buffer 'count'"):
        segments(file)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_transformer_is_cut_between_its_blocks_and_computes_the_same(
    family: str, tmp_path: Path
) -> None:
    """With padded rows, so that a mask that came out otherwise would be seen."""
    torch.manual_seed(0)
    model = MODELS[family]().eval()
    ids = torch.randint(0, VOCABULARY, (3, 7))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            rest = {"use_cache": False} if family == "llama" else {}
            found: torch.Tensor = self.model(input_ids=ids, attention_mask=mask, **rest)[0]
            return found

    shape = {0: BATCH, 1: torch.export.Dim("length", min=1, max=64)}
    program = torch.export.export(First(), (ids, mask), dynamic_shapes=(shape, shape), strict=False)
    file = tmp_path / "model.pt2"
    torch.export.save(program, file)
    layered = segments(file)
    runs = [run.layers for run in lay_out(PIPELINE_3, layered).shards]
    write_stages(file, tmp_path, runs)
    longer = torch.randint(0, VOCABULARY, (2, 11))
    seen = torch.ones_like(longer)
    seen[0, 5:] = 0
    values: dict[str, Any] = {"ids": longer.numpy(), "mask": seen.numpy()}

    held = []
    for part in parts("masked", file, runs):
        held.append(part.load().weight_bytes)
        values = part.run(values, Step())

    with torch.no_grad():
        wanted = First()(longer, seen).numpy()
    assert np.abs(values["y"].numpy() - wanted).max() < 1e-5
    # Four blocks in three stages: none holds two thirds of the weights.
    assert max(held) < sum(layered.layer_bytes) * 2 / 3


class Taking(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return torch.tanh(x) * x


def test_a_program_that_changes_its_input_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Taking(), (torch.zeros(2),)), file)

    with pytest.raises(ConfigError, match="changes its input 'x' in place"):
        segments(file)


def _names(file: Path) -> list[str]:
    return [str(name) for name in torch.export.load(file).graph_signature.user_inputs]
