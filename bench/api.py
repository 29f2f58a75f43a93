"""How many API lines and descriptors a second does the daemon answer, alone and beside a client that floods?
Punches nothing: pings to a real daemon; descriptors from its socket's edge, without attempts behind them.

Clients and daemon are processes of their own. A pipelining client keeps WINDOW pings on their way. The fair share of a
client beside a flood is half of what the same client gets alone; meanwhile a process spins that calls nobody, for a
flooding client takes a core too.

One ping at a time is two processes that wake each other up. What the machine takes for that is shown by two servers
that give a line back and know nothing, asked by the same client in C in the same rounds: a loop around epoll in C
(_echo.c), which nobody who waits by epoll can beat, and one on the daemon's loop, which no daemon in Python can.
"""

from __future__ import annotations

import array
import asyncio
import multiprocessing
import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from bench._baseline import compiled
from bench._frame import Figure, Progress, Report, at_least, interleaved, ratios
from bench._street import cpu_s, daemon, street
from punchd.edge.connection import Callbacks, Connection
from punchd.edge.control import ControlServer
from punchd.edge.sockpath import listen

WINDOW = 256
CONNECTIONS = 100
_PING = b'{"call":"ping","id":"1"}\n'
_CHUNK_LEN = 1 << 18
_ECHO = Path(__file__).with_name("_echo.c")


def run(*, quick: bool, progress: Progress) -> Report:
    rounds, seconds = (3, 0.5) if quick else (5, 2.0)
    with (
        street() as (near, _), daemon(near) as (process, path),
        _server(_in_loop(_give)) as (_, giving), _server(_in_loop(_echo)) as echo, _server(_bare_echo) as bare,
    ):  # fmt: skip
        used: dict[str, list[float]] = {}

        def pings(name: str, connections: int, window: int, server: tuple[int, str] = (process.pid, path)) -> float:
            before = cpu_s(server[0])
            rate = _pings(server[1], connections=connections, window=window, seconds=seconds)
            used.setdefault(name, []).append((cpu_s(server[0]) - before) / (rate * seconds) * 1e6)
            return rate

        found = interleaved(
            rounds,
            {
                "pipelined": lambda: pings("pipelined", 1, WINDOW),
                "pipelined on 100": lambda: pings("pipelined on 100", CONNECTIONS, WINDOW),
                "one at a time": lambda: pings("one at a time", 1, 1),
                "by an echo": lambda: pings("by an echo", 1, 1, echo),
                "by a bare echo": lambda: pings("by a bare echo", 1, 1, bare),
                "one at a time on 100": lambda: pings("one at a time on 100", CONNECTIONS, 1),
                "descriptors": lambda: _descriptors(giving, seconds),
            },
            progress,
        )
        beside = interleaved(
            rounds,
            {
                "alone": lambda: _beside(_spin, path, seconds),
                "beside a flood": lambda: _beside(_flood, path, seconds),
            },
            progress,
        )
    shares = [2 * one for one in ratios(beside["beside a flood"], beside["alone"])]
    return Report(
        [
            Figure.of("pings pipelined", found["pipelined"], "1/s", at_least(100_000)),
            Figure.of("daemon's CPU for one", used["pipelined"], "us"),
            Figure.of("pings pipelined on 100", found["pipelined on 100"], "1/s", at_least(100_000)),
            Figure.of("pings one at a time", found["one at a time"], "1/s", at_least(20_000)),
            Figure.of("by an echo on the same loop", found["by an echo"], "1/s"),
            Figure.of("by an echo in C", found["by a bare echo"], "1/s", note="what two wake-ups take on this machine"),
            Figure.of("ours of the loop's", ratios(found["one at a time"], found["by an echo"]), "x"),
            Figure.of("ours of C's", ratios(found["one at a time"], found["by a bare echo"]), "x"),
            Figure.of("daemon's CPU for one of them", used["one at a time"], "us"),
            Figure.of("the loop's echo's", used["by an echo"], "us"),
            Figure.of("C's echo's", used["by a bare echo"], "us"),
            Figure.of("one at a time on 100", found["one at a time on 100"], "1/s", at_least(20_000)),
            Figure.of("descriptors handed over", found["descriptors"], "1/s", at_least(20_000)),
            Figure.of("of its fair share beside a flood", shares, "x", at_least(0.8)),
        ],
        conditions={"rounds": rounds, "seconds": seconds, "window": WINDOW},
    )


