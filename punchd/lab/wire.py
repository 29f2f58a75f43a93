"""What happened on the wire, in order: a sniffer outside both NATs, and its story of each 4-tuple in words.

It refuses to interpret: it says who sent what, and where a packet that is too short-lived dies. A packet is
noted once, where it leaves its side, so what a NAT swallowed never shows. punchd's own signals bear their names.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from types import TracebackType

from punchd.words.events import BY_WINDOW, Signal

from .topology import Lab

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

_FLAGS = ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (ACK, "ACK"))
_TIME_EXCEEDED = 11
_HOPS = ("r1", "r2", "r3")  # from A's side; B's packets meet them the other way round
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35  # socket(7); Python 3.11 does not name them
_ETH_P_ALL = 3  # packet(7): a tap bound to one protocol never sees what goes out
_BUFFER_LEN = 16 << 20
_TAGGED_LEN = 9  # a datagram of punchd's: the attempt's tag and one byte


@dataclass(frozen=True, slots=True)
class Packet:
    """What one wants to know of a packet; of an ICMP error, its kind and sender and the quoted ports."""

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
    payload_len: int = 0
    quoted: tuple[str, str] | None = None  # source and destination inside an ICMP error
    signal: Signal | None = None  # what one punchd tells the other by it


@dataclass(frozen=True, slots=True, order=True)
class Sight:
    """A packet that left one side: A, B, or their NATs."""

    time_ns: int
    side: str
    packet: Packet = field(compare=False)

    def words(self) -> str:
        """Who, what, and where it dies if it does."""
        packet = self.packet
        who, hops = (self.side, _HOPS if self.side == "A" else _HOPS[::-1])
        if packet.icmp is not None:
            kind = "time exceeded" if packet.icmp[0] == _TIME_EXCEEDED else f"ICMP {packet.icmp[0]}/{packet.icmp[1]}"
            return f"{kind} to {who}" if packet.icmp[0] == _TIME_EXCEEDED else f"NAT {who.lower()} {kind}"
        if packet.ttl == 64:
            who = f"NAT {who.lower()}"  # one hop less than its host: it answers by itself
        dies = f" (dies at {hops[packet.ttl - 1]})" if packet.ttl <= len(hops) else ""
        return f"{who} {_what(packet)}{dies}"


class Wire:
    """Sniffs for the length of a `with` block."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._sights: list[Sight] = []
        self._taps: dict[socket.socket, str] = {}
        self._stop_reading, self._stop_asking = socket.socketpair()
        self._thread = threading.Thread(target=self._sniff, name="wire", daemon=True)

    def __enter__(self) -> Wire:
        for router, side in ((self._lab.r1, "A"), (self._lab.r3, "B")):
            tap = router.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
            tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_LEN)
            tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            with router.enter():
                tap.bind(("nat", _ETH_P_ALL))
            tap.setblocking(False)
            self._taps[tap] = side
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_asking.close()
        self._thread.join()
        for tap in (*self._taps, self._stop_reading):
            tap.close()

    def stories(self) -> dict[str, list[Sight]]:
        """The packets between the two public addresses, by flow, in order of their first."""
        found: dict[str, list[Sight]] = {}
        for sight in sorted(self._sights):
            if (flow := self._flow(sight.packet)) is not None:
                found.setdefault(flow, []).append(sight)
        return found

    def _flow(self, packet: Packet) -> str | None:
        a, b = self._lab.public_a, self._lab.public_b
        ends = {packet.src: packet.sport, packet.dst: packet.dport}
        if packet.quoted is not None:
            ends = dict(zip(packet.quoted, (packet.sport, packet.dport), strict=True))
        if set(ends) != {a, b}:
            return None
        return f"{a}:{ends[a]} - {b}:{ends[b]}"

    def _sniff(self) -> None:
        while True:
            ready = select.select([*self._taps, self._stop_reading], [], [])[0]
            for tap in ready:
                if tap is not self._stop_reading:
                    self._drain(tap, self._taps[tap])
            if ready == [self._stop_reading]:
                return

    def _drain(self, tap: socket.socket, side: str) -> None:
        while True:
            try:
                data, ancillary, _, address = tap.recvmsg(65536, 128)
            except BlockingIOError:
                return
            packet = parse(data)
            if packet is None:
                continue
            # packets are noted where they come out of a NAT, routers' errors where they go back into one
            expired = packet.icmp is not None and packet.icmp[0] == _TIME_EXCEEDED
            if expired != (address[2] == socket.PACKET_OUTGOING):
                continue
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            self._sights.append(Sight(seconds * 10**9 + nanoseconds, side, packet))


def story(sights: Iterable[Sight]) -> str:
    """One flow in one line: `A SYN (dies at r1), time exceeded to A, B SYN, A SYN-ACK, B ACK, B ACK commit`."""
    return ", ".join(words for _, words in steps(sights))


def steps(sights: Iterable[Sight]) -> Iterator[tuple[int, str]]:
    """One flow, a step at a time: when it began in ns, and its words; the same one again and again is one step."""
    for words, same in groupby(sights, key=Sight.words):
        times_ns = [sight.time_ns for sight in same]
        yield times_ns[0], words if len(times_ns) == 1 else f"{words} x{len(times_ns)}"


def parse(data: bytes) -> Packet | None:
    """The IPv4 packet, or None when it is none of TCP, UDP and ICMP errors."""
    if len(data) < 28 or data[0] >> 4 != 4:
        return None
    head = (data[0] & 15) * 4
    length = struct.unpack_from("!H", data, 2)[0]
    src, dst = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
    protocol, ttl, body = data[9], data[8], data[head:]
    if protocol == socket.IPPROTO_ICMP:
        # an error may quote no more than 8 bytes beyond the header (RFC 792)
        quoted = parse(body[8:] + bytes(12)) if body[0] in (3, _TIME_EXCEEDED) else None
        if quoted is None:
            return None
        kind, inner = (body[0], body[1]), (quoted.src, quoted.dst)
        return Packet(src, dst, protocol, quoted.sport, quoted.dport, ttl=ttl, icmp=kind, quoted=inner)
    sport, dport = struct.unpack_from("!HH", body)
    if protocol == socket.IPPROTO_UDP:
        signal = _tagged(body[8 : length - head])
        return Packet(src, dst, protocol, sport, dport, ttl=ttl, payload_len=length - head - 8, signal=signal)
    if protocol != socket.IPPROTO_TCP or len(body) < 20:
        return None
    seq, ack, offset, flags, window = struct.unpack_from("!IIBBH", body, 4)
    payload_len = length - head - (offset >> 4) * 4
    signal = BY_WINDOW.get(window) if flags == ACK and payload_len == 0 else None
    return Packet(src, dst, protocol, sport, dport, flags, seq, ack, ttl, payload_len=payload_len, signal=signal)


def _tagged(payload: bytes) -> Signal | None:
    if len(payload) != _TAGGED_LEN or payload[-1] > max(Signal):
        return None
    return Signal(payload[-1])


def _what(packet: Packet) -> str:
    if packet.icmp is not None:
        return f"ICMP {packet.icmp[0]}/{packet.icmp[1]}"
    if packet.protocol == socket.IPPROTO_UDP:
        names = ["datagram"]
    elif packet.payload_len:
        names = ["data"]
    else:
        names = ["-".join(name for flag, name in _FLAGS if packet.flags & flag) or "nothing"]
    return " ".join(names if packet.signal is None else [*names, packet.signal.name.lower()])
