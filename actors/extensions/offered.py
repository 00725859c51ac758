"""What both transports of a door offer beside inference: one object for the two of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from actors.experiments.client import ControllerClient
from actors.extensions.cuda_memory import CudaMemory
from actors.extensions.settings import DoorSettings
from actors.extensions.shared_memory import SharedMemory
from actors.extensions.statistics import NodeStatistics
from actors.front_door import FrontDoor
from actors.jobs.client import JobsClient
from actors.measures.devices import NodeDevices
from actors.repository.client import GetController, Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """`metrics_folder`: where every process of the node writes its numbers."""

    metrics_folder: Path
    devices: NodeDevices
    statistics: NodeStatistics
    settings: DoorSettings
    shared_memory: SharedMemory
    repository: Repository
    controller: ControllerClient
    jobs: JobsClient


def make_offered(
    door: FrontDoor,
    metrics_folder: Path,
    get_controller: GetController | None = None,
    *,
    door_id: str = "",
    jobs: JobsClient | None = None,
) -> Offered:
    """The extensions of one door, as its configuration wants them."""
    return Offered(
        metrics_folder=metrics_folder,
        devices=NodeDevices(),
        statistics=NodeStatistics(door, metrics_folder),
        settings=DoorSettings(door),
        # Beside the metrics: the folder that all doors of the node have in common.
        shared_memory=SharedMemory(
            door.server.shared_memory,
            metrics_folder.parent / "shared_memory",
            CudaMemory(is_only_door=door.server.doors_per_node == 1),
        ),
        repository=Repository(door, get_controller),
        controller=ControllerClient(door, get_controller, door_id),
        jobs=jobs or JobsClient(),
    )
