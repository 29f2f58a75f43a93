"""Plain TCP simultaneous open, as the papers have it: both sides connect at once, and again when refused.
It has no proof, no prediction and no interface; ports are agreed on by their numbers.
"""

from __future__ import annotations

import asyncio
import socket

from bench._peers.talk import Exchange, Options, main

FIRST_PORT = 10_000
RETRY_S = 0.01


async def attempt(options: Options, number: int, exchange: Exchange) -> None:
    port = FIRST_PORT + number
    await exchange("go")
    with await _connected(options, port) as sock:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, b"x")
        if await loop.sock_recv(sock, 1) != b"x":
            raise ConnectionResetError


async def _connected(options: Options, port: int) -> socket.socket:
    while True:
        sock = socket.socket()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((options.own, port))
            await asyncio.get_running_loop().sock_connect(sock, (options.peer, port))
        except (ConnectionError, asyncio.CancelledError) as error:
            sock.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            await asyncio.sleep(RETRY_S)
        else:
            return sock


if __name__ == "__main__":
    main(attempt)
