"""The lab's side channel: a rendezvous server that tells two applications of each other and carries words.

It refuses to understand what it carries. JSON lines over TCP, one lasting connection per application:

    > {"join": "a"}                    < {"you": "203.0.113.2", "peer": "198.51.100.2"}   once both are there
    > {"run": 3, "text": "..."}        the other side < {"run": 3, "text": "..."}          after the delay

With {"join": "a", "descriptor": "ZTE..."} the other one's introduction says "descriptor": "ZTE..." too.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop


class Channel:
    """Two seats; a line from one goes to the other, in order and late by `delay_s`."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._seats: dict[str, asyncio.StreamWriter] = {}
        self._descriptors: dict[str, str] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One application's connection, from its join to its end."""
        joining = await _line(reader)
        if not joining:
            writer.close()
            return
        greeting = json.loads(joining)
        name = greeting["join"]
        self._seats[name] = writer
        if "descriptor" in greeting:
            self._descriptors[name] = greeting["descriptor"]
        if len(self._seats) == 2:
            self._introduce()
        while line := await _line(reader):
            # call_later keeps the order of equal delays
            asyncio.get_running_loop().call_later(self._delay_s, self._carry, name, line)
        writer.close()

    def _introduce(self) -> None:
        places = {name: seat.get_extra_info("peername")[0] for name, seat in self._seats.items()}
        for name, seat in self._seats.items():
            (peer,) = (other for other in places if other != name)
            line = {"you": places[name], "peer": places[peer]}
            if peer in self._descriptors:
                line["descriptor"] = self._descriptors[peer]
            seat.write(json.dumps(line).encode() + b"\n")

    def _carry(self, name: str, line: bytes) -> None:
        for other, seat in self._seats.items():
            if other != name and not seat.is_closing():
                seat.write(line)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """What an application says next; nothing when it is gone, however it went."""
    try:
        return await reader.readline()
    except ConnectionResetError:
        return b""


async def main(address: str, port: int, delay_ms: float) -> None:
    channel = Channel(delay_ms / 1000)
    server = await asyncio.start_server(channel.serve, address, port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        uvloop.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    except KeyboardInterrupt:
        pass
