"""A daemon of a page that speaks the API and knows plain simultaneous open and UDP: it tests the lab.

It refuses everything else. Through NATs that stay silent to strays that is enough. Each request becomes a line of its
log. With --second the initiator is not content before the responder's own message has come back; a request of the
call that --mute names is never answered.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import itertools
import json
import socket
from typing import Any

_ports = itertools.count(30000)
_MARK = "ZTE"


async def _open(request: dict[str, Any], own: int, peer: tuple[str, int]) -> socket.socket:
    udp = request["transport"] == "udp"
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind(("", own))
    await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, peer), request["timeout_ms"] / 1000)
    if udp:
        sock.send(b"")
    return sock


class Caller:
    """One application."""

    def __init__(self, unix: socket.socket, *, second: bool, mute: str) -> None:
        self._unix, self._second, self._mute = unix, second, mute
        self._notified: dict[str, asyncio.Event] = {}

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        text = b""
        tasks = set()
        while more := await loop.sock_recv(self._unix, 65536):
            *lines, text = (text + more).split(b"\n")
            for line in lines:
                print(line.decode(), flush=True)
                task = loop.create_task(self._perform(json.loads(line)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    async def _perform(self, request: dict[str, Any]) -> None:
        match request["call"]:
            case self._mute:
                pass
            case "endpoint":
                self._endpoint(request)
            case "notify":
                self._notified[request["attempt"]].set()
                self._say(request, status="ok")
            case "cancel":
                self._say(request, status="ok")
            case _:
                await self._attempt(request)

    def _say(self, request: dict[str, Any], *descriptors: int, **keys: Any) -> None:
        line = json.dumps({"id": request["id"], **keys}).encode() + b"\n"
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self._unix.sendmsg([line], rights)

    def _endpoint(self, request: dict[str, Any]) -> None:
        host, _, port = request["servers"][0].partition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))
            found = _MARK + probe.getsockname()[0]
        self._say(request, status="progress", stage="found", descriptor=found)

    async def _attempt(self, request: dict[str, Any]) -> None:
        try:
            if request["call"] == "initiate":
                if request["techniques"] not in ("auto", ["tcp-simopen"], ["udp"]):
                    self._say(request, status="error", code="no-common-technique", message="this daemon knows two")
                    return
                self._notified[request["id"]] = asyncio.Event()
                own, peer = next(_ports), (request["peer"].removeprefix(_MARK), next(_ports))
                opening = asyncio.create_task(_open(request, own, peer))
                await asyncio.sleep(0)
                self_ = request["self"].removeprefix(_MARK)
                told = {"self": self_, "own": own, "peer": peer[1], "transport": request["transport"]}
                self._say(request, status="progress", stage="notify", notification=json.dumps(told))
                sock = await opening
                if self._second:
                    await asyncio.wait_for(self._notified[request["id"]].wait(), request["timeout_ms"] / 1000)
            else:
                told = json.loads(request["notification"])
                request["transport"] = told["transport"]
                if self._second:
                    self._say(request, status="progress", stage="notify", notification="and again")
                sock = await _open(request, told["peer"], (told["self"], told["own"]))
        except (OSError, TimeoutError) as error:
            self._say(request, status="error", code="nothing-heard", message=repr(error))
            return
        technique = "udp" if request["transport"] == "udp" else "tcp-simopen"
        self._say(request, sock.fileno(), status="ok", fds=1, technique=technique)
        sock.close()


async def main(path: str, *, second: bool, mute: str) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    listener.setblocking(False)
    clients = set()
    while True:
        unix, _ = await asyncio.get_running_loop().sock_accept(listener)
        unix.setblocking(False)
        client = asyncio.create_task(Caller(unix, second=second, mute=mute).serve())
        clients.add(client)
        client.add_done_callback(clients.discard)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket")
    parser.add_argument("--second", action="store_true")
    parser.add_argument("--mute", default="")
    options = parser.parse_args()
    asyncio.run(main(options.socket, second=options.second, mute=options.mute))
