"""Claims about client.py, punchctl, the examples and the C client, against a fake daemon on the real socket
edge. It knows no NAT: a notification names an attempt of its own, and both get the ends of one connection."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from punchd.client import InitiateKeys, NoDaemon, PunchFailed, connect, connect_blocking
from punchd.client_book import Book
from punchd.edge.connection import Callbacks, Connection
from punchd.edge.control import ControlServer
from punchd.edge.sockpath import listen
from punchd.wire import api, replies
from punchd.words.errors import Code, PeerError, RequestError
from punchd.words.requests import Cancel, Initiate, Notify, Ping, Place, Respond, Status, Transport

HOME = Path(__file__).parent.parent


class FakeDaemon:
    """Enough of punchd for its clients."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str) -> None:
        self.refuse: bytes | None = None
        self.open: dict[tuple[Connection, str], Initiate | Respond] = {}
        self.waiting: dict[str, tuple[Connection, Initiate]] = {}
        self.asked: list[object] = []
        callbacks = Callbacks(
            on_line=self.line,
            on_overlong=lambda connection: connection.send(replies.error(None, api.line_too_long())),
            on_descriptor=lambda connection: connection.send(replies.error(None, api.descriptor_refused())),
            on_half_closed=lambda connection: connection.finish(),
            on_closed=self.forget,
            with_dropped=replies.with_dropped,
        )
        self.server = ControlServer(loop, listen(path), admit=lambda _: self.refuse, callbacks=callbacks)

    def forget(self, connection: Connection) -> None:
        self.open = {key: value for key, value in self.open.items() if key[0] is not connection}

    def line(self, connection: Connection, line: bytes) -> None:
        request = api.decode_request(line)
        self.asked.append(request)
        match request:
            case api.Refusal():
                connection.send(replies.error(request.id, request.error))
            case Initiate():
                self.open[connection, request.id] = request
                text = f"note{connection.number}-{request.id}"
                self.waiting[text] = connection, request
                connection.send(replies.progress(request.id, "notify", notification=text))
            case Respond():
                self.respond(connection, request)
            case Cancel():
                found = self.open.pop((connection, request.attempt), None)
                if found is not None:
                    error = RequestError(Code.CANCELLED, "as you wished")
                    connection.send(replies.error(found.id, error))
                connection.send(replies.ok(request.id, ended=found is None))
            case Notify():
                connection.send(replies.ok(request.id))
            case Ping():
                missing = [{"capability": "CAP_NET_RAW", "grant": "setcap cap_net_raw+ep punchd"}]
                connection.send(replies.ok(request.id, protocol=1, techniques=["udp"], missing=missing))
            case Status():
                connection.send(replies.ok(request.id, attempts=len(self.open)))

    def respond(self, connection: Connection, request: Respond) -> None:
        if request.notification not in self.waiting:
            error = PeerError(Code.NOTIFICATION_BROKEN, "it is none of mine", cause={"len": 3})
            connection.send(replies.error(request.id, error))
            return
        other, initiate = self.waiting.pop(request.notification)
        connection.send(replies.progress(request.id, "trying", technique="tcp-direct"), droppable=True)
        connection.send(replies.progress(request.id, "notify", notification="back"))
        with socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.create_connection(server.getsockname())
            far, _ = server.accept()
        self.hand_over(connection, request, far)
        self.hand_over(other, initiate, near)
        self.open.pop((other, initiate.id), None)

    def hand_over(self, connection: Connection, request: Initiate | Respond, sock: socket.socket) -> None:
        sock.setblocking(False)
        ends = {"local": spell(sock.getsockname()), "remote": spell(sock.getpeername())}
        if request.early:
            early = replies.progress(request.id, "early", technique="tcp-direct", fds=1)
            connection.send(early, sock.detach())
        fd = None if request.early else sock.detach()
        line = replies.punched(
            request.id, technique="tcp-direct", rtt_ms=0.1, elapsed_ms=2.0, fds=int(fd is not None), **ends
        )
        connection.send(line, fd)


