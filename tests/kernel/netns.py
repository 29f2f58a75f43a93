"""Three namespaces in a row, a - r - b, for the programs that ask the kernel a question.
It models no NAT (the lab does) and touches nothing outside the namespaces it made.
"""

import contextlib
import ctypes
import itertools
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator

from punchd.edge import native

A, B = "10.66.1.2", "10.66.2.2"
CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
IP_MINTTL = 21
_libc = ctypes.CDLL(None, use_errno=True)
_ports = iter(range(22000, 32000))
_nets = itertools.count()


class Net:
    """a is 10.66.1.2, b is 10.66.2.2, r between them answers every worn-out packet."""

    def __init__(self) -> None:
        prefix = f"pdc{os.getpid()}-{next(_nets)}"
        self.names = {side: f"{prefix}-{side}" for side in "arb"}

    def __enter__(self) -> "Net":
        a, r, b = (self.names[side] for side in "arb")
        try:
            for name in (a, r, b):
                _ip("netns", "add", name)
            for name, number in ((a, 1), (b, 2)):
                _ip("-n", name, "link", "add", "eth0", "type", "veth",
                    "peer", "name", f"eth{number}", "netns", r)  # fmt: skip
                _batch(name, f"addr add 10.66.{number}.2/24 dev eth0", "link set lo up", "link set eth0 up",
                       f"route add default via 10.66.{number}.1")  # fmt: skip
                _batch(r, f"addr add 10.66.{number}.1/24 dev eth{number}", f"link set eth{number} up")
            with self.inside("r"):
                _sysctl("net.ipv4.ip_forward", "1")
                _sysctl("net.ipv4.icmp_ratelimit", "0")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)

    @contextlib.contextmanager
    def inside(self, side: str) -> Iterator[None]:
        """What is opened here belongs to that namespace, also afterwards."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/run/netns/{self.names[side]}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(there)
            os.close(home)

    def tcp(self, side: str, port: int = 0) -> socket.socket:
        """A TCP socket bound to that host's address, SO_REUSEADDR set."""
        with self.inside(side):
            sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((A if side == "a" else B, port))
        sock.settimeout(2)
        return sock

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """An ordinary connection: a's socket and b's."""
        with self.tcp("b") as listener:
            listener.listen()
            near = self.tcp("a")
            near.connect(listener.getsockname())
            return near, listener.accept()[0]

    def sender(self, side: str) -> native.RawSender:
        with self.inside(side):
            return native.RawSender()

    def sniffer(self, side: str) -> socket.socket:
        """All IP packets that host sends and receives, without a ring and without a filter."""
        with self.inside(side):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        sock.setblocking(False)
        return sock


def fresh_port() -> int:
    """A port no earlier test used: a 4-tuple must not meet its own past."""
    return next(_ports)


Caught = tuple[bool, native.Segment]


def catch(sock: socket.socket, wanted: Callable[[bool, native.Segment], bool], *, within_s: float) -> Caught | None:
    """The first segment that fits (is it outgoing, and what it says), or None in time."""
    end = time.monotonic() + within_s
    while (left := end - time.monotonic()) > 0:
        if not select.select([sock], [], [], left)[0]:
            return None
        data, link = sock.recvfrom(2048)
        try:
            segment = native.parse(data)
        except ValueError:
            continue
        outgoing = link[2] == socket.PACKET_OUTGOING
        if wanted(outgoing, segment):
            return outgoing, segment
    return None


def tcp_info_u32(sock: socket.socket, offset: int) -> int:
    """A 32-bit field of struct tcp_info."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int.from_bytes(info[offset : offset + 4], "little")


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _batch(name: str, *lines: str) -> None:
    subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(lines), text=True, check=True)


def _sysctl(key: str, value: str) -> None:
    with open(f"/proc/sys/{key.replace('.', '/')}", "w") as file:
        file.write(value)


def icmp_error(sender: str, target: str, kind: int, quoted: bytes) -> bytes:
    """What a router says of a packet, from its IP header on; the kernel fills in that header's checksum (raw(7))."""
    icmp = struct.pack("!BBHI", kind, 0, 0, 0) + quoted
    words = struct.unpack(f"!{len(icmp) // 2}H", icmp)
    icmp = icmp[:2] + struct.pack("!H", 0xFFFF - sum(words) % 0xFFFF) + icmp[4:]
    ends = socket.inet_aton(sender), socket.inet_aton(target)
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), 1, 0, 64, 1, 0, *ends) + icmp
