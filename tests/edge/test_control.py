"""Claims about the socket's two edges, connection.py and control.py, on real Unix sockets and both loops.
Nothing here knows what a line means."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import select
import socket
import struct
import subprocess
import sys
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from punchd.edge import connection as connection_module
from punchd.edge import control as control_module
from punchd.edge.connection import Callbacks, Connection, Credentials
from punchd.edge.control import ControlServer
from punchd.edge.sockpath import listen

Story = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], None]:
    """Tell the story on a fresh loop; afterwards no descriptor may be left."""

    def tell(story: Story) -> None:
        runner = asyncio.run if request.param == "asyncio" else uvloop.run
        runner(asyncio.wait_for(_in_house(story, tmp_path / "s"), 5))

    return tell


async def _in_house(story: Story, path: Path) -> None:
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    async with house(path) as told:
        await story(told)
    gc.collect()
    assert before == sorted(os.listdir("/proc/self/fd"))


@dataclass
class House:
    """A server that writes down what it is told."""

    server: ControlServer
    path: str
    lines: list[bytes] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    seen: list[Connection] = field(default_factory=list)
    refusal: bytes | None = None
    credentials: list[Credentials] = field(default_factory=list)
    on_line: Callable[[Connection, bytes], None] | None = None

    @property
    def connection(self) -> Connection:
        (only,) = self.server.connections.values()
        return only

    def client(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        sock.setblocking(False)
        return sock


@asynccontextmanager
async def house(path: Path) -> AsyncIterator[House]:
    def admit(credentials: Credentials) -> bytes | None:
        told.credentials.append(credentials)
        return told.refusal

    def line(connection: Connection, text: bytes) -> None:
        told.lines.append(text)
        if told.on_line is not None:
            told.on_line(connection, text)

    def event(name: str) -> Callable[[Connection], None]:
        def happened(connection: Connection) -> None:
            told.events.append(name)
            told.seen.append(connection)

        return happened

    callbacks = Callbacks(
        on_line=line,
        on_overlong=event("overlong"),
        on_descriptor=event("descriptor"),
        on_half_closed=event("half closed"),
        on_closed=event("closed"),
        with_dropped=lambda line, count: line[:-1] + b" dropped %d\n" % count,
    )
    loop = asyncio.get_running_loop()
    server = ControlServer(loop, listen(str(path)), admit=admit, callbacks=callbacks)
    told = House(server, str(path))
    try:
        yield told
    finally:
        server.close()
    assert [] == names_in(path.parent)


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


async def until(condition: Callable[[], object]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came true")


def start_python(program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)


async def read(sock: socket.socket, count: int = 65536) -> bytes:
    for _ in range(2000):
        try:
            return sock.recv(count)
        except BlockingIOError:
            await asyncio.sleep(0.001)
    raise AssertionError("nothing came")


async def read_all(sock: socket.socket) -> bytes:
    whole = b""
    while chunk := await read(sock):
        whole += chunk
    return whole


def test_lines_arrive_whole_and_in_order_however_they_were_cut(run: Any) -> None:
    """A stream has no borders: a line is what ends in a newline."""

    async def story(house: House) -> None:
        with house.client() as client:
            for byte in b"one\n\ntwo\nthr":
                client.send(bytes([byte]))
                await asyncio.sleep(0)
            client.send(b"ee\n" + b"four\n" * 200)
            await until(lambda: len(house.lines) == 204)
            assert [b"one", b"", b"two", b"three", *[b"four"] * 200] == house.lines

    run(story)


def test_a_line_may_have_exactly_the_limit_and_one_byte_more_is_skipped(run: Any) -> None:
    """The limit bounds our memory, and the connection stays usable behind the line that broke it."""

    async def story(house: House) -> None:
        limit = connection_module.LINE_MAX_LEN
        with house.client() as client:
            client.setblocking(True)
            for line in (b"a" * (limit - 1), b"b" * limit, b"c" * (5 * limit), b"good"):
                await asyncio.to_thread(client.sendall, line + b"\n")
            await until(lambda: house.lines[1:] == [b"good"])
            assert limit - 1 == len(house.lines[0])
            assert ["overlong", "overlong"] == house.events

    run(story)


def test_an_endless_line_costs_one_limit_of_memory(run: Any) -> None:
    """A caller that never ends its line must not fill our memory."""

    async def story(house: House) -> None:
        with house.client() as client:
            client.setblocking(True)
            for _ in range(40):
                await asyncio.to_thread(client.sendall, b"x" * 65536)
            await until(lambda: house.events)
            assert len(house.connection._rest) <= 2 * connection_module.LINE_MAX_LEN
            assert ["overlong"] == house.events

    run(story)


def test_half_a_line_then_silence_costs_its_bytes_and_others_notice_nothing(run: Any) -> None:
    """Waiting for the rest of a line must not block anybody."""

    async def story(house: House) -> None:
        with house.client() as slow, house.client() as other:
            slow.send(b'{"id":')
            other.send(b"whole\n")
            await until(lambda: house.lines)
            assert [b"whole"] == house.lines

    run(story)


def test_descriptors_sent_to_us_are_told_and_never_enter(run: Any) -> None:
    """A caller must not be able to fill our table of descriptors."""

    async def story(house: House) -> None:
        with house.client() as client:
            reader, writer = os.pipe()
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(20):
                socket.send_fds(client, [b"line\n"], [writer] * 100)
            await until(lambda: len(house.lines) == 20)
            assert before + 1 == len(os.listdir("/proc/self/fd"))  # the connection itself
            assert ["descriptor"] * 20 == house.events
            os.close(writer)
            assert b"" == os.read(reader, 1)  # nobody else holds the writing end
            os.close(reader)

    run(story)


def test_half_close_is_told_once_and_answers_still_go_out(run: Any) -> None:
    """`printf ... | nc -U` must get its answer."""

    async def story(house: House) -> None:
        with house.client() as client:
            client.send(b"ask\n")
            client.shutdown(socket.SHUT_WR)
            await until(lambda: house.events)
            assert ["half closed"] == house.events
            house.connection.send(b"answer\n")
            house.connection.finish()
            assert b"answer\n" == await read_all(client)
        assert ["half closed", "closed"] == house.events

    run(story)


def test_hang_up_after_half_close_is_told(run: Any) -> None:
    """A half-closed connection is always readable, so nothing but the hang-up may wake us."""

    async def story(house: House) -> None:
        client = house.client()
        client.shutdown(socket.SHUT_WR)
        await until(lambda: house.events)
        client.close()
        await until(lambda: house.events[-1] == "closed")
        assert {} == house.server.connections

    run(story)


def test_hang_up_is_told_while_we_do_not_read(run: Any) -> None:
    """A caller that never reads and dies must not be kept for ever."""

    async def story(house: House) -> None:
        client = house.client()
        client.send(b"x" * 10)
        await until(lambda: house.server.connections)
        for _ in range(1000):
            house.connection.send(b"n" * 999 + b"\n")
        assert house.connection._stuffed
        client.close()
        await until(lambda: house.events)
        assert ["closed"] == house.events

    run(story)


def test_a_client_killed_in_the_middle_leaves_nothing(run: Any) -> None:
    """kill -9 of a caller is a hang-up like any other."""

    async def story(house: House) -> None:
        program = f"import socket;s=socket.socket(1);s.connect({house.path!r});s.send(b'half');input()"
        with start_python(program) as child:
            await until(lambda: house.server.connections)
            child.kill()
        await until(lambda: not house.server.connections)
        assert "closed" == house.events[-1]
        assert [] == house.lines

    run(story)


def test_credentials_are_those_of_the_kernel(run: Any) -> None:
    """Admission rests on them."""

    async def story(house: House) -> None:
        with house.client():
            await until(lambda: house.credentials)
        (credentials,) = house.credentials
        wanted = (os.getpid(), os.getuid(), os.getgid())
        assert wanted == (credentials.pid, credentials.uid, credentials.gid)
        assert sorted(os.getgroups()) == sorted(credentials.groups)

    run(story)


def test_a_refused_caller_gets_one_line_and_is_closed(run: Any) -> None:
    """It must learn why, and cost nothing."""

    async def story(house: House) -> None:
        house.refusal = b"not you\n"
        with house.client() as client:
            assert b"not you\n" == await read_all(client)
        assert {} == house.server.connections
        assert [] == house.events

    run(story)


def test_a_descriptor_leaves_with_the_last_line_of_its_message(run: Any) -> None:
    """Receivers pair descriptors with lines by order: nothing may follow in the same message."""

    async def story(house: House) -> None:
        with house.client() as client:
            await until(lambda: house.server.connections)
            reader, writer = os.pipe()
            house.connection.send(b"before\n")
            house.connection.send(b"with\n", writer)
            house.connection.send(b"after\n")
            await asyncio.sleep(0.01)  # lines leave at the end of the loop's turn
            glued, fds, _, _ = socket.recv_fds(client, 4096, 4)
            assert b"before\nwith\n" == glued
            assert b"after\n" == await read(client)
            (received,) = fds
            os.write(received, b"!")
            os.close(received)
            assert b"!" == os.read(reader, 9)
            assert b"" == os.read(reader, 9)  # the server kept no copy
            os.close(reader)

    run(story)


def test_the_rest_after_a_partial_send_goes_without_the_descriptor(run: Any) -> None:
    """Sent twice, a descriptor would be paired with a wrong line."""

    async def story(house: House) -> None:
        with house.client() as client:
            await until(lambda: house.server.connections)
            connection = house.connection
            connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            reader, writer = os.pipe()
            connection.send(b"w" * 60000 + b"\n", writer)
            whole, fds = b"", []
            while not whole.endswith(b"\n"):
                try:
                    chunk, some, _, _ = socket.recv_fds(client, 65536, 8)
                except BlockingIOError:
                    await asyncio.sleep(0)
                    continue
                whole, fds = whole + chunk, fds + list(some)
            assert 60001 == len(whole)
            assert 1 == len(fds)
            for fd in (reader, *fds):
                os.close(fd)

    run(story)


def test_too_many_descriptors_in_flight_is_waited_out(run: Any) -> None:
    """ETOOMANYREFS is another client's doing; the line and its descriptor must not be lost."""

    class Unwilling:
        def __init__(self, sock: socket.socket) -> None:
            self.sock, self.refusals = sock, 3

        def sendmsg(self, *arguments: Any) -> int:
            if self.refusals:
                self.refusals -= 1
                raise OSError(errno.ETOOMANYREFS, "too many references")
            return self.sock.sendmsg(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sock, name)

    async def story(house: House) -> None:
        with house.client() as client:
            await until(lambda: house.server.connections)
            connection: Any = house.connection
            connection._socket = Unwilling(connection._socket)
            reader, writer = os.pipe()
            connection.send(b"with\n", writer)
            connection.send(b"after\n")
            await until(lambda: not connection._output)
            whole, fds, _, _ = socket.recv_fds(client, 4096, 4)
            assert b"with\n" == whole
            assert 1 == len(fds)
            assert b"after\n" == await read(client)
            for fd in (reader, *fds):
                os.close(fd)

    run(story)


