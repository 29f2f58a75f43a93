"""A caller of the naive rendezvous server in examples/: join under a name, find a peer, tell it things.
It refuses to be secure or durable: it is for trying things out, and for punchctl cat."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any

LINE_MAX_LEN = 65_536

_Heard = dict[str, Any] | Exception


class MeetingError(Exception):
    """The rendezvous server refused, or is gone."""


@dataclass(frozen=True, slots=True)
class Told:
    """A peer's notification, with what that peer left as its endpoint and where the server sees it."""

    sender: str
    endpoint: str
    seen: str
    notification: str


class Meeting:
    """`async with Meeting("192.0.2.1", 7000, "anna") as meeting`; `meeting.you` is how the server sees us.

    `endpoint` is what peers find us by, the descriptor that `endpoint` of punchd gave; without it, `you`.
    """

    def __init__(self, host: str, port: int, name: str, *, endpoint: str | None = None) -> None:
        self._where = host, port
        self._name = name
        self._endpoint = endpoint
        self.you = self.endpoint = ""

    async def __aenter__(self) -> Meeting:
        try:
            self._reader, self._writer = await asyncio.open_connection(*self._where, limit=LINE_MAX_LEN)
        except OSError as error:
            host, port = self._where
            raise MeetingError(f"no rendezvous server at {host}:{port}: {error}") from None
        self._found: asyncio.Queue[_Heard] = asyncio.Queue()
        self._told: asyncio.Queue[_Heard] = asyncio.Queue()
        await self._say(name=self._name, endpoint=self._endpoint)
        self.you = str((await self._line())["you"])
        self.endpoint = self._endpoint or self.you
        self._sorting = asyncio.create_task(self._sort(), name=f"meeting {self._name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sorting.cancel()
        self._writer.close()

    async def find(self, name: str) -> str:
        """The endpoint of a peer, as soon as it is there. One search at a time."""
        await self._say(find=name)
        return str(_there(await self._found.get())["endpoint"])

    async def tell(self, name: str, notification: str) -> None:
        """Carry a notification to a peer."""
        await self._say(to=name, notification=notification)

    async def hear(self) -> Told:
        """The next notification for us."""
        line = _there(await self._told.get())
        return Told(str(line["from"]), str(line["endpoint"]), str(line["seen"]), str(line["notification"]))

    async def _say(self, **keys: str | None) -> None:
        spelt = {key: value for key, value in keys.items() if value is not None}
        self._writer.write(json.dumps(spelt).encode() + b"\n")
        await self._writer.drain()

    async def _line(self) -> dict[str, Any]:
        line = await self._reader.readline()
        if not line:
            raise MeetingError("the rendezvous server closed the connection")
        keys: dict[str, Any] = json.loads(line)
        if "error" in keys:
            raise MeetingError(f"the rendezvous server says: {keys['error']}")
        return keys

    async def _sort(self) -> None:
        """Answers to find() and notifications come in any order."""
        while True:
            try:
                keys = await self._line()
            except (MeetingError, OSError, ValueError) as error:
                self._found.put_nowait(error)
                self._told.put_nowait(error)
                return
            (self._found if "found" in keys else self._told).put_nowait(keys)


def address_of(endpoint: str) -> str:
    """Without the port: it belongs to the rendezvous connection, not to anything that punchd will open.

    A descriptor has none, and stays whole.
    """
    return endpoint.partition(":")[0]


def _there(heard: _Heard) -> dict[str, Any]:
    if isinstance(heard, Exception):
        raise MeetingError(str(heard))
    return heard
