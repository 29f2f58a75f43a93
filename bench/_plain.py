"""The baseline of a measurement: plain connections by uvloop, one byte each way, close; server or client.
Not the fastest there can be (_plain.c is faster): what an application would write that needs no punching.

    python -m bench._plain server PORT PORTS            prints "ready"
    python -m bench._plain client ADDRESS PORT PORTS COUNT CONCURRENCY  prints seconds, and those of processor
"""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from typing import cast

import uvloop

BACKLOG = 4096


class Ends(asyncio.Protocol):
    """Either end: says its byte, waits for the other's, closes."""

    transport: asyncio.Transport

    def __init__(self, done: asyncio.Future[bytes] | None = None) -> None:
        self.done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by what it can do, not by its class
        self.transport.write(b"x")

    def data_received(self, data: bytes) -> None:
        self.transport.close()
        if self.done is not None:
            self.done.set_result(data)


async def serve(port: int, ports: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Ends, "0.0.0.0", port + number, backlog=BACKLOG) for number in range(ports)]
    print("ready", flush=True)
    await servers[0].serve_forever()


async def connect(address: str, port: int, *, ports: int, count: int, concurrency: int) -> None:
    loop = asyncio.get_running_loop()
    numbers = iter(range(count))

    async def one_after_another() -> None:
        for number in numbers:
            done: asyncio.Future[bytes] = loop.create_future()
            await loop.create_connection(partial(Ends, done), address, port + number % ports)
            assert await done == b"x"

    begun, used = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for number in range(concurrency):
            group.create_task(one_after_another(), name=f"connections {number}")
    print(time.perf_counter() - begun, time.process_time() - used, flush=True)


def main(role: str, *words: str) -> None:
    if role == "server":
        uvloop.run(serve(*map(int, words)))
    else:
        port, ports, count, concurrency = map(int, words[1:])
        uvloop.run(connect(words[0], port, ports=ports, count=count, concurrency=concurrency))


if __name__ == "__main__":
    main(*sys.argv[1:])