def test_queued_descriptors_are_closed_with_the_connection(run: Any) -> None:
    """A client that dies before it reads must not leave its sockets with us."""

    async def story(house: House) -> None:
        client = house.client()
        await until(lambda: house.server.connections)
        for _ in range(400):
            house.connection.send(b"x" * 999 + b"\n")
        reader, writer = os.pipe()
        house.connection.send(b"with\n", writer)
        os.fstat(writer)
        client.close()
        await until(lambda: house.events)
        assert b"" == os.read(reader, 1)
        house.seen[0].send(b"too late\n", reader)  # closed, too
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(reader)

    run(story)


def test_a_slow_reader_loses_progress_oldest_first_and_nothing_else(run: Any) -> None:
    """Its queue is bounded, the lines that matter arrive, the next progress line tells the loss."""

    async def story(house: House) -> None:
        with house.client() as client:
            await until(lambda: house.server.connections)
            connection = house.connection
            for number in range(4000):
                connection.send(b"progress %06d %b\n" % (number, b"." * 200), droppable=True)
                if number % 1000 == 0:
                    connection.send(b"final %d\n" % number)
                assert connection.unread_len <= connection_module.UNREAD_MAX_LEN
            client.send(b"unheard\n")
            await asyncio.sleep(0.02)
            assert [] == house.lines  # input waits
            connection.send(b"last\n")
            whole = b""
            while not whole.endswith(b"last\n"):
                whole += await read(client)
            lines = whole.splitlines()
            finals = [line for line in lines if line.startswith(b"final")]
            assert [b"final 0", b"final 1000", b"final 2000", b"final 3000"] == finals
            progress = [line for line in lines if line.startswith(b"progress")]
            dropped = sum(int(line.rpartition(b"dropped ")[2]) for line in progress if b"dropped" in line)
            assert 4000 == len(progress) + dropped
            assert progress[-1].startswith(b"progress 003999")
            await until(lambda: house.lines)  # read again
            assert [b"unheard"] == house.lines
            assert 0 == connection.unread_len

    run(story)


