"""What all peers' programs share: signalling over a Unix socket, which costs next to nothing, and the report.
Punches nothing itself.

    python -m bench._peers.NAME {a|b} PATH COUNT CONCURRENCY TIMEOUT_S OWN_ADDRESS PEER_ADDRESS STUN_ADDRESS

Side b listens at PATH. Both print one JSON line at the end: how many attempts went well, their times from the first
step to a word from the peer, the seconds from first to last, the CPU seconds and the greatest resident size.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

_LIMIT = 1 << 20
LINGER_S = 1.0
"""After the last attempt: the other side may still wait for an answer."""


@dataclass(frozen=True, slots=True)
class Options:
    role: str
    path: str
    count: int
    concurrency: int
    timeout_s: float
    own: str
    peer: str
    stun: str

    @classmethod
    def read(cls) -> Options:
        role, path, count, concurrency, timeout_s, own, peer, stun = sys.argv[1:9]
        return cls(role, path, int(count), int(concurrency), float(timeout_s), own, peer, stun)


Exchange = Callable[[Any], Awaitable[Any]]
"""Give the other side something for this attempt and get what it gives."""
Attempt = Callable[[Options, int, Exchange], Awaitable[None]]
"""One attempt with its number, until a word of the peer has come over the punched path; OSError if none does."""


class Talk:
    def __init__(self, options: Options, attempt: Attempt) -> None:
        self._options, self._attempt = options, attempt
        self._heard: dict[int, asyncio.Future[Any]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._times_s: list[float] = []
        self._ended = 0
        self._free = asyncio.Semaphore(options.concurrency)
        self._all = asyncio.Event()

    async def run(self) -> None:
        reader, self._writer = await self._meet()
        listening = asyncio.create_task(self._listen(reader), name="signalling")
        begun, used = time.perf_counter(), time.process_time()
        if self._options.role == "a":
            for number in range(self._options.count):
                await self._free.acquire()
                self._begin(number)
        await self._all.wait()
        seconds, cpu_s = time.perf_counter() - begun, time.process_time() - used
        await asyncio.sleep(LINGER_S)
        listening.cancel()
        print(
            json.dumps(
                {
                    "ok": len(self._times_s), "times_ms": [round(1000 * one, 2) for one in self._times_s],
                    "seconds": seconds, "cpu_s": cpu_s,
                    "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                }
            ),
            flush=True,
        )  # fmt: skip

    def _begin(self, number: int) -> None:
        task = asyncio.create_task(self._perform(number), name=f"attempt {number}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _perform(self, number: int) -> None:
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(self._options.timeout_s):
                await self._attempt(self._options, number, lambda mine: self._exchange(number, mine))
            self._times_s.append(time.perf_counter() - begun)
        except OSError:  # TimeoutError is one
            pass
        self._free.release()
        self._ended += 1
        if self._ended == self._options.count:
            self._all.set()

    async def _exchange(self, number: int, mine: Any) -> Any:
        self._writer.write(json.dumps([number, mine]).encode() + b"\n")
        return await self._future(number)

    def _future(self, number: int) -> asyncio.Future[Any]:
        if number not in self._heard:
            self._heard[number] = asyncio.get_running_loop().create_future()
        return self._heard[number]

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            number, theirs = json.loads(line)
            known = number in self._heard
            if not self._future(number).done():
                self._future(number).set_result(theirs)
            if self._options.role == "b" and not known:
                self._begin(number)

    async def _meet(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._options.role == "a":
            return await asyncio.open_unix_connection(self._options.path, limit=_LIMIT)
        met: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        met = asyncio.get_running_loop().create_future()
        await asyncio.start_unix_server(lambda *pair: met.set_result(pair), self._options.path, limit=_LIMIT)
        print("ready", flush=True)
        return await met


def main(attempt: Attempt) -> None:
    import uvloop

    async def run() -> None:
        await Talk(Options.read(), attempt).run()

    uvloop.run(run())
