"""The modelled host: as much of Linux's TCP and UDP as punching can meet, and what a capture ring shows of it.
It refuses to decide when to connect, listen or close (model_peer.py does) and carries no stream but counted bytes.

A socket goes SYN_SENT -> [SYN_RECV ->] ESTABLISHED, or is made ESTABLISHED at once (TCP_REPAIR), or comes from a
listener. Modelled because techniques lean on it: simultaneous open and its crossed SYN-ACKs, the kernel's
retransmission of a SYN or SYN-ACK after 1 s with the socket's TTL, a duplicate ACK for a segment below RCV.NXT
(half a second apart), RST to strays (held back by punchd's rules unless the daemon is blind), RST and ICMP that
end a socket, ISNs of one 4-tuple that rise with a 64 ns clock, and a stream long enough to prove both directions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum, auto

from punchd.lab.model_nat import Nat
from punchd.lab.model_net import (
    FIN,
    PSH,
    SEQ_MASK,
    UNREACHABLE,
    Carried,
    Clock,
    Datagram,
    IcmpError,
    Net,
    Packet,
    Refused,
    Segment,
    refusal,
)  # fmt: skip
from punchd.words.events import ACK, RST, SYN, WINDOWS, Signal

FULL_TTL = 64
WINDOW = 64240
ECONNRESET, ETIMEDOUT, ECONNREFUSED = 104, 110, 111
_SYN_RETRY_S = 1.0  # TCP_TIMEOUT_INIT
_SYN_LINEAR, _SYN_RETRIES = 4, 10  # net.ipv4.tcp_syn_linear_timeouts; that many plus tcp_syn_retries
_DATA_RETRY_S = 0.2
_DATA_RETRIES = 9
_OUT_OF_WINDOW_S = 0.5  # net.ipv4.tcp_invalid_ratelimit
_SYN_ACK = SYN | ACK


class TcpState(Enum):
    """States a modelled socket can be in."""

    SYN_SENT = auto()
    SYN_RECV = auto()
    ESTABLISHED = auto()
    FIN_WAIT = auto()
    CLOSED = auto()


class Tcp:
    """A TCP socket. `on_news` is told "connected", "readable" or "failed"."""

    __slots__ = (
        "errno", "fin_received", "fin_sent", "heard", "kernel", "last_challenge", "on_news", "port", "queued",
        "rcv_nxt", "received", "remote", "retries", "snd_nxt", "snd_una", "state", "stubborn", "ttl", "unsent",
    )  # fmt: skip

    def __init__(self, kernel: Kernel, port: int, remote: int, *, state: TcpState, snd_nxt: int, rcv_nxt: int) -> None:
        self.kernel, self.port, self.remote, self.state = kernel, port, remote, state
        self.snd_una = self.snd_nxt = snd_nxt
        self.rcv_nxt = rcv_nxt
        self.ttl = FULL_TTL
        self.received = self.queued = self.errno = self.retries = 0
        self.fin_sent = self.fin_received = self.stubborn = self.heard = False
        self.last_challenge = -1.0
        self.on_news: Callable[[str], None] | None = None

    def write(self, length: int) -> None:
        """Data of the application; it is repeated until it is acknowledged."""
        if self.state is TcpState.ESTABLISHED:
            self.queued += length
            self.snd_nxt = (self.snd_nxt + length) & SEQ_MASK
            self._send_data(1)

    def close(self) -> None:
        """close(): a FIN where there is a connection, nothing in SYN_SENT."""
        self.on_news = None
        if self.state in (TcpState.ESTABLISHED, TcpState.SYN_RECV):
            self.state, self.fin_sent = TcpState.FIN_WAIT, True
            self.snd_nxt = _after(self.snd_nxt)
            self._send_data(1)
        else:
            self.vanish()

    def vanish(self) -> None:
        """close() in repair mode: no packet, and the 4-tuple is free."""
        self.on_news = None
        self.state = TcpState.CLOSED
        self.kernel.forget(self)

    def fail(self, errno: int) -> None:
        """The kernel gives it up."""
        self.errno = errno
        told, self.on_news = self.on_news, None
        self.vanish()
        if told is not None:
            told("failed")

    def take(self, segment: Segment) -> None:
        """A segment for this socket has come."""
        self.heard = True
        if self.state is TcpState.SYN_SENT:
            self._take_unconnected(segment)
        else:
            self._take_connected(segment)

    def send_syn(self) -> None:
        """The first SYN or a repeated one."""
        self.emit(SYN, (self.snd_nxt - 1) & SEQ_MASK, 0)

    def emit(self, flags: int, seq: int, length: int = 0) -> None:
        ack = self.rcv_nxt if flags & ACK else 0
        self.kernel.emit(Segment(self.port, self.remote, flags, seq, ack, WINDOW, self.ttl, length))

    def retry_syn(self) -> None:
        """The kernel's own timer for SYN and SYN-ACK."""
        if self.state not in (TcpState.SYN_SENT, TcpState.SYN_RECV):
            return
        if self.retries == _SYN_RETRIES:
            self.fail(ETIMEDOUT)
            return
        self.retries += 1
        self.emit(SYN if self.state is TcpState.SYN_SENT else _SYN_ACK, (self.snd_nxt - 1) & SEQ_MASK)
        self.kernel.after(_SYN_RETRY_S * 2.0 ** max(0, self.retries - _SYN_LINEAR), self.retry_syn)

    def _take_unconnected(self, segment: Segment) -> None:
        """RFC 9293, section 3.10.7.3."""
        if self.stubborn and segment.flags & RST:
            return  # the socket filter's word comes first
        acknowledges = bool(segment.flags & ACK)
        if acknowledges and segment.ack != self.snd_nxt:
            self.kernel.refuse(segment)
        elif segment.flags & RST:
            if acknowledges:
                self.fail(ECONNREFUSED)
        elif segment.flags & SYN:
            self.rcv_nxt = _after(segment.seq)
            if acknowledges:
                self._establish()
                self.emit(ACK, self.snd_nxt)
            else:
                self.state = TcpState.SYN_RECV
                self.emit(_SYN_ACK, (self.snd_nxt - 1) & SEQ_MASK)

    def _take_connected(self, segment: Segment) -> None:
        """RFC 9293, section 3.10.7.4, in Linux's order (tcp_input.c, tcp_validate_incoming)."""
        flags = segment.flags
        ahead = (segment.seq - self.rcv_nxt) & SEQ_MASK
        if flags & RST:
            if ahead == 0:
                self.fail(ECONNRESET)
            return
        if flags & SYN:
            crossed = self.state is TcpState.SYN_RECV and flags & ACK and segment.ack == self.snd_nxt
            if crossed and segment.end == self.rcv_nxt:
                self._establish()
            self.emit(ACK, self.snd_nxt)
            return
        if _is_before(segment.end, self.rcv_nxt) or (ahead and not _is_before(segment.seq, self.rcv_nxt)):
            self._challenge(segment)
            return
        if not flags & ACK or not self._acknowledged(segment.ack):
            return
        if self.state is TcpState.SYN_RECV:
            self._establish()
        self._read(segment)

    def _acknowledged(self, ack: int) -> bool:
        if _is_before(self.snd_nxt, ack):
            return False
        if self.state is TcpState.SYN_RECV:
            return ack == self.snd_nxt
        if _is_before(self.snd_una, ack):
            self.snd_una = ack
            if ack == self.snd_nxt:
                self.queued = 0
                if self.state is TcpState.FIN_WAIT:
                    self.vanish()
        return True

    def _read(self, segment: Segment) -> None:
        new = (segment.end - self.rcv_nxt) & SEQ_MASK
        if not (segment.length or segment.flags & FIN):
            return
        if new:
            self.rcv_nxt = segment.end
            self.received += new - (segment.flags & FIN != 0)
            self.fin_received |= bool(segment.flags & FIN)
        if self.state is TcpState.FIN_WAIT and segment.length:
            self.kernel.refuse(segment)  # an orphan has nobody to read it
            self.vanish()
            return
        self.emit(ACK, self.snd_nxt)
        if new and self.on_news is not None:
            self.on_news("readable")

    def _establish(self) -> None:
        self.state = TcpState.ESTABLISHED
        self.snd_una = self.snd_nxt
        if self.on_news is not None:
            self.on_news("connected")

    def _challenge(self, segment: Segment) -> None:
        now = self.kernel.clock.now
        if segment.length == 0 and now - self.last_challenge < _OUT_OF_WINDOW_S:
            return
        self.last_challenge = now
        self.emit(ACK, self.snd_nxt)

    def _send_data(self, turn: int) -> None:
        """Everything unacknowledged in one segment, again and again."""
        unacknowledged = (self.snd_nxt - self.snd_una) & SEQ_MASK
        if not unacknowledged or self.state not in (TcpState.ESTABLISHED, TcpState.FIN_WAIT):
            return
        flags = PSH | ACK | (FIN if self.fin_sent else 0)
        self.emit(flags, self.snd_una, unacknowledged - self.fin_sent)
        if turn > _DATA_RETRIES:
            self.fail(ETIMEDOUT)
        else:
            self.kernel.after(_DATA_RETRY_S * turn, lambda: self._send_data(turn + 1))


