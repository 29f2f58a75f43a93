"""Real programs over handed-over sockets: TLS, ssh, a hundred megabytes, and every option as on a fresh socket.

It refuses to trust ESTABLISHED: a connection that is half open, or whose window is crippled, shows here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fcntl import F_GETFD, F_GETFL, fcntl, ioctl
from functools import partial
from pathlib import Path
from termios import FIONREAD

import pytest
from duo import Duo, Talker, duo
from running import Daemon, held_sockets

from punchd import client
from punchd.core.techniques import TECHNIQUES

pytestmark = [pytest.mark.lab, pytest.mark.slow]

# each technique on networks that it passes and that want it
PLACES = {
    "tcp-direct": ("open", "open"),
    "tcp-simopen": ("linux", "linux"),
    "tcp-nutss": ("linux-liberal", "linux"),
    "tcp-syni": ("linux-synfilter", "untracked"),
    "tcp-midstream": ("linux-synfilter", "linux-synfilter"),
}

MIB = 1 << 20
FLOOR_MIB_S = 8
"""A window of 63 bytes moves less than 1 MiB in a second here; sound connections move hundreds."""
SOON_S = 2.0
"""Below any retransmission timeout that an application would take for a dead peer."""

SO_MARK, SO_BUF_LOCK, SO_DETACH_FILTER = 36, 72, 27  # asm-generic/socket.h
IP_MINTTL, IP_RECVERR, IP_MTU_DISCOVER, TCP_REPAIR, TCP_USER_TIMEOUT = 21, 11, 10, 19, 18
OPTIONS = {
    socket.SOL_SOCKET: [
        SO_MARK, SO_BUF_LOCK, socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_KEEPALIVE, socket.SO_PRIORITY,
        socket.SO_LINGER, socket.SO_RCVLOWAT, socket.SO_DONTROUTE, socket.SO_OOBINLINE, socket.SO_ERROR,
    ],
    socket.IPPROTO_IP: [IP_MINTTL, IP_RECVERR, IP_MTU_DISCOVER, socket.IP_TTL, socket.IP_TOS],
    socket.IPPROTO_TCP: [
        TCP_REPAIR, TCP_USER_TIMEOUT, socket.TCP_NODELAY, socket.TCP_CORK, socket.TCP_SYNCNT, socket.TCP_LINGER2,
        socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_DEFER_ACCEPT,
    ],
}  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.needs(*TECHNIQUES[name].needs)) for name in sorted(PLACES)],
    name="place",
)
def _place(request: pytest.FixtureRequest) -> Iterator[tuple[Duo, str]]:
    """The technique, and a lab in which it passes."""
    with duo(*PLACES[request.param]) as both:
        yield both, request.param


def test_hundred_megabytes_arrive_whole_and_swiftly(place: tuple[Duo, str]) -> None:
    """Wrong numbers, lost options or a crippled window show in bulk, not in a byte."""
    both, technique = place
    with both.punched(technique) as (a, b):
        for source, target, size_mib in ((a.socket, b.socket, 100), (b.socket, a.socket, 20)):
            start = time.monotonic()
            sent, got = _side_by_side(partial(_pour, source, size_mib), partial(_drink, target, size_mib))
            took_s = time.monotonic() - start
            assert sent == got
            assert took_s < size_mib / FLOOR_MIB_S


def test_window_is_wide_enough_for_a_long_path() -> None:
    """Without window scaling 40 ms of round trip leave 1.6 MiB/s: made sockets must have the options of born ones."""
    size_mib, least_mib_s = 12, 3
    with duo("untracked", "untracked", delay_ms=20) as both:
        for technique in ("tcp-midstream", "tcp-syni", "tcp-simopen", "tcp-nutss"):
            with both.punched(technique) as (a, b):
                start = time.monotonic()
                sent, got = _side_by_side(partial(_pour, a.socket, size_mib), partial(_drink, b.socket, size_mib))
                took_s = time.monotonic() - start
            assert sent == got
            assert took_s < size_mib / least_mib_s, technique


@pytest.mark.parametrize("technique", ["tcp-midstream", "tcp-syni"])
def test_tls_brings_its_own_proof_to_an_early_socket(technique: str, certificate: Path) -> None:
    """What `early` is for: the handshake begins while punchd still waits for its proof, on the same stream."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    asking = ssl.create_default_context(cafile=str(certificate))
    with duo("untracked", "untracked", delay_ms=10) as both:
        with client.connect_blocking(both.a.path) as near, client.connect_blocking(both.b.path) as far:
            asked = near.initiate(
                peer=both.lab.public_b, self_=both.lab.public_a, techniques=[technique], early=True, timeout_ms=5000
            )
            answering = far.respond(asked.notification(), timeout_ms=5000)
            with asked.early() as early:

                def ask() -> bytes:
                    with asking.wrap_socket(early, server_hostname="peer.example") as secured:
                        secured.sendall(b"question")
                        return _exactly(secured, 6)

                def serve() -> bytes:
                    with answering.result().socket as sock, serving.wrap_socket(sock, server_side=True) as secured:
                        assert b"question" == _exactly(secured, 8)
                        secured.sendall(b"answer")
                        return b"answer"

                assert [b"answer"] * 2 == _side_by_side(ask, serve)
                assert technique == asked.result().technique


