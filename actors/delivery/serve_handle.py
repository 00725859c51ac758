"""Serve's handle of a deployment, found at its first use.

To find one asks Serve's controller and waits for it (Ray 2.60: `ray.get`), so it is done in a
thread; and the deployment of a model that is being loaded is not known there yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ray import serve

from cluster.errors import NoReadyReplica

Find = Callable[[str, str], Any]
"""Deployment and application -> Serve's handle. Raises: KeyError for one that Serve has not."""


class ServeHandle:
    """Of one method; lives on one event loop. `options`: see Serve's `DeploymentHandle.options`."""

    def __init__(
        self,
        deployment: str,
        app: str,
        *,
        find: Find = serve.get_deployment_handle,
        **options: Any,
    ) -> None:
        self._deployment = deployment
        self._app = app
        self._find = find
        self._options = options
        self._found: Any = None
        # One thread at a time waits for a controller that may be away for long.
        self._turn = asyncio.Lock()

    async def get(self) -> Any:
        """Raises: NoReadyReplica while Serve has no such deployment."""
        if self._found is None:
            async with self._turn:
                if self._found is None:
                    self._found = await asyncio.to_thread(self._made)
        return self._found

    def _made(self) -> Any:
        try:
            handle = self._find(self._deployment, self._app)
        except KeyError:
            raise NoReadyReplica(
                f"'{self._deployment}' is not at ready state: it is being deployed",
                retry_after_s=1,
            ) from None
        # `options` connects the handle, which asks Ray once more.
        return handle.options(**self._options)
