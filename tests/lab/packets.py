"""Raw packets for the lab's tests: builds TCP and UDP, sends in a namespace, sees what arrives.

It refuses to depend on punchd's own segment code, which it helps to judge. IPv4 without options only.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable

from punchd.lab.namespace import Namespace
from punchd.lab.wire import Packet, parse

SILENCE_S = 0.04  # longer than any packet needs through a lab without delay

# the host's own kernel must not answer what the test sends and receives for it
MUTE = "table ip mute { chain input { type filter hook input priority filter; policy drop; }; }"


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

    def forget(self) -> None:
        """What has arrived so far is of no interest."""
        while select.select([self._tap], [], [], 0)[0]:
            self._tap.recvfrom(2048)

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
        ) + bytes(packet.payload_len)
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


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
