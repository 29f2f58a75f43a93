"""The capture ring on real devices: what it keeps, what it drops, and when it is readable.
It tests the filter where it runs, in the kernel; tests/edge covers it instruction by instruction.
"""

import select
import socket
import struct
from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from netns import A, B, Net, fresh_port, icmp_error

from punchd.edge import native
from punchd.edge.native import Flow, Flows, Ring, Segment
from punchd.edge.records import Seen, SeenIcmp

pytestmark = pytest.mark.kernel

LO, HI, TTL = 22000, 31999, 1
SYN, RST, ACK = native.FLAG_SYN, native.FLAG_RST, native.FLAG_ACK
TOKEN = 4711


class Bench:
    """A ring on host a, one known flow, and raw senders on both hosts."""

    def __init__(self, net: Net, frames: int = 64, *, sift: bool = True) -> None:
        self.port, self.far_port = fresh_port(), fresh_port()
        self.flows = Flows(16)
        self.flows.put(A, self.port, remote=B, remote_port=self.far_port, protocol=socket.IPPROTO_TCP, token=TOKEN)
        with net.inside("a"):
            self.ring = Ring(LO, HI, hole_ttl=TTL, flows=self.flows, frames=frames, sift=sift)
        self.a, self.b = net.sender("a"), net.sender("b")

    def out(self, *, flags: int, ttl: int = 64, port: int = 0, seq: int = 1, window: int = 1000) -> Segment:
        return Segment(src=A, dst=B, src_port=port or self.port, dst_port=self.far_port, seq=seq, flags=flags,
                       ttl=ttl, window=window)  # fmt: skip

    def back(self, *, flags: int, window: int = 1000, seq: int = 1) -> Segment:
        return Segment(src=B, dst=A, src_port=self.far_port, dst_port=self.port, seq=seq, flags=flags,
                       window=window)  # fmt: skip

    def readable(self, within_s: float) -> bool:
        return bool(select.select([self.ring], [], [], within_s)[0])

    def seen(self) -> list[Seen | SeenIcmp]:
        """All that comes until nothing has come for a moment; b's own answers are among it."""
        got = []
        while self.readable(0.05):
            got += self.ring.drain()
        return got

    def close(self) -> None:
        self.ring.close()
        self.a.close()
        self.b.close()