def test_tls_handshake_and_data_pass(place: tuple[Duo, str], certificate: Path) -> None:
    """What applications will do first: the handed-over socket is plaintext."""
    both, technique = place
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    asking = ssl.create_default_context(cafile=str(certificate))
    with both.punched(technique) as (a, b):

        def serve() -> bytes:
            with serving.wrap_socket(a.socket, server_side=True) as secured:
                said = _exactly(secured, MIB)
                secured.sendall(hashlib.sha256(said).digest())
                secured.unwrap()
                return said

        def ask() -> bytes:
            said = os.urandom(MIB)
            with asking.wrap_socket(b.socket, server_hostname="peer.example") as secured:
                secured.sendall(said)
                assert hashlib.sha256(said).digest() == _exactly(secured, 32)
                secured.unwrap()
                return said

        assert len(set(_side_by_side(serve, ask))) == 1


def test_socket_is_as_fresh_as_any_other(place: tuple[Duo, str]) -> None:
    """An application must not have to know how its socket came about, nor trip over what we set."""
    both, technique = place
    with _Handed(both, technique) as socks, both.lab.a.socket(socket.AF_INET, socket.SOCK_STREAM) as fresh:
        for sock in socks:
            assert fcntl(sock, F_GETFL) & os.O_NONBLOCK
            assert fcntl(sock, F_GETFD)  # as the receiver asked for by MSG_CMSG_CLOEXEC
            assert _options(fresh) == _options(sock)
            assert 0 == struct.unpack("i", ioctl(sock, FIONREAD, bytes(4)))[0]
            with pytest.raises(FileNotFoundError):
                sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def test_punchd_keeps_no_copy(place: tuple[Duo, str]) -> None:
    """A copy would keep the peer waiting for an end of stream that never comes."""
    both, technique = place
    with both.punched(technique) as (a, b):
        for daemon in (both.a, both.b):
            held = {sock["inode"] for sock in held_sockets(daemon.place)}
            deadline = time.monotonic() + SOON_S  # the daemon closes its descriptor just after the kernel took it
            while not held.isdisjoint(_inodes(daemon)):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        a.socket.close()
        b.socket.settimeout(SOON_S)
        assert b"" == b.socket.recv(1)


