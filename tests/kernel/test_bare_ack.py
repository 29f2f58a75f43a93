"""How a kernel that owns a connection takes punchd's own bare ACKs: as keepalives.
It needs no second punchd; the segments are crafted on the peer's host.
"""

import socket

import pytest
from netns import Net, catch, tcp_info_u32

from punchd.edge import native

pytestmark = pytest.mark.kernel

TCPI_SND_WND = 228
CODES = [native.WINDOW_PRIME, native.WINDOW_FIRE, native.WINDOW_ANSWER, native.WINDOW_COMMIT]


def numbers(net: Net, near: socket.socket, far: socket.socket) -> native.Segment:
    """b's latest ACK to a: where both streams are."""
    port = near.getsockname()[1]
    with net.sniffer("a") as wire:
        near.sendall(b"x")
        assert b"x" == far.recv(1)
        caught = catch(wire, lambda out, seg: not out and seg.dst_port == port, within_s=1)
    assert caught is not None
    return caught[1]


@pytest.mark.parametrize("window", [*CODES, 0])
def test_a_bare_ack_one_below_is_answered_and_changes_nothing(net: Net, window: int) -> None:
    """The window codes may say anything only because no kernel believes them at that number."""
    near, far = net.pair()
    with near, far:
        last = numbers(net, near, far)
        send_window = tcp_info_u32(near, TCPI_SND_WND)
        stray = native.Segment(
            src=last.src, src_port=last.src_port, dst=last.dst, dst_port=last.dst_port,
            seq=(last.seq - 1) % 2**32, ack=last.ack, flags=native.FLAG_ACK, window=window,
        )  # fmt: skip
        with net.sniffer("a") as wire, net.sender("b") as sender:
            sender.send([stray])
            answer = catch(wire, lambda out, seg: out and seg.dst_port == last.src_port, within_s=1)
        assert answer is not None
        assert (last.ack, last.seq) == (answer[1].seq, answer[1].ack)
        assert send_window == tcp_info_u32(near, TCPI_SND_WND)
        near.sendall(b"to b")
        far.sendall(b"to a")
        assert b"to b" == far.recv(64)
        assert b"to a" == near.recv(64)


def test_the_field_read_is_the_send_window(net: Net) -> None:
    """Guards the offset above: the field follows what the peer announces."""
    near, far = net.pair()
    with near, far:
        before = tcp_info_u32(near, TCPI_SND_WND)
        assert before > 0
        near.sendall(bytes(20000))
        with net.sniffer("a") as wire:
            near.sendall(b"x")
            caught = catch(wire, lambda out, seg: not out, within_s=1)
        assert caught is not None
        assert before != tcp_info_u32(near, TCPI_SND_WND)
