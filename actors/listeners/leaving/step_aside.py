"""How a listener that another library owns leaves a port without losing a call.

First nobody new gets in, then everybody who is in leaves by himself. Only then may the library stop
its server.
"""

from __future__ import annotations

import asyncio
import logging

from actors.listeners.leaving.own_port import OwnPort

logger = logging.getLogger("squadron.leaving")

QUEUE_S = 0.5
"""What the kernel took before nobody was let in any more is accepted in this time."""
LOOK_AGAIN_S = 0.25


async def step_aside(port: int, *, patience_s: float, is_elsewhere: bool = False) -> None:
    """Return when nobody is connected to `port` in this process any more, when no other door is
    there (its callers could go nowhere), or after `patience_s`. `is_elsewhere`: other nodes have
    doors; else only one that listens on this port counts."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + patience_s
    own = OwnPort(port)

    async def is_last() -> bool:
        return not is_elsewhere and not await asyncio.to_thread(own.has_sister)

    if await is_last():
        return
    try:
        await asyncio.to_thread(own.turn_newcomers_away)
        await asyncio.sleep(QUEUE_S)
        await asyncio.to_thread(own.stop_listening)
    except OSError as error:
        # A kernel that forbids filters: the stop will cost what it costs elsewhere.
        logger.warning("port %d is left at once: %s", port, error)
        return
    while loop.time() < deadline_s:
        if not await asyncio.to_thread(own.num_connections) or await is_last():
            return
        await asyncio.sleep(LOOK_AGAIN_S)
    logger.warning("callers stayed connected to port %d for %g s", port, patience_s)
