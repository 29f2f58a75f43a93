"""What TCP_REPAIR does on this kernel, as csrc/repair.c leans on it.
It asks the kernel only; which technique uses it is told elsewhere.
"""

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from netns import A, B, Net, catch, fresh_port, tcp_info_u32

from punchd.edge import native

pytestmark = pytest.mark.kernel

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
RECV_QUEUE, SEND_QUEUE = 1, 2
ON, OFF_SILENT = 1, -1
TCPI_LAST_ACK_RECV = 56
ICMP, TIME_EXCEEDED = 1, 11


def ends(local: tuple[str, int], remote: tuple[str, int]) -> native.Flow:
    return native.Flow(local, remote, protocol=socket.IPPROTO_TCP)


@contextlib.contextmanager
def repaired(net: Net) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection between a and b that no packet has made."""
    port_a, port_b = fresh_port(), fresh_port()
    with net.inside("a"):
        fd_a = native.repair_open(ends((A, port_a), (B, port_b)), snd_nxt=1000, rcv_nxt=9000)
    with net.inside("b"):
        fd_b = native.repair_open(ends((B, port_b), (A, port_a)), snd_nxt=9000, rcv_nxt=1000)
    with socket.socket(fileno=fd_a) as near, socket.socket(fileno=fd_b) as far:
        yield near, far


def unscaled(net: Net, side: str, *, ports: tuple[int, int], seqs: tuple[int, int]) -> socket.socket:
    """The same by hand, without a word about window scales."""
    with net.inside(side):
        sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, ON)
    for queue, seq in zip((SEND_QUEUE, RECV_QUEUE), seqs, strict=True):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("I", seq))
    sock.bind((A if side == "a" else B, ports[0]))
    sock.connect((B if side == "a" else A, ports[1]))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF_SILENT)
    sock.setblocking(False)
    return sock


def transferred(near: socket.socket, far: socket.socket, *, within_s: float) -> int:
    end, total = time.monotonic() + within_s, 0
    block = bytes(65536)
    while time.monotonic() < end:
        readable, writable, _ = select.select([far], [near], [], 0.01)
        if writable:
            near.send(block)
        if readable:
            total += len(far.recv(1 << 20))
    return total


def test_repair_sockets_carry_data_both_ways(net: Net) -> None:
    """The order in repair.c is the whole of the midstream technique: wrong, and nothing flows."""
    with repaired(net) as (near, far):
        near.settimeout(1)
        far.settimeout(1)
        near.sendall(b"from a")
        assert b"from a" == far.recv(64)
        far.sendall(b"from b")
        assert b"from b" == near.recv(64)


def test_a_made_socket_takes_no_notice_that_what_punchd_said_has_died(net: Net) -> None:
    """So it bears no IP_MINTTL, and nothing has to be restored before it is handed over."""
    with repaired(net) as (near, far), net.sniffer("a") as wire, net.sender("a") as sender:
        (_, own), (_, aim) = near.getsockname(), near.getpeername()
        said = native.Segment(
            src=A, src_port=own, dst=B, dst_port=aim, seq=999, ack=9000, flags=native.FLAG_ACK, window=20550, ttl=1
        )
        assert 1 == sender.send([said])
        packets = iter(lambda: wire.recv(2048) if select.select([wire], [], [], 1)[0] else None, None)
        assert any(packet[9] == ICMP and packet[20] == TIME_EXCEEDED for packet in packets)
        assert 0 == near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        near.sendall(b"alive")
        far.settimeout(1)
        assert b"alive" == far.recv(64)


def test_repair_sockets_are_nonblocking_and_close_on_exec(net: Net) -> None:
    """They are handed to applications; SCM_RIGHTS carries the first and a child must not inherit them."""
    with repaired(net) as (near, _):
        assert os.get_blocking(near.fileno()) is False
        assert os.get_inheritable(near.fileno()) is False


def test_without_the_scale_option_throughput_collapses(net: Net) -> None:
    """Hence set_options() always sets the scale, 0 too: the kernel keeps its own otherwise."""
    with repaired(net) as (near, far):
        scaled = transferred(near, far, within_s=0.15)
    ports = fresh_port(), fresh_port()
    with (
        unscaled(net, "a", ports=ports, seqs=(1000, 9000)) as near,
        unscaled(net, "b", ports=ports[::-1], seqs=(9000, 1000)) as far,
    ):
        native.repair_probe(near.fileno())  # else the send window stays 0
        assert transferred(near, far, within_s=0.15) < scaled / 10


def test_leaving_repair_mode_clears_reuse(net: Net) -> None:
    """Who wants the port again must set SO_REUSEADDR again, so repair_probe() does."""
    near, far = net.pair()
    with near, far:
        assert 1 == near.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        native.repair_probe(near.fileno())
        assert 1 == near.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        near.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, ON)
        near.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF_SILENT)
        assert 0 == near.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


def test_a_repair_bind_beside_a_listener_succeeds(net: Net) -> None:
    """repair_open() cannot tell that a port is taken: ask with a plain bind first."""
    with net.tcp("a") as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with net.inside("a"):
            fd = native.repair_open(ends((A, port), (B, 9)), snd_nxt=1, rcv_nxt=1)
        native.repair_drop(fd)


def test_toggling_repair_sends_one_probe_and_leaves_the_stream_alone(net: Net) -> None:
    """The proof in both directions: the peer's kernel answers, and no byte is in the stream."""
    near, far = net.pair()
    with near, far, net.sniffer("a") as wire:
        near.sendall(b"before")
        assert b"before" == far.recv(64)
        time.sleep(0.05)
        assert tcp_info_u32(near, TCPI_LAST_ACK_RECV) >= 40
        native.repair_probe(near.fileno())
        port = near.getsockname()[1]
        probe = catch(wire, lambda out, seg: out and seg.src_port == port and not seg.payload_len, within_s=1)
        answer = catch(wire, lambda out, seg: not out and seg.dst_port == port, within_s=1)
        assert probe is not None
        assert answer is not None
        assert answer[1].ack == (probe[1].seq + 1) % 2**32
        assert tcp_info_u32(near, TCPI_LAST_ACK_RECV) < 40
        far.sendall(b"after")
        assert b"after" == near.recv(64)
        near.sendall(b"again")
        assert b"again" == far.recv(64)


