"""A daemon of a page that speaks the API and knows plain simultaneous open and UDP: it tests the lab.

It refuses everything else. Through NATs that stay silent to strays that is enough.
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


async def _open(request: dict[str, Any], own: int, peer: tuple[str, int]) -> socket.socket:
    udp = request["transport"] == "udp"
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind(("", own))
    await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, peer), request["timeout_ms"] / 1000)
    if udp:
        sock.send(b"")
    return sock


async def _serve(unix: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    text = b""
    tasks = set()
    while more := await loop.sock_recv(unix, 65536):
        *lines, text = (text + more).split(b"\n")
        for line in lines:
            task = loop.create_task(_attempt(unix, json.loads(line)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def _attempt(unix: socket.socket, request: dict[str, Any]) -> None:
    def say(*descriptors: int, **keys: Any) -> None:
        line = json.dumps({"id": request["id"], **keys}).encode() + b"\n"
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        unix.sendmsg([line], rights)

    try:
        if request["call"] == "initiate":
            if request["techniques"] not in ("auto", ["tcp-simopen"], ["udp"]):
                say(status="error", code="no-common-technique", message="this daemon knows two")
                return
            own, peer = next(_ports), (request["peer"], next(_ports))
            opening = asyncio.create_task(_open(request, own, peer))
            await asyncio.sleep(0)
            told = {"self": request["self"], "own": own, "peer": peer[1], "transport": request["transport"]}
            say(status="progress", stage="notify", notification=json.dumps(told))
            sock = await opening
        else:
            told = json.loads(request["notification"])
            request["transport"] = told["transport"]
            sock = await _open(request, told["peer"], (told["self"], told["own"]))
    except (OSError, TimeoutError) as error:
        say(status="error", code="nothing-heard", message=repr(error))
        return
    technique = "udp" if request["transport"] == "udp" else "tcp-simopen"
    say(sock.fileno(), status="ok", fds=1, technique=technique)
    sock.close()


async def main(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    listener.setblocking(False)
    clients = set()
    while True:
        unix, _ = await asyncio.get_running_loop().sock_accept(listener)
        unix.setblocking(False)
        client = asyncio.create_task(_serve(unix))
        clients.add(client)
        client.add_done_callback(clients.discard)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket")
    asyncio.run(main(parser.parse_args().socket))
