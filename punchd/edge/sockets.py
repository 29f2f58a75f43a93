"""The sockets that are punched: opened, aimed, given back to the kernel's defaults.
Waits for nothing and chooses nothing: each function is one step on one socket."""

from __future__ import annotations

import errno
import socket
import struct
from functools import cache

from punchd.edge import native
from punchd.edge.routes import Routes

IP_MINTTL = 21  # linux/in.h; Python has no name for it
_MIN_TTL = 2
_SYN_PATIENCE = 20  # retransmissions before the kernel gives up: far more than any attempt lasts
_TAG_ROOM = 64
STRANGER, REFUSED = -1, -2


def connecting(
    local: tuple[str, int], remote: tuple[str, int], ttl: int | None, *, force_port: bool, stubborn: bool = False
) -> socket.socket:
    """A socket whose SYN has left when this returns.

    `stubborn`: deaf to resets, by a socket filter, until `drop_filter`.

    `force_port`: bind in repair mode (CAP_NET_ADMIN), which ignores other connections on the port: those handed over
    forbid its reuse, and so does their TIME-WAIT (inet_connection_sock.c, inet_csk_get_port).

    IP_MINTTL keeps a time-exceeded from killing it: the kernel drops ICMP errors that quote a TTL below the
    minimum (tcp_ipv4.c, tcp_v4_err). OSError: EADDRINUSE, EADDRNOTAVAIL (the 4-tuple is in TIME-WAIT), ENETUNREACH.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, _MIN_TTL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, _SYN_PATIENCE)
        if ttl is not None:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        if stubborn:
            native.attach_reset_filter(sock.fileno())
        if force_port:
            enter_repair(sock)
            sock.bind(local)
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _REPAIR_OFF_SILENTLY)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(local)
        _begin_connect(sock, remote)
    except OSError:
        sock.close()
        raise
    return sock


def listening(local: tuple[str, int], peer: str, ttl: int | None) -> socket.socket:
    """A listener that the kernel lets nobody but `peer` reach: others' segments die in its socket filter.

    Recent kernels (6.18 seen) refuse filters on TCP sockets to the unprivileged; `accept` turns strangers away then.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _filter_peer(sock, peer)
        sock.bind(local)
        if ttl is not None:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        sock.listen(4)
    except OSError:
        sock.close()
        raise
    return sock


def _filter_peer(sock: socket.socket, peer: str) -> None:
    try:
        native.attach_peer_filter(sock.fileno(), peer)
    except PermissionError:
        pass


def accept(listener: socket.socket, peer: tuple[str, int]) -> socket.socket | None:
    """The connection from `peer`, or None; one from another port of the peer is reset: a FIN might pass for a word."""
    try:
        sock, address = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    if address != peer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        sock.close()
        return None
    sock.setblocking(False)
    drop_filter(sock)  # inherited from the listener; this one hears its peer alone anyway
    return sock


_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # socket(7), SO_LINGER


def drop_filter(sock: socket.socket) -> None:
    """Without a filter from here on, whether there was one or not."""
    try:
        native.detach_filter(sock.fileno())
    except FileNotFoundError:
        pass  # there was none


def datagram(local: tuple[str, int], remote: tuple[str, int], *, shared: bool = False) -> socket.socket:
    """A UDP socket connected to the peer; `shared`: from a port that edge/stun.py keeps. OSError: EADDRINUSE.

    Until it is connected, a shared port's datagrams may land in either socket: those are dropped here.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        sock.bind(local)
        sock.connect(remote)
        while shared and _drops_one(sock):
            pass
    except OSError:
        sock.close()
        raise
    return sock


def unaimed_datagram(local: tuple[str, int]) -> socket.socket:
    """A UDP socket that hears and sends everywhere. OSError: EADDRINUSE."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.bind(local)
    except OSError:
        sock.close()
        raise
    return sock


