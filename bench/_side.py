"""The side channel of a measurement: what comes in by one TCP connection leaves by the other, some time later.
Not the lab's: it understands nothing, so that it costs as little as a side channel can.

    python -m bench._side ADDRESS PORT DELAY_MS
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque


def main(address: str, port: int, delay_ms: float) -> None:
    with socket.create_server((address, port)) as server:
        print("ready", flush=True)
        while True:
            (one, _), (other, _) = server.accept(), server.accept()
            _carry(one, other, int(delay_ms * 1e6))


def _carry(one: socket.socket, other: socket.socket, delay_ns: int) -> None:
    poll = select.epoll()
    across = {one.fileno(): other, other.fileno(): one}
    sources = {one.fileno(): one, other.fileno(): other}
    for sock in (one, other):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(sock, select.EPOLLIN)
    late: deque[tuple[int, socket.socket, bytes]] = deque()
    ended = 0
    while ended < 2 or late:
        # epoll waits whole milliseconds; the rest is spun away where a delay is asked for
        wait_s = max(0, late[0][0] - time.monotonic_ns() - 1_000_000) / 1e9 if late else -1
        for fd, _ in poll.poll(wait_s):
            data = _read(sources[fd])
            if not data:
                poll.unregister(fd)
                across[fd].shutdown(socket.SHUT_WR)
                ended += 1
            elif delay_ns:
                late.append((time.monotonic_ns() + delay_ns, across[fd], data))
            else:
                _write(across[fd], data)
        while late and late[0][0] <= time.monotonic_ns():
            _, sock, data = late.popleft()
            _write(sock, data)
    one.close()
    other.close()


def _read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 18)
    except ConnectionResetError:
        return b""


def _write(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except OSError:
        pass  # that side is gone; its reading end says so


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
