"""aioice: a Connection on each side, candidates from a STUN server on the way, connectivity checks.
It measures the library as its examples use it: nothing is tuned.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aioice

from bench._peers.talk import Exchange, Options, main

STUN_PORT = 3578
_closing: set[asyncio.Task[None]] = set()


async def attempt(options: Options, number: int, exchange: Exchange) -> None:
    connection = aioice.Connection(
        ice_controlling=options.role == "a", stun_server=(options.stun, STUN_PORT), use_ipv6=False
    )  # fmt: skip
    try:
        await connection.gather_candidates()
        mine = [candidate.to_sdp() for candidate in connection.local_candidates]
        theirs: dict[str, Any] = await exchange(
            {"user": connection.local_username, "word": connection.local_password, "candidates": mine}
        )
        connection.remote_username, connection.remote_password = theirs["user"], theirs["word"]
        for text in theirs["candidates"]:
            await connection.add_remote_candidate(aioice.Candidate.from_sdp(text))
        await connection.add_remote_candidate(None)
        await connection.connect()
        await connection.send(b"x")
        await connection.recv()
    finally:
        # at once, and the peer would miss the answer to its last check
        task = asyncio.create_task(_close_late(connection), name=f"close {number}")
        _closing.add(task)
        task.add_done_callback(_closing.discard)


async def _close_late(connection: aioice.Connection) -> None:
    await asyncio.sleep(0.3)
    await connection.close()


if __name__ == "__main__":
    main(attempt)