@pytest.mark.parametrize("closer", ["a", "b"])
def test_reset_of_unread_data_reaches_the_peer(place: tuple[Duo, str], closer: str) -> None:
    """Our rules hold back the kernel's resets for holes, not the application's."""
    both, technique = place
    with both.punched(technique) as (a, b):
        one, other = (a.socket, b.socket) if closer == "a" else (b.socket, a.socket)
        other.sendall(b"never read")
        assert one.recv(1, socket.MSG_PEEK)
        one.close()
        other.settimeout(SOON_S)
        with pytest.raises(ConnectionResetError):
            other.recv(1)


@pytest.mark.parametrize("closer", ["a", "b"])
def test_writer_to_a_closed_peer_learns_of_it_soon(place: tuple[Duo, str], closer: str) -> None:
    """The reset for data after a close has no owner; without the set of closed connections it would be held back."""
    both, technique = place
    with both.punched(technique) as (a, b):
        one, other = (a.socket, b.socket) if closer == "a" else (b.socket, a.socket)
        one.close()
        other.settimeout(SOON_S)
        assert b"" == other.recv(1)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            _write_for(other, SOON_S)


def test_half_closed_stream_goes_on_the_other_way(place: tuple[Duo, str]) -> None:
    """Request, end of request, answer: how many programs speak."""
    both, technique = place
    with both.punched(technique) as (a, b):
        a.socket.sendall(b"question")
        a.socket.shutdown(socket.SHUT_WR)
        assert b"question" == _exactly(b.socket, 8)
        assert b"" == b.socket.recv(1)
        b.socket.sendall(b"answer")
        b.socket.close()
        assert b"answer" == _exactly(a.socket, 6)
        assert b"" == a.socket.recv(1)


@pytest.mark.skipif(shutil.which("sshd") is None, reason="needs sshd")
def test_ssh_passes_punchctl_cat_into_sshd(tmp_path: Path) -> None:
    """The promise of the README: `ssh -o ProxyCommand='punchctl cat ...'`; sshd reads the handed-over socket itself."""
    keys = {name: tmp_path / name for name in ("host", "user")}
    for key in keys.values():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    accepted, config, known = tmp_path / "authorized", tmp_path / "sshd_config", tmp_path / "known"
    accepted.write_text(keys["user"].with_suffix(".pub").read_text())
    known.write_text("bob " + keys["host"].with_suffix(".pub").read_text())
    settings = {
        "HostKey": keys["host"], "AuthorizedKeysFile": accepted, "StrictModes": "no", "UsePAM": "no",
        "PermitRootLogin": "yes", "PermitUserRC": "no", "PidFile": "none",
    }  # fmt: skip
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    cat = tmp_path / "punchctl"
    cat.write_text(f"#!{sys.executable}\nfrom punchd.ctl import main\nmain()\n")
    cat.chmod(0o755)
    rendezvous = Path(__file__).parents[2] / "examples" / "rendezvous.py"
    with duo("linux", "linux") as both:
        server, place = both.lab.server, f"{both.lab.server.address}:7000"
        server.popen([sys.executable, str(rendezvous)])
        _wait_for(lambda: _listens(server.address, both))
        # a /run of its own, where sshd wants a folder, invisible to this machine
        sshd = f"mount -t tmpfs none /run && mkdir /run/sshd && exec {shutil.which('sshd')} -i -e -f {config}"
        inetd = [sys.executable, str(Path(__file__).with_name("inetd.py")), both.b.path, place, "bob"]
        door = both.lab.b.popen(
            [*inetd, "unshare", "-m", "sh", "-c", sshd],
            stdout=subprocess.PIPE,
            stderr=(tmp_path / "sshd.log").open("wb"),
        )
        assert door.stdout is not None
        assert b"ready\n" == door.stdout.readline()
        proxy = f"{cat} cat --socket {both.a.path} --rendezvous {place} --name anna --peer bob"
        options = {
            "ProxyCommand": proxy, "IdentityFile": keys["user"], "IdentitiesOnly": "yes", "UserKnownHostsFile": known,
            "GlobalKnownHostsFile": "/dev/null", "StrictHostKeyChecking": "yes", "BatchMode": "yes",
        }  # fmt: skip
        ssh = ["ssh", "-F", "/dev/null", *(f"-o{name}={value}" for name, value in options.items()), "root@bob"]
        done = subprocess.run(
            both.lab.a.command([*ssh, "sha256sum; echo said >&2"]),
            input=b"x" * MIB, capture_output=True, check=False, timeout=20,
        )  # fmt: skip
    assert hashlib.sha256(b"x" * MIB).hexdigest() == done.stdout.decode().partition(" ")[0], done.stderr.decode()
    assert b"said" in done.stderr


