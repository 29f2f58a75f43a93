#!/usr/bin/env python3
"""A peer in a page of code: send a file over a punched connection, or receive one.
It refuses to encrypt and to resume; the socket is as plain as any TCP connection.

    sendfile.py 192.0.2.1:7000 receive bob  photo.jpg
    sendfile.py 192.0.2.1:7000 send anna bob photo.jpg
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import punchd.client
from punchd.meeting import Meeting, address_of


async def send(host: str, port: int, me: str, peer: str, path: str) -> None:
    async with Meeting(host, port, me) as meeting, punchd.client.connect() as daemon:
        attempt = await daemon.initiate(peer=address_of(await meeting.find(peer)), self_=address_of(meeting.you))
        await meeting.tell(peer, await attempt.notification())
        punched = await attempt.result()
    print(f"{punched.technique} to {punched.remote} in {punched.elapsed_ms:.0f} ms")
    _, writer = await asyncio.open_connection(sock=punched.socket)
    writer.write(await asyncio.to_thread(Path(path).read_bytes))
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def receive(host: str, port: int, me: str, path: str) -> None:
    async with Meeting(host, port, me) as meeting, punchd.client.connect() as daemon:
        told = await meeting.hear()
        attempt = await daemon.respond(told.notification, from_=[address_of(told.seen)])
        punched = await attempt.result()
    print(f"{punched.technique} from {punched.remote} in {punched.elapsed_ms:.0f} ms")
    reader, writer = await asyncio.open_connection(sock=punched.socket)
    content = await reader.read()
    writer.close()
    await asyncio.to_thread(Path(path).write_bytes, content)
    print(f"{len(content)} bytes in {path}")


def main() -> None:
    rendezvous, verb, *names = sys.argv[1:] or ["", ""]
    host, _, port = rendezvous.rpartition(":")
    match verb, names:
        case "send", [me, peer, path]:
            asyncio.run(send(host, int(port), me, peer, path))
        case "receive", [me, path]:
            asyncio.run(receive(host, int(port), me, path))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except punchd.client.PunchFailed as failed:
        sys.exit(f"no connection: {failed}")
