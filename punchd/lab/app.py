"""The lab's application, one process per host: asks its punchd for sockets, carries notifications and data.

It refuses to know the network: peers' addresses come from the side channel, the order to start a run from
stdin (one number a line), and each run's result leaves on stdout as one JSON line.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import itertools
import json
import socket
import sys
import time
from typing import Any

import uvloop

from .transfer import TransferError, exchange

_LINE_MAX = 65536
_GRACE_S = 3.0  # a daemon that says nothing this long after its own deadline hangs
_ENDPOINT_S = 6.0  # PROTOCOL.md: what `endpoint` may take
_PEER_S = 30.0  # for the peer's next word, beyond what an attempt may take: its endpoint, and a slow side channel


class Lines:
    """JSON lines over a socket, in both directions; descriptors that come along stay with their line."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._text = b""
        self._fds: list[int] = []
        self._queues: dict[Any, asyncio.Queue[dict[str, Any]]] = {}
        self._ended = False
        asyncio.get_running_loop().add_reader(sock, self._read)

    async def write(self, line: dict[str, Any]) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, json.dumps(line).encode() + b"\n")

    def queue(self, key: Any) -> asyncio.Queue[dict[str, Any]]:
        """Where lines of one request (by id) or one run go."""
        if key not in self._queues:
            self._queues[key] = asyncio.Queue()
            if self._ended:
                self._queues[key].put_nowait(_ENDED)
        return self._queues[key]

    def _read(self) -> None:
        # recvmsg(2): a plain recv would lose the descriptors silently
        text, ancillary, _, _ = self._sock.recvmsg(
            _LINE_MAX, socket.CMSG_SPACE(64 * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        )
        now_ns = time.monotonic_ns()
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._fds.extend(array.array("i", data))
        if not text:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._ended = True
            for queue in self._queues.values():
                queue.put_nowait(_ENDED)
            return
        *lines, self._text = (self._text + text).split(b"\n")
        for raw in lines:
            line = json.loads(raw)
            line["now_ns"] = now_ns
            if line.get("fds"):
                line["socket"] = socket.socket(fileno=self._fds.pop(0))
            self.queue(line["id"] if "id" in line else line.get("run")).put_nowait(line)


_ENDED = {"status": "error", "code": "connection-lost", "message": "it ended"}


class Unprepared(Exception):
    """A run that ended before its attempt could begin."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Application:
    """One side of every run."""

    def __init__(self, options: argparse.Namespace, daemon: Lines, side: Lines) -> None:
        self._options, self._daemon, self._side = options, daemon, side
        self._own = self._peer = ""
        self._told: set[int] = set()
        """The runs of which the peer has heard something: it waits for a word of each."""

    async def meet(self) -> None:
        """Sit down at the side channel and wait for the other."""
        greeting = {"join": self._options.role}
        if self._options.endpoint == "join":
            greeting["descriptor"] = (await self._keep_endpoint("e"))["descriptor"]
        await self._side.write(greeting)
        seat = await self._from_peer(None, "its seat")
        self._own, self._peer = greeting.get("descriptor", seat["you"]), seat.get("descriptor", seat["peer"])

    async def run(self, number: int) -> dict[str, Any]:
        """One attempt from first line to last byte; what came of it."""
        try:
            return await self._run(number)
        finally:
            if self._options.role == "a" and number not in self._told:
                await self._side.write({"run": number, "text": ""})
            if self._options.endpoint == "run":
                id_ = f"{self._options.role}{number}"
                await self._daemon.write({"id": f"{id_}.x", "call": "cancel", "attempt": f"{id_}.e"})

    async def _run(self, number: int) -> dict[str, Any]:
        result: dict[str, Any] = {"run": number, "ok": False, "failed": []}
        try:
            attempt = await (self._initiate(number) if self._options.role == "a" else self._respond(number))
        except Unprepared as error:
            return result | {"code": error.code, "message": str(error)}
        result["t0_ns"] = time.monotonic_ns()
        await self._daemon.write(attempt)
        id_ = attempt["id"]
        relay = asyncio.create_task(self._relay(number, id_), name=f"relay {number}")
        sock = None
        try:
            async with asyncio.timeout(self._options.timeout_ms / 1000 + _GRACE_S):
                sock = await self._follow(number, id_, result)
            if sock is not None:
                await exchange(sock, patience_s=self._options.patience_s)
                result["ok"] = True
        except TimeoutError:
            result["code"] = "daemon-hangs"
        except TransferError as error:
            result |= {"code": "no-data", "message": str(error)}
        finally:
            relay.cancel()
            if sock is not None:
                sock.close()
        return result

    async def _initiate(self, number: int) -> dict[str, Any]:
        options = self._options
        own, peer = self._own, self._peer
        if options.endpoint == "run":
            own = await self._own_endpoint(number)
            peer = (await self._from_peer(number, "descriptor"))["descriptor"]
            if not peer:
                raise Unprepared("no-descriptor", "the peer has found no endpoint")
        request = {
            "id": f"a{number}",
            "call": "initiate",
            "peer": peer,
            "self": own,
            "transport": options.transport,
            "techniques": "auto" if options.techniques == "auto" else options.techniques.split(","),
            "timeout_ms": options.timeout_ms,
        }
        more = {"early": True} if options.early else {}
        return request | more | ({} if options.side_delay_ms is None else {"side_delay_ms": options.side_delay_ms})

    async def _respond(self, number: int) -> dict[str, Any]:
        if self._options.endpoint == "run":
            await self._own_endpoint(number)
        first = await self._from_peer(number, "notification")
        if not first["text"]:
            raise Unprepared("no-notification", "the peer had none to give")
        return {
            "id": f"b{number}",
            "call": "respond",
            "notification": first["text"],
            "timeout_ms": self._options.timeout_ms,
        }

    async def _from_peer(self, key: int | None, what: str) -> dict[str, Any]:
        """The next line of the side channel. Unprepared: none came, for the peer or the channel is silent."""
        patience_s = self._options.timeout_ms / 1000 + _PEER_S
        try:
            line = await asyncio.wait_for(self._side.queue(key).get(), patience_s)
        except TimeoutError:
            raise Unprepared("peer-silent", f"the peer sent no {what} within {patience_s:g} s") from None
        if line is _ENDED:
            raise Unprepared("side-channel-lost", f"the side channel ended before the peer's {what} came")
        return line

    async def _own_endpoint(self, number: int) -> str:
        """A fresh one for this run: runs that are open together can't share a port, and samples grow old."""
        role = self._options.role
        descriptor = ""
        try:
            descriptor = str((await self._keep_endpoint(f"{role}{number}.e"))["descriptor"])
        finally:
            if role == "b":  # the peer waits for this line, whatever came of it
                await self._side.write({"run": number, "descriptor": descriptor})
        return descriptor

    async def _keep_endpoint(self, id_: str) -> dict[str, Any]:
        request = {"id": id_, "call": "endpoint", "keep": True, "servers": [self._options.stun]}
        await self._daemon.write(request | {"transport": self._options.transport})
        try:
            async with asyncio.timeout(_ENDPOINT_S + _GRACE_S):
                while (reply := await self._daemon.queue(id_).get())["status"] == "progress":
                    if reply["stage"] == "found":
                        return reply
        except TimeoutError:
            silent_s = _ENDPOINT_S + _GRACE_S
            raise Unprepared("endpoint-hangs", f"the daemon's `endpoint` was not over after {silent_s:g} s") from None
        code = reply["code"]
        if code == "no-answer":  # a cell keeps its codes alone
            code = ": ".join([code, *(one["cause"] for side in reply["cause"].values() for one in side["silent"])])
        raise Unprepared(code, reply["message"])

    async def _relay(self, number: int, attempt: str) -> None:
        """Hand the peer's later messages to the open attempt."""
        for count in itertools.count():
            line = await self._side.queue(number).get()
            if line is _ENDED:
                return
            await self._daemon.write(
                {
                    "id": f"{attempt}.{count}",
                    "call": "notify",
                    "attempt": attempt,
                    "notification": line["text"],
                }
            )

    async def _follow(self, number: int, id_: str, result: dict[str, Any]) -> socket.socket | None:
        """Read replies to the final one; the socket, if there is one."""
        sock: socket.socket | None = None
        while True:
            reply = await self._daemon.queue(id_).get()
            if "socket" in reply:
                sock = reply["socket"]
                result["ready_ns"] = reply["now_ns"]
            if reply["status"] == "progress":
                if reply.get("notification"):
                    await self._side.write({"run": number, "text": reply["notification"]})
                    self._told.add(number)
                if reply.get("code"):
                    result["failed"].append([reply.get("technique", ""), reply["code"]])
            elif reply["status"] == "ok":
                result |= {key: reply[key] for key in ("technique", "local", "remote", "tries") if key in reply}
                return sock
            else:
                result |= {key: reply[key] for key in ("code", "message", "cause") if key in reply}
                if sock is not None:
                    sock.close()
                return None


async def main(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.connect(options.socket)
    host, _, port = options.side.rpartition(":")
    side = socket.create_connection((host, int(port)), timeout=30)
    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    application = Application(options, Lines(unix), Lines(side))
    await application.meet()
    print("{}", flush=True)
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)

    async def perform(number: int) -> None:
        print(json.dumps(await application.run(number)), flush=True)

    async with asyncio.TaskGroup() as group:
        while line := await orders.readline():
            group.create_task(perform(int(line)), name=f"run {int(line)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="punchd.lab.app")
    parser.add_argument("role", choices=["a", "b"])
    parser.add_argument("--socket", required=True)
    parser.add_argument("--side", required=True)
    parser.add_argument("--transport", choices=["tcp", "udp"], default="tcp")
    parser.add_argument("--techniques", default="auto")
    parser.add_argument("--timeout-ms", type=int, default=10000)
    parser.add_argument("--patience-s", type=float, default=5.0)
    parser.add_argument("--early", action="store_true")
    parser.add_argument("--endpoint", choices=["no", "join", "run"], default="no")
    parser.add_argument("--stun", help="whom to ask for endpoints")
    parser.add_argument("--side-delay-ms", type=float, help="what to tell punchd of the side channel")
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(main(_options()))
