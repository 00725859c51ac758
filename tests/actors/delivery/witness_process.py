"""A replica of `tests.witness_model` in a process of its own.

python -m tests.actors.delivery.witness_process FOLDER SOCKET
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from actors.delivery.node_link import NodeListener
from actors.model_replica import ModelReplica, ReplicaSetup
from cluster.config.model_card import ModelCard
from cluster.config.variant import BatchingConfig

TENSOR = {"datatype": "FP32", "shape": [-1, 1]}


async def main(folder: Path, socket: Path) -> None:
    card = ModelCard.model_validate(
        {
            "name": "witness",
            "format": "python",
            "python_class": "tests.witness_model:Witness",
            "signature": {
                "inputs": [{"name": "x", **TENSOR}],
                "outputs": [{"name": "y", **TENSOR}],
            },
        }
    )
    setup = ReplicaSetup(
        variant="witness",
        card=card,
        folder=folder,
        engine="python",
        device="cpu",
        threads=1,
        is_processed=True,
        batching=BatchingConfig(max_batch_size=4),
        options={"folder": str(folder)},
    )
    replica = ModelReplica(setup, metrics_at=folder / "metrics")
    await NodeListener(socket, replica.infer).start()
    await asyncio.Event().wait()


asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
