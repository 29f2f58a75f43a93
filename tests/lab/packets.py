"""Raw packets for the lab's tests: builds TCP and UDP segments, sends them in a namespace, sees what arrives.

It refuses to depend on punchd's own segment code, which it helps to judge. IPv4 without options only.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from punchd.lab.namespace import Namespace

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
SILENCE_S = 0.06  # longer than any packet needs through a lab without delay

# the host's own kernel must not answer what the test sends and receives for it
MUTE = "table ip mute { chain input { type filter hook input priority filter; policy drop; }; }"


@dataclass(frozen=True, slots=True)
class Packet:
    """What a test wants to know of one packet; of an ICMP error, its kind, sender and the quoted ports."""

    src: str
    dst: str
    protocol: int
    sport: int = 0
    dport: int = 0
    flags: int = 0
    seq: int = 0
    ack: int = 0
    ttl: int = 0
    icmp: tuple[int, int] | None = None


class Probe:
    """Sends from one namespace and captures what one of its interfaces receives, from now on."""

    def __init__(self, place: Namespace, interface: str = "eth0") -> None:
        self._raw = place.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._tap = place.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        with place.enter():
            self._tap.bind((interface, 0x0800))
        self._tap.setblocking(False)

    def close(self) -> None:
        self._raw.close()
        self._tap.close()

    def send(self, packet: Packet) -> None:
        self._raw.sendto(build(packet), (packet.dst, 0))

    def receive(self, wanted: Callable[[Packet], bool], *, wait_s: float = SILENCE_S) -> Packet | None:
        """The next arriving packet that is wanted, None after silence."""
        deadline = time.monotonic() + wait_s
        while (left_s := deadline - time.monotonic()) > 0:
            if not select.select([self._tap], [], [], left_s)[0]:
                return None
            data, address = self._tap.recvfrom(2048)
            packet = parse(data)
            if address[2] != socket.PACKET_OUTGOING and packet is not None and wanted(packet):
                return packet
        return None


def build(packet: Packet) -> bytes:
    """An IPv4 packet with whole checksums."""
    if packet.protocol == socket.IPPROTO_TCP:
        body = struct.pack(
            "!HHIIBBHHH", packet.sport, packet.dport, packet.seq, packet.ack, 0x50, packet.flags, 65535, 0, 0
        )
        at = 16
    else:
        body = struct.pack("!HHHH", packet.sport, packet.dport, 12, 0) + b"test"
        at = 6
    src, dst = socket.inet_aton(packet.src), socket.inet_aton(packet.dst)
    pseudo = src + dst + struct.pack("!BBH", 0, packet.protocol, len(body))
    body = body[:at] + struct.pack("!H", _checksum(pseudo + body)) + body[at + 2 :]
    # the kernel fills in the length, the id and the header's checksum (raw(7))
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, packet.ttl or 64, packet.protocol, 0, src, dst)
    return head + body


def parse(data: bytes) -> Packet | None:
    """The packet, or None when it is none of TCP, UDP and ICMP errors."""
    if len(data) < 28 or data[0] >> 4 != 4:
        return None
    head = (data[0] & 15) * 4
    src, dst = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
    protocol, ttl, body = data[9], data[8], data[head:]
    if protocol == socket.IPPROTO_ICMP:
        quoted = parse(body[8:] + bytes(12)) if body[0] in (3, 11) else None
        if quoted is None:
            return None
        return Packet(src, dst, protocol, quoted.sport, quoted.dport, ttl=ttl, icmp=(body[0], body[1]))
    sport, dport = struct.unpack_from("!HH", body)
    if protocol == socket.IPPROTO_UDP:
        return Packet(src, dst, protocol, sport, dport, ttl=ttl)
    if protocol != socket.IPPROTO_TCP or len(body) < 20:
        return None
    seq, ack, _, flags = struct.unpack_from("!IIBB", body, 4)
    return Packet(src, dst, protocol, sport, dport, flags, seq, ack, ttl)


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