def test_a_second_probe_within_half_a_second_is_not_answered(net: Net) -> None:
    """tcp_invalid_ratelimit: out-of-window segments without data get one answer per 500 ms and socket."""
    near, far = net.pair()
    with near, far, net.sniffer("a") as wire:
        port = near.getsockname()[1]
        native.repair_probe(near.fileno())
        assert catch(wire, lambda out, seg: not out and seg.dst_port == port, within_s=1)
        native.repair_probe(near.fileno())
        assert catch(wire, lambda out, seg: not out and seg.dst_port == port, within_s=0.1) is None


def test_dropping_in_repair_mode_is_silent(net: Net) -> None:
    """Losers of an attempt must not send a FIN or RST through the mapping that the winner uses."""
    near, far = net.pair()
    with far, net.sniffer("a") as wire:
        port = near.getsockname()[1]
        native.repair_drop(near.detach())
        assert catch(wire, lambda out, seg: seg.src_port == port and out, within_s=0.1) is None


def test_a_failed_open_leaves_no_descriptor(net: Net) -> None:
    """Undo on every way out: an address that is not ours fails at bind, and the socket is gone."""
    with pytest.raises(OSError, match="repair_open: Cannot assign"):
        native.repair_open(ends(("192.0.2.7", 22000), (B, 9)), snd_nxt=1, rcv_nxt=1)
    with socket.socket() as probe:
        first = probe.fileno()
    with pytest.raises(OSError, match="repair_open"):
        native.repair_open(ends(("192.0.2.7", 22000), (B, 9)), snd_nxt=1, rcv_nxt=1)
    with socket.socket() as probe:
        assert first == probe.fileno()
