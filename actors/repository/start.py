"""The application's controller, found or started."""

from __future__ import annotations

from typing import cast

import ray
from ray.actor import ActorHandle

from actors.controller import Controller
from actors.repository.names import NAMESPACE, controller_name


def get_or_start_controller(app: str) -> ActorHandle[Controller]:
    """Started here when there is none. Ray restarts it for ever."""
    actor = ray.remote(Controller)
    return cast(
        "ActorHandle[Controller]",
        actor.options(
            name=controller_name(app),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=1000,
            num_cpus=0,
        ).remote(app),
    )