def aim_datagram(sock: socket.socket, remote: tuple[str, int]) -> None:
    """Connect it, and drop what strangers have queued before; what the peer's application sent stays."""
    sock.connect(remote)
    while True:
        try:
            _, sender = sock.recvfrom(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        if sender == remote:
            return
        sock.recv(1)  # Python asks no kernel for 0 bytes


def send_datagram_to(sock: socket.socket, remote: tuple[str, int], data: bytes, ttl: int | None) -> None:
    """One datagram of an unaimed socket; `ttl` as for send_datagram."""
    ancillary = [] if ttl is None else [(socket.IPPROTO_IP, socket.IP_TTL, ttl.to_bytes(4, "little"))]
    sock.sendmsg([data], ancillary, 0, remote)


def read_tagged_from(sock: socket.socket, tag: bytes, address: str) -> tuple[int, int] | None:
    """The next signal with this tag from this address, and its port; None when nothing more waits.

    Other datagrams are dropped: nobody who may send data knows the lane yet.
    """
    while True:
        try:
            data, sender = sock.recvfrom(_TAG_ROOM)
        except BlockingIOError:
            return None
        if sender[0] == address and data.startswith(tag) and len(data) == len(tag) + 1:
            return data[-1], sender[1]


def _drops_one(sock: socket.socket) -> bool:
    try:
        sock.recv(_TAG_ROOM)
    except OSError:
        return False
    return True


def send_datagram(sock: socket.socket, data: bytes, ttl: int | None) -> None:
    """One datagram; `ttl` None is the kernel's default. A refusal learnt from ICMP is not this one's, so try twice."""
    ancillary = [] if ttl is None else [(socket.IPPROTO_IP, socket.IP_TTL, ttl.to_bytes(4, "little"))]
    for attempt in (1, 2):
        try:
            sock.sendmsg([data], ancillary)
        except ConnectionRefusedError:
            if attempt == 2:
                raise
        else:
            return


def read_tagged(sock: socket.socket, tag: bytes) -> int | None:
    """The signal of the next datagram if it bears the tag; None when nothing waits; STRANGER for other data; REFUSED
    for an ICMP error about an earlier one, which it has cleared.

    Data without the tag is the application's: it stays in the queue.
    """
    while True:
        try:
            head = sock.recv(_TAG_ROOM, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
                return REFUSED
            raise
        if not head.startswith(tag):
            return STRANGER
        sock.recv(_TAG_ROOM)
        if len(head) == len(tag) + 1:
            return head[-1]


def set_ttl(sock: socket.socket, ttl: int | None) -> None:
    """None is the kernel's default (-1 restores net.ipv4.ip_default_ttl)."""
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, -1 if ttl is None else ttl)


def has_heard(sock: socket.socket) -> bool:
    """Whether the connection has taken in any segment (linux/tcp.h, tcpi_segs_in)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SEGS_IN.size)
    return len(info) == _SEGS_IN.size and _SEGS_IN.unpack(info)[0] > 0


_SEGS_IN = struct.Struct("=140xI")


def failure(sock: socket.socket) -> int:
    """The pending errno, 0 if there is none."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def restore(sock: socket.socket, tag: bytes | None = None) -> None:
    """Every option back at the kernel's default, as the application expects of a fresh socket.

    A UDP socket gets the one exception: a filter that drops late datagrams bearing the attempt's tag.
    """
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, -1)
    if tag is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        native.attach_tag_filter(sock.fileno(), tag)
        while read_tagged(sock, tag) not in (None, STRANGER):
            pass  # signals that came before the filter did; the application's data stays
        failure(sock)
        return
    sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, _default_syncnt())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    failure(sock)


@cache
def _default_syncnt() -> int:
    """What net.ipv4.tcp_syn_retries gives a fresh socket."""
    with unbound_stream() as fresh:
        return fresh.getsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT)


def is_free(port: int) -> bool:
    """Whether no TCP socket serves the port. With SO_REUSEADDR: TIME-WAIT is no holder, a listener always is."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def source_address(target: str) -> str:
    """The local address from which this host would send to `target`; OSError ENETUNREACH without a route."""
    return _routes().source_address(target)


@cache
def _routes() -> Routes:
    return Routes()


def _begin_connect(sock: socket.socket, remote: tuple[str, int]) -> None:
    result = sock.connect_ex(remote)
    if result not in (0, errno.EINPROGRESS):
        raise OSError(result, "connect")


def unbound_stream() -> socket.socket:
    """A TCP socket that is nothing yet."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)


def enter_repair(sock: socket.socket) -> None:
    """Switch TCP_REPAIR on. OSError EPERM without CAP_NET_ADMIN (tcp.c, tcp_can_repair_sock)."""
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)


_TCP_REPAIR = 19
_REPAIR_OFF_SILENTLY = -1  # TCP_REPAIR_OFF_NO_WP


def materialised(ends: native.Flow, *, snd_nxt: int, rcv_nxt: int) -> socket.socket:
    """An ESTABLISHED socket made by TCP_REPAIR, without a packet."""
    fd = native.repair_open(ends, snd_nxt=snd_nxt, rcv_nxt=rcv_nxt)
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)


def close_silently(sock: socket.socket) -> None:
    """Close a stream socket in whatever state it is, without a packet (tcp.c, tcp_close in repair mode)."""
    native.repair_drop(sock.detach())