def _pings(path: str, *, connections: int, window: int, seconds: float) -> float:
    """Answers a second, each connection with so many pings on their way."""
    if connections == window == 1:
        return _one_at_a_time(path, seconds)
    socks = [_connected(path) for _ in range(connections)]
    poller = select.epoll()
    by_fd = {sock.fileno(): sock for sock in socks}
    answered = 0
    for sock in socks:
        poller.register(sock, select.EPOLLIN)
        sock.sendall(_PING * window)
    begun = time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        for fd, _ in poller.poll(1):
            sock = by_fd[fd]
            lines = sock.recv(_CHUNK_LEN).count(b"\n")
            answered += lines
            sock.sendall(_PING * lines)
    for sock in socks:
        sock.close()
    return answered / passed


def _one_at_a_time(path: str, seconds: float) -> float:
    """By a client that only waits: an event loop of its own would be a third of what is measured."""
    argv = [compiled(_ECHO), "client", path, str(seconds)]
    return float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def _beside(other: Callable[[str, float], object], path: str, seconds: float) -> float:
    """What a client with one ping at a time gets while another process does this."""
    process = multiprocessing.get_context("fork").Process(target=other, args=(path, seconds + 0.4))
    process.start()
    time.sleep(0.2)
    rate = _one_at_a_time(path, seconds)
    process.join()
    return rate


def _flood(path: str, seconds: float) -> None:
    _pings(path, connections=1, window=4 * WINDOW, seconds=seconds)


def _spin(_: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


@contextmanager
def _server(serve: Callable[[str], None]) -> Iterator[tuple[int, str]]:
    """A process that serves at this path; its id, too."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "socket")
        process = multiprocessing.get_context("fork").Process(target=serve, args=(path,))
        process.start()
        while not os.path.exists(path):
            time.sleep(0.01)
        try:
            assert process.pid is not None
            yield process.pid, path
        finally:
            process.terminate()
            process.join()


def _in_loop(serve: Callable[[str], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    return lambda path: uvloop.run(serve(path))


def _bare_echo(path: str) -> None:
    os.execv(compiled(_ECHO), ["_echo", "server", path])


async def _echo(path: str) -> None:
    """The least that a server on this loop can do."""
    loop = asyncio.get_running_loop()

    def accept() -> None:
        sock, _ = listener.accept()
        loop.add_reader(sock.fileno(), answer, sock)

    def answer(sock: socket.socket) -> None:
        try:
            sock.send(sock.recv(4096) or b"\n")
        except OSError:  # the client is gone
            loop.remove_reader(sock.fileno())
            sock.close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        loop.add_reader(listener.fileno(), accept)
        await asyncio.Event().wait()


async def _give(path: str) -> None:
    """The daemon's front door alone, which answers each line with a descriptor."""
    given = os.open("/dev/null", os.O_RDONLY)

    def line(connection: Connection, text: bytes) -> None:
        connection.send(text + b"\n", os.dup(given))

    def nothing(connection: Connection) -> None:
        pass

    callbacks = Callbacks(
        on_line=line, on_overlong=nothing, on_descriptor=nothing, on_half_closed=Connection.finish, on_closed=nothing,
        with_dropped=lambda text, _: text,
    )  # fmt: skip
    ControlServer(asyncio.get_running_loop(), listen(path), admit=lambda _: None, callbacks=callbacks)
    await asyncio.Event().wait()


def _descriptors(path: str, seconds: float) -> float:
    """Descriptors a second that arrive, 32 asked for at a time, each closed at once."""
    with _connected(path) as sock:
        sock.sendall(_PING * 32)
        came = 0
        begun = time.perf_counter()
        while (passed := time.perf_counter() - begun) < seconds:
            _, ancillary, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(4))
            for _, _, data in ancillary:
                fds = array.array("i", data)
                for fd in fds:
                    os.close(fd)
                came += len(fds)
                sock.sendall(_PING * len(fds))
        return came / passed