@pytest.fixture(params=[False, True], ids=["filter", "sieve"])
def bench(net: Net, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """By the classic filter alone, and with the sieve behind it: both must tell the same."""
    made = Bench(net, sift=request.param)
    assert made.ring.sifts == request.param
    yield made
    made.close()


def segments(seen: list[Seen | SeenIcmp], *, outgoing: bool) -> list[tuple[int, int]]:
    return [(s.flags, s.ttl) for s in seen if isinstance(s, Seen) and s.outgoing == outgoing]


def checksums_hold(packet: bytes) -> bool:
    """RFC 1071: over a header with its checksum in place, the sum is all ones."""

    def holds(data: bytes) -> bool:
        return sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF == 0

    pseudo = packet[12:20] + struct.pack("!HH", socket.IPPROTO_TCP, len(packet) - 20)
    return holds(packet[:20]) and holds(pseudo + packet[20:])


def test_outgoing_syns_and_low_ttl_segments_are_seen(bench: Bench) -> None:
    """syni needs the number of the kernel's own SYN, and the ACK that its stack sends at hole range."""
    bench.a.send([bench.out(flags=SYN), bench.out(flags=ACK, ttl=TTL), bench.out(flags=ACK, ttl=TTL + 1)])
    assert [(SYN, 64), (ACK, TTL)] == segments(bench.seen(), outgoing=True)


def test_an_own_syn_is_told_once_however_often_it_leaves(bench: Bench) -> None:
    """The kernel repeats it each second, and punchd sends its own copies: a step each, for nothing."""
    kinds = [(SYN, 7), (SYN, 7), (SYN, 8), (SYN | ACK, 8), (SYN | ACK, 8), (SYN, 8)]
    bench.a.send([bench.out(flags=flags, seq=seq) for flags, seq in kinds])
    told = [(s.flags, s.seq) for s in bench.seen() if isinstance(s, Seen) and s.outgoing]
    assert [(SYN, 7), (SYN, 8), (SYN | ACK, 8), (SYN, 8)] == told


def test_our_own_primers_are_not_seen(bench: Bench) -> None:
    """Who sent it knows of it; to be woken for it would cost each attempt a step."""
    bench.a.send([bench.out(flags=ACK, ttl=TTL, window=native.WINDOW_PRIME), bench.out(flags=SYN)])
    assert [(SYN, 64)] == segments(bench.seen(), outgoing=True)


def test_incoming_syn_rst_and_window_codes_are_seen_and_nothing_else(bench: Bench) -> None:
    """Ordinary traffic of 50 000 handed-over connections must not wake the daemon."""
    kept = [
        bench.back(flags=SYN), bench.back(flags=SYN | ACK),
        bench.back(flags=RST), bench.back(flags=RST | ACK),
        bench.back(flags=ACK, window=native.WINDOW_FIRE), bench.back(flags=ACK, window=native.WINDOW_ANSWER),
        bench.back(flags=ACK, window=native.WINDOW_COMMIT), bench.back(flags=ACK, window=native.WINDOW_PRIME),
    ]  # fmt: skip
    bench.b.send([*kept, bench.back(flags=ACK), bench.back(flags=ACK | native.FLAG_PSH, window=native.WINDOW_FIRE)])
    expected = [(s.flags, 63) for s in kept]
    assert expected == segments(bench.seen(), outgoing=False)


@pytest.mark.parametrize("alone", [True, False])
def test_a_bare_segment_bears_what_it_was_given(bench: Bench, alone: bool) -> None:
    """All that punchd says on a TCP path is said by these."""
    flow = Flow((B, bench.far_port), (A, bench.port), protocol=socket.IPPROTO_TCP)
    if alone:
        bench.b.send_one(flow, flags=ACK, seq=1 << 31, ack=7, window=native.WINDOW_ANSWER, ttl=9)
    else:
        bench.b.put_bare(1, flow, flags=ACK, seq=1 << 31, ack=7, window=native.WINDOW_ANSWER, ttl=9)
        assert 1 == bench.b.send_bare(1, 1)
    (came,) = bench.seen()
    assert isinstance(came, Seen)
    said = came.flags, came.seq, came.ack, came.window, came.ttl, came.mss, came.window_scale
    assert (ACK, 1 << 31, 7, native.WINDOW_ANSWER, 8, None, None) == said
    assert checksums_hold(came.raw)


def test_segments_of_other_flows_and_ports_are_not_told(bench: Bench) -> None:
    """The ring sees the whole punch range; Python must only hear of its own attempts."""
    bench.a.send([bench.out(flags=SYN, port=fresh_port()), bench.out(flags=SYN, port=LO - 1)])
    assert [] == segments(bench.seen(), outgoing=True)


def test_segments_from_another_port_are_told_with_it_where_asked_for(bench: Bench) -> None:
    """A NAT of the peer's that changes ports is to be seen; what leaves to another port is somebody else's."""
    stray = fresh_port()
    elsewhere = [replace(bench.back(flags=SYN), src_port=stray), bench.back(flags=SYN)]
    bench.b.send(elsewhere)
    assert [0] == [s.other_port for s in bench.seen() if isinstance(s, Seen) and not s.outgoing]
    bench.flows.put(A, bench.port, remote=B, remote_port=None, protocol=socket.IPPROTO_TCP, token=TOKEN + 1)
    bench.b.send(elsewhere)
    bench.a.send([replace(bench.out(flags=SYN), dst_port=stray)])
    seen = [(s.token, s.outgoing, s.other_port) for s in bench.seen() if isinstance(s, Seen) and s.flags == SYN]
    assert [(TOKEN, False, 0), (TOKEN + 1, False, stray)] == sorted(seen)


def test_foreign_segments_wake_nobody_when_the_ring_sifts(net: Net) -> None:
    """A scan of the punch range by strangers must not cost the daemon its loop; a new flow is heard at once."""
    bench = Bench(net)
    try:
        port = fresh_port()
        stray = Segment(src=B, dst=A, src_port=bench.far_port, dst_port=port, seq=1, flags=SYN)
        bench.b.send([stray])
        assert not bench.readable(0.1)
        tuple_ = {"remote": B, "remote_port": bench.far_port, "protocol": socket.IPPROTO_TCP}
        bench.flows.put(A, port, **tuple_, token=7)
        bench.b.send([stray])
        assert [7] == [s.token for s in bench.seen() if not s.outgoing]
        bench.flows.drop(A, port, **tuple_)
        bench.b.send([stray])
        assert not bench.readable(0.1)
    finally:
        bench.close()


def test_time_exceeded_of_a_known_flow_is_noted_with_its_sender_and_told_to_nobody(bench: Bench) -> None:
    """The verdict of a failed attempt names who answered; one that succeeds never asks, and is not woken for it."""
    flow = Flow((A, bench.port), (B, bench.far_port), protocol=socket.IPPROTO_TCP)
    bench.a.send([bench.out(flags=SYN, ttl=1)])
    assert [] == [s for s in bench.seen() if isinstance(s, SeenIcmp)]
    assert (11, 0, "10.66.1.1") == bench.flows.take_note(flow)
    assert bench.flows.take_note(flow) is None, "told once"


@pytest.mark.parametrize("kind", [3, 12])
def test_any_other_error_about_a_known_flow_is_told_at_once(bench: Bench, kind: int) -> None:
    """Who is refused may have something to do about it."""
    bench.b.send([icmp_error(B, A, kind, native.build(bench.out(flags=SYN))[:28])])
    icmp = [s for s in bench.seen() if isinstance(s, SeenIcmp)]
    assert [(TOKEN, kind, 0, B)] == [(s.token, s.type, s.code, s.sender) for s in icmp]


def test_injected_syns_on_loopback_are_not_seen(bench: Bench) -> None:
    """Our own injection must not look like the peer's SYN; the RST that answers it leaves by eth0."""
    bench.a.send([bench.back(flags=SYN)])
    assert [] == segments(bench.seen(), outgoing=False)


def test_a_captured_segment_is_whole_after_retouching(net: Net, bench: Bench) -> None:
    """Captures carry partial checksums: re-sent as they are, they cost half a second."""
    with net.tcp("a", bench.port) as sock:
        sock.setblocking(False)
        sock.connect_ex((B, bench.far_port))
        seen = [s for s in bench.seen() if isinstance(s, Seen) and s.outgoing]
    first = seen[0]
    assert (SYN, True) == (first.flags, first.sack_permitted)
    assert 1460 == first.mss
    assert first.window_scale is not None
    assert first.timestamp is not None
    again = native.retouch(first.raw, 9)
    assert (False, True) == (checksums_hold(first.raw), checksums_hold(again))
    assert 9 == native.parse(again).ttl


def test_a_drained_ring_is_silent_and_a_partly_drained_one_is_not(net: Net) -> None:
    """add_reader is level triggered: a ring that stays readable would spin the loop."""
    bench = Bench(net, frames=1024)
    try:
        bench.b.send([bench.back(flags=SYN, seq=i) for i in range(300)])
        assert bench.readable(1)
        records = native.ffi.new("struct punchd_record[]", 100)
        ring, flows = bench.ring._c, bench.flows.c
        assert 100 == native.lib.punchd_ring_drain(ring, flows, records, 100)
        assert bench.readable(0)
        early = [records[i].segment.seq for i in range(100) if not records[i].outgoing]
        late = [s.seq for s in bench.seen() if isinstance(s, Seen) and not s.outgoing]
        assert list(range(300)) == early + late
        assert not bench.readable(0)
    finally:
        bench.close()


def test_an_overfull_ring_counts_its_drops_and_recovers(net: Net) -> None:
    """Losing frames under a flood is allowed; losing the ring, or hiding it, is not."""
    bench = Bench(net, frames=16)
    try:
        bench.b.send([bench.back(flags=RST, seq=i) for i in range(200)])
        assert bench.readable(1)
        got = bench.seen()
        drops = bench.ring.drops()
        assert drops > 0
        assert len(got) + drops >= 200
        bench.b.send([bench.back(flags=RST, seq=999)])
        assert [999] == [s.seq for s in bench.seen() if isinstance(s, Seen)]
        assert drops == bench.ring.drops()
    finally:
        bench.close()


def test_a_detached_ring_sees_nothing(bench: Bench) -> None:
    """The test of syn-not-captured needs a daemon whose ring is blind."""
    bench.ring.detach()
    bench.a.send([bench.out(flags=SYN)])
    assert [] == bench.seen()


def test_a_listener_with_a_peer_filter_hears_only_that_peer(net: Net) -> None:
    """A listening technique opens a port to one address, not to the world."""
    for allowed, heard in ((B, True), ("192.0.2.1", False)):
        with net.tcp("a") as listener, net.tcp("b") as caller:
            native.attach_peer_filter(listener.fileno(), allowed)
            listener.listen()
            caller.settimeout(0.2)
            if heard:
                caller.connect(listener.getsockname())
                with listener.accept()[0] as accepted:
                    native.detach_filter(accepted.fileno())  # inherited, or this were ENOENT
            else:
                with pytest.raises(TimeoutError):
                    caller.connect(listener.getsockname())