@pytest.fixture(scope="module", name="certificate")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-made certificate in one file."""
    path = tmp_path_factory.mktemp("tls") / "peer.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=peer.example"
    extra = ["-addext", "subjectAltName=DNS:peer.example"]
    subprocess.run(
        ["openssl", *words.split(), *extra, "-keyout", str(path), "-out", str(path) + ".crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    with path.open("a") as both:
        both.write(Path(str(path) + ".crt").read_text())
    return path


class _Handed:
    """The sockets as they come by SCM_RIGHTS, before any client library has touched them."""

    def __init__(self, both: Duo, technique: str) -> None:
        self._both, self._technique = both, technique
        self._talkers: list[Talker] = []

    def __enter__(self) -> list[socket.socket]:
        near, far = self._talkers = [Talker(self._both.a.path), Talker(self._both.b.path)]
        lab = self._both.lab
        near.say(
            {"id": "1", "call": "initiate", "peer": lab.public_b, "self": lab.public_a, "techniques": [self._technique]}
        )
        text = near.hear()["notification"]
        far.say({"id": "1", "call": "respond", "notification": text})
        assert ["ok", "ok"] == [talker.final()["status"] for talker in (near, far)]
        return [talker.fds[0] for talker in (near, far)]

    def __exit__(self, *unused: object) -> None:
        for talker in self._talkers:
            talker.close()


def _options(sock: socket.socket) -> dict[tuple[int, int], bytes]:
    return {(level, name): sock.getsockopt(level, name, 8) for level, names in OPTIONS.items() for name in names}


def _inodes(daemon: Daemon) -> set[int]:
    """The sockets that the daemon holds, by inode."""
    links = []
    for entry in os.listdir(folder := f"/proc/{daemon.pid}/fd"):
        try:
            links.append(os.readlink(f"{folder}/{entry}"))
        except FileNotFoundError:
            continue
    return {int(link[8:-1]) for link in links if link.startswith("socket:[")}


def _pour(sock: socket.socket, size_mib: int) -> bytes:
    """Send so many MiB, no two alike; their hash."""
    block, digest = memoryview(os.urandom(2 * MIB)), hashlib.sha256()
    for number in range(size_mib):
        chunk = block[number * 997 : number * 997 + MIB]
        digest.update(chunk)
        sock.sendall(chunk)
    return digest.digest()


def _drink(sock: socket.socket, size_mib: int) -> bytes:
    """Receive so many MiB; their hash."""
    digest, left, buffer = hashlib.sha256(), size_mib * MIB, memoryview(bytearray(MIB))
    while left:
        got = sock.recv_into(buffer, min(left, MIB))
        if not got:
            break
        digest.update(buffer[:got])
        left -= got
    return digest.digest()


def _write_for(sock: socket.socket, duration_s: float) -> None:
    deadline = time.monotonic() + duration_s
    while time.monotonic() < deadline:
        sock.send(b"into the void")
        time.sleep(0.02)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def _side_by_side(*works: Callable[[], bytes]) -> list[bytes]:
    """Each in a thread of its own; their results, or the first failure."""
    results: dict[int, bytes] = {}
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            results[number] = works[number]()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(works))]


def _listens(address: str, both: Duo) -> bool:
    with both.lab.server.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((address, 7000)) == 0


def _wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