def test_a_stuck_reader_is_closed_and_others_are_not(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded patience: its attempts end with it."""
    monkeypatch.setattr(connection_module, "STUCK_S", 0.05)

    async def story(house: House) -> None:
        with house.client() as stuck, house.client() as other:
            await until(lambda: len(house.server.connections) == 2)
            first, second = house.server.connections.values()
            for _ in range(1000):
                first.send(b"x" * 999 + b"\n")
            await until(lambda: house.events)
            assert ["closed"] == house.events
            assert first.closed
            second.send(b"still here\n")
            assert b"still here\n" == await read(other)
            assert b"" != await read(stuck)

    run(story)


def test_a_reader_that_is_slow_but_alive_is_not_closed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte it takes buys it the whole patience again."""
    monkeypatch.setattr(connection_module, "STUCK_S", 0.06)

    async def story(house: House) -> None:
        with house.client() as client:
            await until(lambda: house.server.connections)
            for _ in range(800):
                house.connection.send(b"x" * 999 + b"\n")
            taken = 0
            for _ in range(6):
                await asyncio.sleep(0.02)
                taken += len(await read(client, 40000))
            assert [] == house.events
            while taken < 800_000:
                taken += len(await read(client))
            assert 800_000 == taken

    run(story)


def test_one_chatterbox_does_not_starve_the_others(run: Any) -> None:
    """Fairness is per wake-up: a thousand lines in one buffer are many turns of the loop."""

    async def story(house: House) -> None:
        order: list[int] = []
        house.on_line = lambda connection, line: order.append(connection.number)
        with house.client() as loud, house.client() as quiet:
            await until(lambda: len(house.server.connections) == 2)
            loud.send(b"\n" * 30000)
            quiet.send(b"\n")
            await until(lambda: 2 in order)
            assert order.index(2) <= 4 * connection_module.LINES_PER_WAKE
            await until(lambda: len(order) == 30001)

    run(story)


@pytest.mark.parametrize("hold_s", [10.0, 0.0])
def test_answers_wait_for_those_to_lines_that_are_here(
    run: Any, monkeypatch: pytest.MonkeyPatch, hold_s: float
) -> None:
    """A flooding caller that is woken for each turn's answers takes the other core from those it floods out."""
    monkeypatch.setattr(connection_module, "HOLD_S", hold_s)

    async def story(house: House) -> None:
        early: list[bytes] = []

        def answer(connection: Connection, line: bytes) -> None:
            if len(house.lines) == 64 and select.select([client], [], [], 0)[0]:
                early.append(client.recv(65536))
            connection.send(b"pong\n")

        house.on_line = answer
        with house.client() as client:
            client.send(b"ping\n" * 64)
            await until(lambda: len(house.lines) == 64)
            assert (hold_s == 0.0) == bool(early)
            rest = b""
            while len(b"".join(early) + rest) < 5 * 64:
                rest += await read(client)

    run(story)


def test_a_farewell_takes_what_waited_along(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn that would have sent it never comes."""
    monkeypatch.setattr(connection_module, "HOLD_S", 10.0)

    async def story(house: House) -> None:
        def answer(connection: Connection, line: bytes) -> None:
            connection.send(b"pong\n")
            if len(house.lines) == 2:
                asyncio.get_running_loop().call_soon(connection.finish)

        house.on_line = answer
        with house.client() as client:
            client.send(b"ping\n" * 64)
            await until(lambda: house.events)
            assert b"pong\n" * len(house.lines) == await read(client)
            assert ["closed"] == house.events

    run(story)


def test_an_answer_to_a_caller_that_is_gone_closes_once(run: Any) -> None:
    """It is too long to wait for the end of the line's turn, and fails within it."""

    async def story(house: House) -> None:
        client = house.client()

        def answer(connection: Connection, line: bytes) -> None:
            client.close()
            connection.send(b"x" * 70_000 + b"\n")

        house.on_line = answer
        client.send(b"status\n")
        await until(lambda: house.events)
        assert ["closed"] == house.events

    run(story)


def test_the_answer_to_a_line_alone_leaves_before_the_loop_turns(run: Any) -> None:
    """A caller with one request at a time waits for no other's work."""

    async def story(told: House) -> None:
        loop = asyncio.get_running_loop()
        came: list[bytes] = []

        def answer(connection: Connection, text: bytes) -> None:
            loop.call_soon(lambda: came.append(client.recv(100)))  # before anything that the answer would schedule
            connection.send(text + b" 1\n")
            connection.send(text + b" 2\n")

        told.on_line = answer
        with told.client() as client:
            client.send(b"a\n")
            await until(lambda: came)
            assert [b"a 1\na 2\n"] == came

    run(story)


def test_what_nothing_else_is_said_with_leaves_at_once(run: Any) -> None:
    """It waits for no bookkeeping of its owner's, and takes the news before it along."""

    async def story(told: House) -> None:
        with told.client() as client:
            await until(lambda: told.server.connections)
            told.connection.send(b"news\n", droppable=True)
            told.connection.send(b"ok\n", at_once=True)
            assert b"news\nok\n" == client.recv(100)

    run(story)


def test_a_break_is_told_to_the_loop_and_not_to_whoever_speaks(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner is in the middle of an attempt that it is no fault of."""

    def refuse(_: Connection) -> int:
        raise OSError(errno.ENOBUFS, "no room")

    monkeypatch.setattr(Connection, "_send_some", refuse)

    async def story(told: House) -> None:
        broken: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context["exception"].errno))
        with told.client():
            await until(lambda: told.server.connections)
            told.connection.send(b"ok\n", at_once=True)
        assert ["closed"] == told.events
        assert [errno.ENOBUFS] == broken

    run(story)


@pytest.mark.parametrize("company", [b"", b"notify\n"])
def test_a_droppable_line_waits_for_company_but_not_long(
    run: Any, monkeypatch: pytest.MonkeyPatch, company: bytes
) -> None:
    """Each write wakes the caller up; nobody acts on mere news."""
    monkeypatch.setattr(connection_module, "COMPANY_S", 10.0 if company else 0.3)

    async def story(told: House) -> None:
        with told.client() as client:
            await until(lambda: told.server.connections)
            told.connection.send(b"news\n", droppable=True)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(BlockingIOError):
                client.recv(100)
            if company:
                told.connection.send(company)
            assert b"news\n" + company == await read(client)

    run(story)


def test_an_answer_before_close_is_delivered(run: Any) -> None:
    """Whoever refuses a line and hangs up is heard."""

    async def story(told: House) -> None:
        def answer(connection: Connection, text: bytes) -> None:
            connection.send(text + b" no\n")
            connection.close()

        told.on_line = answer
        with told.client() as client:
            client.send(b"a\n")
            await until(lambda: told.events)
            assert (b"a no\n", b"") == (client.recv(100), client.recv(100))
            assert ["closed"] == told.events

    run(story)


def test_closing_inside_a_callback_is_safe(run: Any) -> None:
    """The owner may end a connection at any line."""

    async def story(house: House) -> None:
        house.on_line = lambda connection, line: connection.close()
        with house.client() as client:
            client.send(b"one\ntwo\nthree\n")
            assert b"" == await read(client)
            assert [b"one"] == house.lines
            assert ["closed"] == house.events

    run(story)


def test_finish_delivers_a_long_queue_and_closes(run: Any) -> None:
    """An orderly end loses no final line."""

    async def story(house: House) -> None:
        with house.client() as client:
            await until(lambda: house.server.connections)
            for _ in range(600):
                house.connection.send(b"x" * 999 + b"\n")
            house.connection.finish()
            assert 600_000 == len(await read_all(client))

    run(story)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Use up the last descriptor of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, hard))
    filler: list[int] = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            filler.extend(iter(lambda: os.dup(0), None))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filler:
            os.close(fd)


def test_without_descriptors_accepting_pauses_and_goes_on(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backlog is always readable: without a pause the loop would spin on EMFILE."""
    calls = 0
    welcome = ControlServer._accept

    def counted(self: ControlServer) -> None:
        nonlocal calls
        calls += 1
        welcome(self)

    monkeypatch.setattr(ControlServer, "_accept", counted)
    monkeypatch.setattr(control_module, "ACCEPT_PAUSE_S", 5.0)

    async def story(house: House) -> None:
        with house.client() as other:
            await until(lambda: house.server.connections)
            with house.client() as waiting, no_descriptors():
                waiting.send(b"at last\n")
                await asyncio.sleep(0.05)
                before = calls
                await asyncio.sleep(0.05)
                assert before == calls
                other.close()  # our end follows, and its descriptor serves the one who waits
                await until(lambda: house.lines)
                assert [b"at last"] == house.lines

    run(story)


def test_many_clients_come_and_go(run: Any) -> None:
    """Nothing accumulates: the fixture counts descriptors before and after."""

    async def story(house: House) -> None:
        house.on_line = lambda connection, line: connection.send(line + b"\n")
        for _ in range(5):
            clients = [house.client() for _ in range(60)]
            for client in clients:
                client.send(b"echo\n")
            for client in clients:
                assert b"echo\n" == await read(client)
                client.close()
        await until(lambda: not house.server.connections)
        assert 300 == house.events.count("closed")

    run(story)


def test_stop_accepting_removes_the_path_and_keeps_the_connections(run: Any) -> None:
    """On SIGTERM nobody new may come while the open attempts are told."""

    async def story(house: House) -> None:
        with house.client() as client:
            await until(lambda: house.server.connections)
            house.server.stop_accepting()
            assert [] == names_in(Path(house.path).parent)
            with pytest.raises(FileNotFoundError):
                house.client()
            house.connection.send(b"bye\n")
            assert b"bye\n" == await read(client)

    run(story)


def test_peercred_has_the_layout_we_unpack() -> None:
    """struct ucred is three 32-bit numbers; the array below says the same as struct's format."""
    assert struct.calcsize("iII") == 3 * array("i").itemsize
