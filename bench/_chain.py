"""What takes punchd's place when the machine itself is measured: it passes on the same messages, and does no more.
Punches nothing. The applications, the side channel and the way through the NATs are those of a real measurement, and
a hand-over wakes up as many processes. What it takes beyond the limit is the machine's, not punchd's.

    python -m bench._chain SOCKET PEER_ADDRESS

It says "ready" when datagrams pass both ways. A notification is the id alone; then, as in each technique:

    B  SIGNAL ->  A        B  <- ANSWER  A        B  COMMIT ->  A        B's hand-over at ANSWER, A's at COMMIT
"""

from __future__ import annotations

import select
import socket
import sys
from collections import deque

import msgspec

PORT = 7001
SIGNAL, ANSWER, COMMIT, OPEN = b"SACO"
KEPT = 256
"""Far ends of what was handed over, until their applications must have closed theirs."""


class Request(msgspec.Struct):
    id: str
    call: str
    notification: str = ""


decode = msgspec.json.Decoder(Request).decode


def main(path: str, peer: str) -> None:
    flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flow.bind(("", PORT))
    flow.connect((peer, PORT))
    _open(flow)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            caller, _ = listener.accept()
            with caller:
                _serve(caller, flow)


def _serve(caller: socket.socket, flow: socket.socket) -> None:
    poll, rest, kept = select.epoll(), b"", deque[socket.socket](maxlen=KEPT)
    poll.register(caller, select.EPOLLIN)
    poll.register(flow, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == flow.fileno():
                said = flow.recv(100)
                if said[0] == SIGNAL:
                    flow.send(bytes([ANSWER]) + said[1:])
                elif said[0] == ANSWER:
                    flow.send(bytes([COMMIT]) + said[1:])
                if said[0] in (ANSWER, COMMIT):
                    kept.append(_hand_over(caller, said[1:].decode()))
                continue
            data = caller.recv(1 << 18)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for request in map(decode, lines):
                if request.call == "initiate":
                    line = {"id": request.id, "status": "progress", "notification": request.id}
                    caller.sendall(msgspec.json.encode(line) + b"\n")
                else:
                    flow.send(bytes([SIGNAL]) + request.id.encode())


def _hand_over(caller: socket.socket, id_: str) -> socket.socket:
    """A socket that has the peer's byte to read already; its far end."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far.send(b"x")
    near.setblocking(False)
    line = {"id": id_, "status": "ok", "fds": 1, "technique": "chain"}
    with near:
        socket.send_fds(caller, [msgspec.json.encode(line) + b"\n"], [near.fileno()])
    return far


def _open(flow: socket.socket) -> None:
    """Each NAT lets the other's datagrams in once its own host has sent one."""
    flow.settimeout(0.05)
    left = 5  # more of them once the peer was heard, for it may have heard none yet
    while left:
        flow.send(bytes([OPEN]))
        try:
            left -= bool(flow.recv(100))
        except (TimeoutError, ConnectionRefusedError):
            left -= left < 5
    flow.settimeout(None)


if __name__ == "__main__":
    main(*sys.argv[1:])