class Listener:
    """A listening socket that one peer can reach; `accepted` waits for accept(). Its children inherit its TTL."""

    __slots__ = ("accepted", "kernel", "on_news", "port", "requests", "ttl")

    def __init__(self, kernel: Kernel, port: int, ttl: int) -> None:
        self.kernel, self.port, self.ttl = kernel, port, ttl
        self.requests: dict[int, Tcp] = {}
        self.accepted: list[Tcp] = []
        self.on_news: Callable[[str], None] | None = None

    def take(self, segment: Segment) -> None:
        """A segment for no socket but this one."""
        request = self.requests.get(segment.src)
        if request is not None:
            request.take(segment)
        elif segment.flags & (SYN | ACK | RST) == SYN:
            isn = self.kernel.isn(self.port, segment.src)
            request = Tcp(
                self.kernel, self.port, segment.src,
                state=TcpState.SYN_RECV, snd_nxt=_after(isn), rcv_nxt=_after(segment.seq),
            )  # fmt: skip
            request.ttl = self.ttl
            self.requests[segment.src] = request
            request.on_news = lambda news: self._grown(request, news)
            request.emit(_SYN_ACK, isn)
            self.kernel.after(_SYN_RETRY_S, request.retry_syn)
        else:
            self.kernel.refuse(segment)

    def close(self) -> None:
        """Its half-open requests die silently; who was not accepted is reset."""
        self.on_news = None
        for request in self.requests.values():
            request.vanish()
        for sock in self.accepted:
            self.kernel.refuse_with(sock)
        self.kernel.listeners.pop(self.port, None)

    def _grown(self, request: Tcp, news: str) -> None:
        if news == "connected":
            request.on_news = None
            del self.requests[request.remote]
            self.kernel.adopt(request)
            self.accepted.append(request)
            if self.on_news is not None:
                self.on_news("connected")
        elif news == "failed":
            self.requests.pop(request.remote, None)