def spell(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


@contextmanager
def fake_daemon(folder: Path) -> Iterator[tuple[FakeDaemon, str]]:
    """In a thread with a loop of its own, as the real one has a process of its own."""
    path = str(folder / "punchd.socket")
    ready = threading.Event()
    box: list[Any] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        box.extend((FakeDaemon(loop, path), loop, over))
        ready.set()
        await over.wait()
        box[0].server.close()

    thread = threading.Thread(target=lambda: uvloop.run(serve()), name="fake daemon")
    thread.start()
    assert ready.wait(5)
    try:
        yield cast(FakeDaemon, box[0]), path
    finally:
        box[1].call_soon_threadsafe(box[2].set)
        thread.join()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Any:
    return asyncio.run if request.param == "asyncio" else uvloop.run


def test_a_whole_pair_of_peers_takes_a_dozen_lines(run: Any, tmp_path: Path) -> None:
    """What the README promises, and bytes flow both ways."""

    async def initiator(path: str, side: asyncio.Queue[str]) -> bytes:
        async with connect(path) as daemon:
            attempt = await daemon.initiate(peer="198.51.100.2", self_="203.0.113.2")
            await side.put(await attempt.notification())
            punched = await attempt.result()
        reader, writer = await asyncio.open_connection(sock=punched.socket)
        writer.write(b"ping")
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    async def responder(path: str, side: asyncio.Queue[str]) -> bytes:
        async with connect(path) as daemon:
            attempt = await daemon.respond(await side.get(), from_=["203.0.113.2"])
            punched = await attempt.result()
        assert ("tcp-direct", 0.1, 2.0) == (punched.technique, punched.rtt_ms, punched.elapsed_ms)
        reader, writer = await asyncio.open_connection(sock=punched.socket)
        question = await reader.read()
        writer.write(b"pong")
        writer.close()
        await writer.wait_closed()
        return question

    async def story(path: str) -> None:
        side: asyncio.Queue[str] = asyncio.Queue()
        assert [b"pong", b"ping"] == await asyncio.gather(initiator(path, side), responder(path, side))

    with fake_daemon(tmp_path) as (_, path):
        run(story(path))


def test_the_blocking_twin_does_the_same(tmp_path: Path) -> None:
    """For programs without a loop; the socket blocks as they expect."""
    with fake_daemon(tmp_path) as (_, path), connect_blocking(path) as daemon:
        carried: list[str] = []
        first = daemon.initiate(peer=["198.51.100.2:4711"], on_notification=carried.append)
        second = daemon.respond(first.notification(), timeout_ms=500)
        near, far = first.result().socket, second.result().socket
        with near, far:
            near.sendall(b"x" * 100_000)
            near.close()
            assert 100_000 == sum(map(len, iter(lambda: far.recv(65536), b"")))
        assert ["note1-1"] == carried
        assert ["trying", "notify"] == [progress.stage for progress in second]


def test_many_attempts_share_a_connection_and_keep_their_own_sockets(run: Any, tmp_path: Path) -> None:
    """Descriptors are paired with lines by order; a slip would connect strangers."""

    async def story(path: str) -> None:
        async with connect(path) as daemon:
            firsts = [await daemon.initiate(peer="198.51.100.2") for _ in range(50)]
            seconds = [await daemon.respond(await first.notification()) for first in firsts]
            for first, second in zip(firsts, seconds, strict=True):
                near, far = await first.result(), await second.result()
                with near.socket, far.socket:
                    assert near.local == far.remote == spell(far.socket.getpeername())
                    near.socket.send(first.id.encode())
                    assert first.id.encode() == await asyncio.get_running_loop().sock_recv(far.socket, 9)

    with fake_daemon(tmp_path) as (_, path):
        run(story(path))


def test_early_gives_the_socket_before_the_end(run: Any, tmp_path: Path) -> None:
    """The same socket comes once, and result() still tells the addresses."""

    async def story(path: str) -> None:
        async with connect(path) as daemon:
            first = await daemon.initiate(peer="198.51.100.2", early=True)
            second = await daemon.respond(await first.notification())
            sock = await first.early()
            punched = await first.result()
            assert sock is punched.socket
            sock.close()
            (await second.result()).socket.close()

    with fake_daemon(tmp_path) as (_, path):
        run(story(path))


def test_a_failure_carries_code_message_cause_and_advice(run: Any, tmp_path: Path) -> None:
    """A person must learn from it what to do."""

    async def story(path: str) -> None:
        async with connect(path) as daemon:
            attempt = await daemon.respond("bad")
            with pytest.raises(PunchFailed) as caught:
                await attempt.result()
            failed = caught.value
            assert ("notification-broken", "it is none of mine") == (failed.code, failed.message)
            assert {"len": 3} == failed.cause
            assert Code.NOTIFICATION_BROKEN.advice == failed.advice
            with pytest.raises(PunchFailed):
                await attempt.notification()
            wrong = await daemon.initiate(peer="nowhere")
            with pytest.raises(PunchFailed, match="bad-value: 'peer' must be an IPv4 address"):
                await wrong.result()

    with fake_daemon(tmp_path) as (_, path):
        run(story(path))


def test_cancel_ends_the_attempt_first(run: Any, tmp_path: Path) -> None:
    """Its own end comes before the answer to cancel."""

    async def story(path: str) -> None:
        async with connect(path) as daemon:
            attempt = await daemon.initiate(peer="198.51.100.2")
            await attempt.notify("later")
            await attempt.cancel()
            with pytest.raises(PunchFailed, match="cancelled"):
                await attempt.result()
            assert {"ended": True} == await daemon.cancel(attempt.id)
            assert ["notify"] == [progress.stage async for progress in attempt]

    with fake_daemon(tmp_path) as (_, path):
        run(story(path))


def test_leaving_the_with_cancels_what_is_open(run: Any, tmp_path: Path) -> None:
    """Nothing goes on behind an application's back."""

    async def story(path: str, fake: FakeDaemon) -> None:
        async with connect(path) as daemon:
            attempt = await daemon.initiate(peer="198.51.100.2")
            await attempt.notification()
            assert 1 == (await daemon.status())["attempts"]
        with pytest.raises(NoDaemon):
            await attempt.result()
        async with connect(path) as daemon:
            assert 0 == (await daemon.status())["attempts"]

    with fake_daemon(tmp_path) as (fake, path):
        run(story(path, fake))


def test_a_daemon_that_dies_fails_what_is_open(run: Any, tmp_path: Path) -> None:
    """Waiting for ever would be the worst of errors."""

    async def story(path: str, fake: FakeDaemon) -> None:
        async with connect(path) as daemon:
            attempt = await daemon.initiate(peer="198.51.100.2")
            await attempt.notification()
            fake.server._loop.call_soon_threadsafe(fake.server.close)
            with pytest.raises(NoDaemon, match="closed the connection"):
                await attempt.result()
            with pytest.raises(NoDaemon):
                await daemon.ping()

    with fake_daemon(tmp_path) as (fake, path):
        run(story(path, fake))


def test_a_caller_without_permission_reads_why(tmp_path: Path) -> None:
    """The daemon's one line reaches the application as its error."""
    with fake_daemon(tmp_path) as (fake, path):
        fake.refuse = replies.error(None, RequestError(Code.NOT_PERMITTED, "uid 1000 may not call"))
        with connect_blocking(path) as daemon, pytest.raises(PunchFailed, match=r"not-permitted.*--group"):
            daemon.ping()


def test_what_the_client_spells_the_daemon_reads() -> None:
    """The client repeats no types: each argument must be a key of the daemon's table."""
    keys = {"peer": ["198.51.100.2:1"], "self_": "203.0.113.2", "transport": "udp", "techniques": ["udp"]}
    more = {
        "timeout_ms": 5,
        "early": True,
        "secret": "s" * 16,
        "side_delay_ms": 1.5,
        "on_notification": print,
    }
    assert set(InitiateKeys.__annotations__) == set(keys | more)
    line, entry = Book().open("initiate", keys | more)
    wanted = Initiate(
        id=entry.id,
        peer=(Place("198.51.100.2", 1),),
        self_=(Place("203.0.113.2"),),
        transport=Transport.UDP,
        techniques=("udp",),
        timeout_ms=5,
        early=True,
        secret=b"s" * 16,
        side_delay_ms=1.5,
    )
    assert wanted == api.decode_request(line)
    line, entry = Book().open("respond", {"notification": "é", "from_": ["203.0.113.0/24"], "timeout_ms": None})
    assert Respond(id=entry.id, notification="é", from_=(IPv4Network("203.0.113.0/24"),)) == api.decode_request(line)


def test_keys_of_a_newer_daemon_are_ignored(tmp_path: Path) -> None:
    """Clients must live with keys and stages they do not know."""
    near, far = socket.socketpair()
    with near, far:
        book = Book()
        _, entry = book.open("initiate", {"peer": "198.51.100.2"})
        far.send(b'{"id":"1","status":"progress","stage":"dreaming","colour":"green"}\n{"id":"9","status":"ok"}\n')
        assert book.receive(near)
        assert "dreaming" == entry.progress[0].stage
        assert not entry.ended


def test_no_daemon_says_how_to_start_one(tmp_path: Path) -> None:
    """The commonest first experience."""
    with pytest.raises(NoDaemon, match="sudo punchd"), connect_blocking(str(tmp_path / "none")):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play a stranger")
def test_a_server_of_a_stranger_is_not_trusted_unless_named(tmp_path: Path) -> None:
    """In /tmp anybody may be first to serve the path."""
    tmp_path.chmod(0o777)
    path = str(tmp_path / "s")
    program = (
        "import os, socket, sys; os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534);"
        "s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen(); print('up', flush=True); input()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        assert b"up\n" == stranger.stdout.readline()
        with pytest.raises(NoDaemon, match="uid 65534"), connect_blocking(path):
            pass
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PUNCHD_UID", "65534")
            with connect_blocking(path):
                pass
        stranger.communicate(b"\n")


def test_a_request_beyond_a_line_is_refused_here(tmp_path: Path) -> None:
    """Punchd could only answer it without its id."""
    with fake_daemon(tmp_path) as (_, path), connect_blocking(path) as daemon:
        with pytest.raises(ValueError, match="65536"):
            daemon.respond("x" * 70_000)
        assert 1 == daemon.ping()["protocol"]


def ctl(path: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(ctl_command(*arguments), env=environment(path), capture_output=True, timeout=20, **more)


def ctl_command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from punchd.ctl import main; main()", *arguments]


def environment(path: str) -> dict[str, str]:
    return os.environ | {"PUNCHD_SOCKET": path, "PYTHONPATH": str(HOME), "NO_COLOR": "1"}


@pytest.mark.slow
def test_punchctl_prints_aligned_or_as_json(tmp_path: Path) -> None:
    """For people and for scripts."""
    with fake_daemon(tmp_path) as (_, path):
        told = ctl(path, "ping", check=True).stdout.decode()
        assert "protocol    1" in told
        assert "CAP_NET_RAW  setcap cap_net_raw+ep punchd" in told
        assert 0 == json.loads(ctl(path, "status", "--json", check=True).stdout)["attempts"]
        assert b"ended    yes" in ctl(path, "cancel", "7", check=True).stdout


@pytest.mark.slow
def test_punchctl_without_a_daemon_fails_in_one_line(tmp_path: Path) -> None:
    """No traceback ever."""
    failed = ctl(str(tmp_path / "none"), "ping")
    assert 2 == failed.returncode
    assert b"sudo punchd" in failed.stderr
    assert 1 == failed.stderr.count(b"\n")


@contextmanager
def rendezvous() -> Iterator[str]:
    program = [sys.executable, str(HOME / "examples" / "rendezvous.py"), "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().decode().split()[-1]
        finally:
            server.terminate()


@pytest.mark.slow
def test_punchctl_cat_moves_bytes_both_ways_and_ends(tmp_path: Path) -> None:
    """As ssh's ProxyCommand does: both directions, binary, end of stream passed on."""
    there, back = os.urandom(300_000), os.urandom(200_000)
    with fake_daemon(tmp_path) as (_, path), rendezvous() as where:
        listening = ctl_command("cat", "--rendezvous", where, "--name", "bob", "--listen", "--peer", "anna", "-v")
        calling = ctl_command("cat", "--rendezvous", where, "--name", "anna", "--peer", "bob", "-v")
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with (
            subprocess.Popen(listening, env=environment(path), **pipes) as bob,
            subprocess.Popen(calling, env=environment(path), **pipes) as anna,
        ):
            results: dict[str, tuple[bytes, bytes]] = {}
            helper = threading.Thread(target=lambda: results.update(bob=bob.communicate(back, timeout=20)))
            helper.start()
            results["anna"] = anna.communicate(there, timeout=20)
            helper.join()
            assert (0, 0) == (anna.returncode, bob.returncode)
        assert back == results["anna"][0]
        assert there == results["bob"][0]
        assert b"tcp-direct" in results["anna"][1]


@pytest.mark.slow
def test_the_example_sends_a_file(tmp_path: Path) -> None:
    """The page of code that people start from works as printed."""
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(os.urandom(500_000))
    program = [sys.executable, str(HOME / "examples" / "sendfile.py")]
    with fake_daemon(tmp_path) as (_, path), rendezvous() as where:
        with subprocess.Popen([*program, where, "receive", "bob", str(got)], env=environment(path)) as bob:
            subprocess.run(
                [*program, where, "send", "anna", "bob", str(sent)],
                env=environment(path),
                check=True,
                timeout=20,
            )
            assert 0 == bob.wait(20)
    assert sent.read_bytes() == got.read_bytes()


@pytest.mark.slow
def test_the_client_in_c_initiates_and_responds(tmp_path: Path) -> None:
    """Any language can use punchd, in less than 150 lines of C."""
    source = HOME / "examples" / "punch_client.c"
    assert len(source.read_text().splitlines()) < 150
    program = str(tmp_path / "punch_client")
    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    subprocess.run(["gcc", *flags, "-o", program, str(source)], check=True)
    with fake_daemon(tmp_path) as (_, path):
        first = [program, path, "initiate", "198.51.100.2", "203.0.113.2"]
        with subprocess.Popen(first, stdout=subprocess.PIPE) as initiator:
            assert initiator.stdout is not None
            text = initiator.stdout.readline().decode().strip()
            second = subprocess.run([program, path, "respond", text], stdout=subprocess.PIPE, check=True, timeout=20)
            assert b"hello from the responder\n" == initiator.stdout.read()
        assert b"hello from the initiator\n" == second.stdout.splitlines(keepends=True)[-1]
        refused = subprocess.run([program, path, "respond", "bad"], stderr=subprocess.PIPE, timeout=20)
        assert 1 == refused.returncode
        assert b"notification-broken" in refused.stderr
