#!/usr/bin/env python3
"""A naive rendezvous server: peers join under a name, see their own address, and tell each other things.
It refuses to authenticate, to store and to be fair: replace it by whatever your application already has.

JSON lines over TCP, all in memory. `>` is what a peer writes, `<` what it reads:

    > {"name": "anna"}                            join; "endpoint" may hold more than the seen address: a descriptor
    < {"you": "203.0.113.2:50812"}                where the server sees you
    > {"find": "bob"}                             answered as soon as bob is there
    < {"found": "bob", "endpoint": "198.51.100.2:41877"}
    > {"to": "bob", "notification": "cDEB..."}    bob reads:
    < {"from": "anna", "endpoint": "203.0.113.2:50812", "seen": "203.0.113.2:50812", "notification": "cDEB..."}
    < {"error": "..."}                            and the connection ends
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

LINE_MAX_LEN = 65_536


class Peer:
    def __init__(self, name: str, endpoint: str, seen: str, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self.endpoint = endpoint
        self.seen = seen
        self.writer = writer

    def say(self, **keys: str) -> None:
        say(self.writer, **keys)


class Rendezvous:
    def __init__(self) -> None:
        self.peers: dict[str, Peer] = {}
        self.seekers: dict[str, list[Peer]] = {}

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One peer, from joining to leaving."""
        peer = None
        try:
            peer = self.join(await read(reader), writer)
            while keys := await read(reader):
                self.serve(peer, keys)
        except (ValueError, KeyError, ConnectionError) as error:
            say(writer, error=str(error) or type(error).__name__)
        finally:
            if peer is not None:
                self.leave(peer)
            writer.close()

    def join(self, keys: dict[str, Any], writer: asyncio.StreamWriter) -> Peer:
        seen = "{}:{}".format(*writer.get_extra_info("peername")[:2])
        name = str(keys["name"])
        if name in self.peers:
            raise ValueError(f"the name {name} is taken")
        peer = Peer(name, str(keys.get("endpoint", seen)), seen, writer)
        self.peers[name] = peer
        peer.say(you=seen)
        for seeker in self.seekers.pop(name, []):
            seeker.say(found=name, endpoint=peer.endpoint)
        return peer

    def serve(self, peer: Peer, keys: dict[str, Any]) -> None:
        if "find" in keys:
            name = str(keys["find"])
            if name in self.peers:
                peer.say(found=name, endpoint=self.peers[name].endpoint)
            else:
                self.seekers.setdefault(name, []).append(peer)
            return
        to = self.peers.get(str(keys["to"]))
        if to is None:
            raise ValueError(f"{keys['to']} is not here")
        told = {"from": peer.name, "endpoint": peer.endpoint, "seen": peer.seen}
        to.say(**told, notification=str(keys["notification"]))

    def leave(self, peer: Peer) -> None:
        del self.peers[peer.name]
        for name, seekers in list(self.seekers.items()):
            if peer in seekers:
                seekers.remove(peer)
            if not seekers:
                del self.seekers[name]


async def read(reader: asyncio.StreamReader) -> dict[str, Any]:
    """One line; an empty object at the end."""
    line = await reader.readline()
    keys = json.loads(line) if line else {}
    if not isinstance(keys, dict):
        raise ValueError("a line is a JSON object")
    return keys


def say(writer: asyncio.StreamWriter, **keys: str) -> None:
    writer.write(json.dumps(keys).encode() + b"\n")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=7000)
    options = parser.parse_args()
    server = await asyncio.start_server(Rendezvous().meet, options.host, options.port, limit=LINE_MAX_LEN)
    where = server.sockets[0].getsockname()
    print(f"rendezvous at {where[0]}:{where[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
