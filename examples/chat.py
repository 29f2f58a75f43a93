#!/usr/bin/env python3
"""A chat in a page of code: what one types the other reads, over a punched TCP connection or UDP flow.
It refuses to encrypt, and over UDP to repeat: a line is a datagram there, an empty one says goodbye.

    chat.py 192.0.2.1:7000 bob                                  waits to be called
    chat.py 192.0.2.1:7000 anna bob                             calls bob
    chat.py 192.0.2.1:7000 anna bob --udp
    chat.py 192.0.2.1:7000 anna bob --technique tcp-syni --technique tcp-simopen
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys

import punchd.client
from punchd.meeting import Meeting, address_of


async def punch(options: argparse.Namespace) -> punchd.client.Punched:
    """Meet, agree, and have a socket: the part that is punchd's."""
    host, _, port = options.rendezvous.rpartition(":")
    async with Meeting(host, int(port), options.me) as meeting, punchd.client.connect() as daemon:
        if options.peer:
            attempt = await daemon.initiate(
                peer=address_of(await meeting.find(options.peer)),
                self_=address_of(meeting.you),
                transport="udp" if options.udp else "tcp",
                techniques=options.technique or None,
            )
        else:
            told = await meeting.hear()
            attempt = await daemon.respond(told.notification, from_=[address_of(told.seen)])
        async for progress in attempt:
            say(progress.stage, progress.technique, progress.code)
            if progress.notification and options.peer:
                await meeting.tell(options.peer, progress.notification)
        return await attempt.result()


async def talk(sock: socket.socket) -> None:
    """stdin to the peer, the peer to stdout, until both have said all."""
    loop = asyncio.get_running_loop()
    typed = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(typed), sys.stdin)

    async def send() -> None:
        while line := await typed.readline():
            await loop.sock_sendall(sock, line)
        if sock.type == socket.SOCK_STREAM:
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.send(b"")

    sending = asyncio.create_task(send(), name="typed")
    while heard := await loop.sock_recv(sock, 65536):
        sys.stdout.buffer.write(heard)
        sys.stdout.flush()
    await sending


async def chat(options: argparse.Namespace) -> None:
    punched = await punch(options)
    say("punched", punched.technique, punched.local, ">", punched.remote, f"{punched.elapsed_ms:.1f}", "ms")
    with punched.socket as sock:
        await talk(sock)


def say(*words: str) -> None:
    """stdout is the peer's."""
    print(*filter(None, words), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A chat over a punched connection.")
    parser.add_argument("rendezvous", metavar="HOST:PORT", help="a server like rendezvous.py")
    parser.add_argument("me", help="our name there")
    parser.add_argument("peer", nargs="?", help="whom to call; without: wait to be called")
    parser.add_argument("--udp", action="store_true", help="a UDP flow instead of a TCP connection")
    parser.add_argument("--technique", action="append", metavar="NAME", help="instead of auto; in this order")
    asyncio.run(chat(parser.parse_args()))


if __name__ == "__main__":
    try:
        main()
    except (punchd.client.PunchFailed, punchd.client.NoDaemon) as failed:
        sys.exit(f"no connection: {failed}")
    except KeyboardInterrupt:
        pass