class Udp:
    """A UDP socket connected to the peer; `queue` holds what came."""

    __slots__ = ("kernel", "on_news", "port", "queue", "remote")

    def __init__(self, kernel: Kernel, port: int, remote: int) -> None:
        self.kernel, self.port, self.remote = kernel, port, remote
        self.queue: list[bytes] = []
        self.on_news: Callable[[str], None] | None = None

    def send(self, data: bytes, ttl: int = FULL_TTL) -> None:
        """One datagram."""
        self.kernel.emit(Datagram(self.port, self.remote, data, ttl))

    def close(self) -> None:
        """Nothing is sent."""
        self.on_news = None
        self.kernel.datagrams.pop((self.port, self.remote), None)


Sighting = tuple[Packet, bool, int]  # what the ring keeps: packet, outgoing, TTL


class Kernel:
    """One host's network stack. `sights` is the ring; None where there is none."""

    __slots__ = (
        "_firewall", "_hole_ttl", "_net", "_salt", "_side", "clock", "datagrams", "listeners", "muted", "on_idle",
        "sights", "streams",
    )  # fmt: skip

    def __init__(
        self, clock: Clock, net: Net, side: int, *, salt: int, hole_ttl: int, blind: bool, firewall: Nat | None
    ) -> None:
        self.clock, self._net, self._side = clock, net, side
        self._salt, self._hole_ttl, self._firewall = salt, hole_ttl, firewall
        self.muted = not blind
        self.sights: list[Sighting] | None = None if blind else []
        self.streams: dict[tuple[int, int], Tcp] = {}
        self.datagrams: dict[tuple[int, int], Udp] = {}
        self.listeners: dict[int, Listener] = {}
        self.on_idle: Callable[[], None] = lambda: None

    # -- system calls --------------------------------------------------------------------------------------------

    def connect(self, port: int, remote: int, ttl: int | None, *, stubborn: bool = False) -> Tcp:
        """A socket whose SYN has left."""
        sock = Tcp(self, port, remote, state=TcpState.SYN_SENT, snd_nxt=_after(self.isn(port, remote)), rcv_nxt=0)
        sock.stubborn = stubborn
        sock.ttl = ttl or FULL_TTL
        self.adopt(sock)
        sock.send_syn()
        self.after(_SYN_RETRY_S, sock.retry_syn)
        return sock

    def establish(self, port: int, remote: int, *, snd_nxt: int, rcv_nxt: int) -> Tcp:
        """A socket made by TCP_REPAIR, without a packet."""
        sock = Tcp(self, port, remote, state=TcpState.ESTABLISHED, snd_nxt=snd_nxt, rcv_nxt=rcv_nxt)
        self.adopt(sock)
        return sock

    def listen(self, port: int, ttl: int | None) -> Listener:
        """A listening socket."""
        listener = self.listeners[port] = Listener(self, port, ttl or FULL_TTL)
        return listener

    def datagram(self, port: int, remote: int) -> Udp:
        """A UDP socket."""
        sock = self.datagrams[(port, remote)] = Udp(self, port, remote)
        return sock

    def emit(self, packet: Carried) -> None:
        """Out through the host's own firewall; the ring sees what passes; then onto the wire."""
        if self._firewall is not None and self._firewall.outbound(packet, self.clock.now) is None:
            return
        if self.sights is not None and isinstance(packet, Segment) and self._keeps_outgoing(packet):
            self.sights.append((packet, True, packet.ttl))
        self._net.leave(self._side, packet)

    def inject(self, segment: Segment) -> None:
        """A segment from this host to itself over lo, where the ring does not look and the firewall accepts."""
        if self._firewall is not None:
            self._firewall.inbound(segment, self.clock.now)
        self._dispatch(segment)

    # -- the wire ------------------------------------------------------------------------------------------------

    def receive(self, packet: Packet, ttl: int) -> Refused | None:
        """A packet has arrived: the ring first, then the host's firewall, then the stack; then the daemon wakes.

        A datagram for no socket is refused, which the net makes an ICMP error of.
        """
        if self.sights is not None and _keeps_incoming(packet):
            self.sights.append((packet, False, ttl))
        refused = None
        if self._firewall is None or self._firewall.inbound(packet, self.clock.now) is not None:
            if isinstance(packet, Datagram) and (packet.dst, packet.src) not in self.datagrams:
                refused = Refused(0.0)
            self._dispatch(packet)
        self.on_idle()
        return refused

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """A timer of the kernel's."""
        self.clock.at(self.clock.now + delay_s, self._timer, call)

    def isn(self, port: int, remote: int) -> int:
        """secure_tcp_seq(): a secret per 4-tuple plus a clock of 64 ns."""
        return ((self._salt * (port << 16 | remote) >> 16) + int(self.clock.now * 1e9) // 64) & SEQ_MASK

    def adopt(self, sock: Tcp) -> None:
        """Let the stack find the socket."""
        self.streams[(sock.port, sock.remote)] = sock

    def forget(self, sock: Tcp) -> None:
        """No longer find it."""
        if self.streams.get((sock.port, sock.remote)) is sock:
            del self.streams[(sock.port, sock.remote)]

    def refuse(self, segment: Segment) -> None:
        """A RST that belongs to no socket: punchd's rules, where there are any, drop it unless it refuses a SYN."""
        reset = refusal(segment)
        if reset is not None and (reset.flags & ACK or not self.muted):
            reset.ttl = FULL_TTL
            self.emit(reset)

    def reset(self, sock: Tcp) -> None:
        """close() with SO_LINGER at 0: the socket's own RST, which no rule holds back."""
        sock.vanish()
        self.emit(Segment(sock.port, sock.remote, RST | ACK, sock.snd_nxt, sock.rcv_nxt, 0, FULL_TTL))

    def refuse_with(self, sock: Tcp) -> None:
        """The RST of a connection that was never accepted; it belongs to no process."""
        sock.vanish()
        if not self.muted:
            self.emit(Segment(sock.port, sock.remote, RST, sock.snd_nxt, 0, 0, FULL_TTL))

    def _timer(self, call: Callable[[], None]) -> None:
        call()
        self.on_idle()

    def _dispatch(self, packet: Packet) -> None:
        if isinstance(packet, Segment):
            if self.muted and packet.flags & (_SYN_ACK | RST) == SYN and packet.window == WINDOWS[Signal.FIRE]:
                return  # by rule: a punchd crafted it for the ring alone
            sock: Tcp | Listener | None = self.streams.get((packet.dst, packet.src))
            sock = sock or self.listeners.get(packet.dst)
            if sock is not None:
                sock.take(packet)
            else:
                self.refuse(packet)
        elif isinstance(packet, Datagram):
            datagram = self.datagrams.get((packet.dst, packet.src))
            if datagram is not None:
                datagram.queue.append(packet.data)
                if datagram.on_news is not None:
                    datagram.on_news("readable")
        elif packet.type == UNREACHABLE and isinstance(packet.quoted, Segment):
            stream = self.streams.get((packet.quoted.src, packet.quoted.dst))
            if stream is not None and stream.state is TcpState.SYN_SENT:
                stream.fail(ECONNREFUSED)

    def _keeps_outgoing(self, segment: Segment) -> bool:
        """csrc/filter.c, OUTGOING: SYNs, and what a primer's TTL marks; no payload."""
        return segment.length == 0 and (segment.flags & SYN != 0 or segment.ttl <= self._hole_ttl)


def _keeps_incoming(packet: Packet) -> bool:
    """csrc/filter.c: SYNs and RSTs, signals by their window, ICMP errors."""
    if isinstance(packet, Segment):
        return bool(packet.flags & (SYN | RST)) or (packet.flags == ACK and packet.window in _SIGNALS)
    return isinstance(packet, IcmpError)


_SIGNALS = frozenset(WINDOWS.values())
_HEADERS = struct.Struct("!HHIIBH")


def headers(segment: Segment) -> bytes:
    """What SegmentSeen.segment holds in the model: ports, numbers, flags and window, without a checksum."""
    return _HEADERS.pack(segment.src, segment.dst, segment.seq, segment.ack, segment.flags, segment.window)


def from_headers(data: bytes, ttl: int) -> Segment:
    """The segment again, to be sent."""
    src, dst, seq, ack, flags, window = _HEADERS.unpack(data)
    return Segment(src, dst, flags, seq, ack, window, ttl)


def _after(number: int) -> int:
    return (number + 1) & SEQ_MASK


def _is_before(one: int, other: int) -> bool:
    return (one - other) & SEQ_MASK > SEQ_MASK >> 1
