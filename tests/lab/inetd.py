"""inetd over punched connections: waits at a rendezvous, gives a program the socket as stdin and stdout.

It refuses a second caller: `inetd.py PUNCHD-SOCKET HOST:PORT NAME PROGRAM ...` becomes the program.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from punchd.client import connect
from punchd.meeting import Meeting, address_of


async def punched(path: str, place: str, name: str) -> socket.socket:
    """The first caller's connection."""
    host, _, port = place.rpartition(":")
    async with Meeting(host, int(port), name) as meeting, connect(path) as daemon:
        print("ready", flush=True)
        told = await meeting.hear()
        attempt = await daemon.respond(told.notification, from_=[address_of(told.seen)])
        return (await attempt.result()).socket


if __name__ == "__main__":
    sock = asyncio.run(punched(*sys.argv[1:4]))
    sock.setblocking(True)
    for stream in (0, 1):
        os.dup2(sock.fileno(), stream)
    os.execvp(sys.argv[4], sys.argv[4:])
