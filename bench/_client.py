"""One of the two applications of a measurement: asks its punchd for sockets by PROTOCOL.md, exchanges a byte, closes.
Not a client to copy from: it waits by epoll itself, so that what is measured is punchd and not an event loop.

It prints {} when it is ready, begins at a line on stdin, and ends with one JSON line: how many, when, how long each.
Side channel, one line per attempt: `ID SENT_NS NOTIFICATION`, from A and, for a second message, back; A's last one
is `end COUNT`.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import sys
import time
from collections import Counter, deque
from typing import Any

import msgspec

FDS_MAX = 253
ROOM = 1 << 14  # more is rarely there, and more than 128 KiB would be mapped and unmapped for each read
CTRUNC = int(socket.MSG_CTRUNC)  # an operation on an IntFlag takes 2 µs


class Reply(msgspec.Struct):
    id: str
    status: str
    fds: int = 0
    notification: str = ""
    technique: str = ""
    code: str = ""


decode = msgspec.json.Decoder(Reply).decode


class Stream:
    """Lines over a stream socket that is never waited for; what the kernel does not take yet is kept."""

    def __init__(self, sock: socket.socket, poll: select.epoll) -> None:
        sock.setblocking(False)
        self.sock, self.poll = sock, poll
        self.input, self.output, self.fds = b"", bytearray(), deque[int]()
        self.waits = False
        poll.register(sock, select.EPOLLIN)

    def lines(self) -> list[bytes]:
        """What came; descriptors that came along are in `fds`, in order."""
        try:
            data, fds, flags, _ = socket.recv_fds(self.sock, ROOM, FDS_MAX, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return []
        if not data or flags & CTRUNC:
            raise SystemExit("the connection ended, or a descriptor was lost")
        self.fds.extend(fds)
        *lines, self.input = (self.input + data).split(b"\n")
        return lines

    def flush(self) -> None:
        if self.output:
            try:
                del self.output[: self.sock.send(self.output)]
            except BlockingIOError:
                pass
        if self.waits != bool(self.output):
            self.waits = bool(self.output)
            self.poll.modify(self.sock, select.EPOLLIN | (select.EPOLLOUT if self.waits else 0))


class Client:
    """One side of every attempt."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.poll = select.epoll()
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix.connect(options.socket)
        host, _, port = options.side.rpartition(":")
        side = socket.create_connection((host, int(port)), timeout=30)
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.daemon, self.side = Stream(unix, self.poll), Stream(side, self.poll)
        keys = {
            "call": "initiate", "peer": options.peer, "self": options.self, "transport": options.transport,
            "techniques": "auto" if options.techniques == "auto" else options.techniques.split(","),
            "timeout_ms": options.timeout_ms,
        } if options.role == "a" else {"call": "respond", "timeout_ms": options.timeout_ms}  # fmt: skip
        if options.told_ms is not None and options.role == "a":
            keys["side_delay_ms"] = options.told_ms
        if options.early:
            keys["early"] = True
        self.tail = b'",' + json.dumps(keys).encode()[1:-1]
        self.expected = options.count if options.role == "a" else -1
        self.started = self.ended = self.failed = self.told = 0
        self.codes: Counter[str] = Counter()
        self.begun_ns: dict[str, int] = {}
        self.side_ns: list[tuple[str, int]] = []
        self.times: list[tuple[str, int, int]] = []  # id, request written, descriptor in hand

    def run(self) -> dict[str, Any]:
        options, poll, daemon, side = self.options, self.poll, self.daemon, self.side
        unix_fd, side_fd = daemon.sock.fileno(), side.sock.fileno()
        begun_ns = time.monotonic_ns()
        wait_s = -1.0
        while self.ended < self.expected or self.expected < 0:
            if options.role == "a":
                wait_s = self.start(begun_ns)
            daemon.flush()
            side.flush()
            for fd, event in poll.poll(wait_s, 512):
                if fd == unix_fd:
                    if event & ~select.EPOLLOUT:
                        for line in daemon.lines():
                            self.replied(decode(line))
                elif fd == side_fd:
                    if event & ~select.EPOLLOUT:
                        for line in side.lines():
                            self.respond(line)
                else:
                    self.read(fd)
        ended_ns = time.monotonic_ns()
        if options.role == "a":
            side.output += b"end %d\n" % self.told
        while side.output:
            side.flush()
            poll.poll(1)
        return {
            "ok": self.ended - self.failed, "codes": self.codes, "begun_ns": begun_ns, "ended_ns": ended_ns,
            "times": self.times if options.times else [], "side_ns": self.side_ns if options.times else [],
        }  # fmt: skip

    def start(self, begun_ns: int) -> float:
        """Begin what may begin now; how long until the next one may."""
        options = self.options
        if options.rate:
            due = min(self.expected, int((time.monotonic_ns() - begun_ns) / 1e9 * options.rate) + 1)
        else:
            due = min(self.expected, self.ended + options.concurrency)
        if self.started < due:
            output, now_ns = self.daemon.output, time.monotonic_ns()
            for number in range(self.started, due):
                id_ = str(number)
                self.begun_ns[id_] = now_ns
                output += b'{"id":"' + id_.encode() + self.tail + b"}\n"
            self.started = due
        if not options.rate or self.started == self.expected:
            return -1.0
        due_s: float = self.started / options.rate - (time.monotonic_ns() - begun_ns) / 1e9
        return max(0.0, due_s)

    def respond(self, line: bytes) -> None:
        id_, sent_ns, text = line.split(b" ", 2) if not line.startswith(b"end ") else (b"", b"", line[4:])
        if not id_:
            self.expected = int(text)
            return
        now_ns = time.monotonic_ns()
        if self.options.role == "a":  # the responder's second message
            call = b'{"id":"n%b","call":"notify","attempt":"%b","notification":"%b"}\n'
            self.daemon.output += call % (id_, id_, text)
            return
        self.side_ns.append((id_.decode(), now_ns - int(sent_ns)))
        self.begun_ns[id_.decode()] = now_ns
        self.daemon.output += b'{"id":"' + id_ + self.tail + b',"notification":"' + text + b'"}\n'

    def replied(self, reply: Reply) -> None:
        if reply.fds:
            self.times.append((reply.id, self.begun_ns[reply.id], time.monotonic_ns()))
            self.speak(self.daemon.fds.popleft())
        if reply.status == "progress":
            if reply.notification:
                self.told += 1
                line = f"{reply.id} {time.monotonic_ns()} {reply.notification}\n"
                self.side.output += line.encode()
        elif reply.id not in self.begun_ns:
            pass  # to a notify; where it came too late, that is no news
        elif reply.status == "ok":
            self.codes[reply.technique] += 1
            del self.begun_ns[reply.id]
        else:
            self.codes[reply.code] += 1
            self.failed += 1
            self.ended += 1

    def speak(self, fd: int) -> None:
        os.write(fd, b"x")
        if self.options.role == "b":  # whose socket comes first
            self.poll.register(fd, select.EPOLLIN)
            return
        try:
            said = os.read(fd, 16)
        except BlockingIOError:
            self.poll.register(fd, select.EPOLLIN)
            return
        self.close(fd, said)

    def read(self, fd: int) -> None:
        self.poll.unregister(fd)  # closing does not do it as long as the daemon still has its own descriptor
        try:
            said = os.read(fd, 16)
        except OSError as error:
            said = b""
            self.codes[f"read: {error.strerror}"] += 1
        self.close(fd, said)

    def close(self, fd: int, said: bytes) -> None:
        os.close(fd)
        self.ended += 1
        if said != b"x":
            self.failed += 1
            self.codes["no byte"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench._client")
    parser.add_argument("role", choices=["a", "b"])
    parser.add_argument("--socket", required=True)
    parser.add_argument("--side", required=True)
    parser.add_argument("--peer", default="")
    parser.add_argument("--self", default="")
    parser.add_argument("--techniques", default="auto")
    parser.add_argument("--transport", default="tcp")
    parser.add_argument("--timeout-ms", type=int, default=20000)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--told-ms", type=float)
    parser.add_argument("--early", action="store_true")
    parser.add_argument("--times", action="store_true")
    client = Client(parser.parse_args())
    print("{}", flush=True)
    if sys.stdin.readline():
        print(json.dumps(client.run()), flush=True)


if __name__ == "__main__":
    main()
