"""What a kept SYN_SENT socket bears and answers on this kernel: the ground under simopen and syni.
It sends nothing farther than the router of its own namespaces.
"""

import contextlib
import errno
import select
import socket
from collections.abc import Iterator

import pytest
from netns import IP_MINTTL, A, B, Net, catch, fresh_port

from punchd.edge import native

pytestmark = pytest.mark.kernel

SYN, ACK = native.FLAG_SYN, native.FLAG_ACK


@contextlib.contextmanager
def kept(net: Net, *, minttl: int) -> Iterator[tuple[socket.socket, native.Segment, int]]:
    """A socket whose SYN dies at the router; the SYN, and the port it was for."""
    target = fresh_port()
    with net.tcp("a", fresh_port()) as sock, net.sniffer("a") as wire:
        port = sock.getsockname()[1]
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, minttl)
        sock.setblocking(False)
        assert errno.EINPROGRESS == sock.connect_ex((B, target))
        caught = catch(wire, lambda out, seg: out and seg.src_port == port, within_s=1)
        assert caught is not None
        yield sock, caught[1], target


def inject(net: Net, syn: native.Segment) -> None:
    """A SYN as the peer would have sent it, into a's own stack."""
    with net.sender("a") as sender:
        forged = native.Segment(
            src=syn.dst, src_port=syn.dst_port, dst=syn.src, dst_port=syn.src_port,
            seq=77000, flags=SYN, mss=1460, window_scale=7, sack_permitted=True,
        )  # fmt: skip
        assert 1 == sender.send([forged])


def test_time_exceeded_kills_an_ordinary_syn_sent_socket(net: Net) -> None:
    """Why anything must be done about ICMP at all."""
    with kept(net, minttl=0) as (sock, _, _):
        assert select.select([], [sock], [], 1)[1]
        assert errno.EHOSTUNREACH == sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def test_minttl_two_survives_time_exceeded(net: Net) -> None:
    """The belt to the NFQUEUE braces, and the only way without privileges."""
    with kept(net, minttl=2) as (sock, _, _):
        assert not select.select([], [sock], [], 0.1)[1]
        assert 0 == sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def test_a_filter_against_resets_outlives_refusals_until_somebody_listens(net: Net) -> None:
    """tcp-direct connects to a peer that is not ready: one socket, one sequence number, however often it is refused."""
    target = fresh_port()
    with net.tcp("a", fresh_port()) as sock, net.sniffer("a") as wire, net.sender("a") as sender:
        port = sock.getsockname()[1]
        native.attach_reset_filter(sock.fileno())
        sock.setblocking(False)
        assert errno.EINPROGRESS == sock.connect_ex((B, target))
        syn = catch(wire, lambda out, seg: out and seg.src_port == port, within_s=1)
        refusal = catch(wire, lambda out, seg: not out and bool(seg.flags & native.FLAG_RST), within_s=1)
        assert syn is not None
        assert refusal is not None
        assert not select.select([], [sock], [], 0.1)[1]
        with net.tcp("b", target) as listener:
            listener.listen()
            sender.send([syn[1]])
            assert select.select([], [sock], [], 1)[1]
            assert 0 == sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            native.detach_filter(sock.fileno())


def test_an_injected_syn_is_answered_by_the_kept_socket_with_its_own_number(net: Net) -> None:
    """syni: the SYN-ACK must continue the SYN that opened the NAT, or conntrack calls it INVALID."""
    with kept(net, minttl=2) as (_, syn, _), net.sniffer("a") as wire:
        inject(net, syn)
        caught = catch(wire, lambda out, seg: out and seg.flags & (SYN | ACK) == SYN | ACK, within_s=1)
        assert caught is not None
        assert (syn.seq, 77001, B) == (caught[1].seq, caught[1].ack, caught[1].dst)


def test_the_ttl_of_a_syn_sent_socket_counts_from_its_next_packet(net: Net) -> None:
    """simopen and syni raise it between the hole and the answer."""
    with kept(net, minttl=2) as (sock, syn, _), net.sniffer("a") as wire:
        assert 1 == syn.ttl
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
        inject(net, syn)
        caught = catch(wire, lambda out, seg: out and seg.flags & (SYN | ACK) == SYN | ACK, within_s=1)
        assert caught is not None
        assert 33 == caught[1].ttl


def test_minus_one_restores_the_default_ttl(net: Net) -> None:
    """A handed-over socket has every option back at the kernel's default."""
    with net.tcp("a") as sock:
        default = sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 3)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, -1)
        assert default == sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
        assert A == sock.getsockname()[0]
