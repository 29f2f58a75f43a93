"""The modelled NATs, packet by packet: Linux's table of transitions and its window check as the design's facts say.
It refuses to punch through them (test_model.py does); the kernel's own are tried in test_kinds.py."""

from __future__ import annotations

import pytest

from punchd.lab.model_kinds import KINDS
from punchd.lab.model_nat import Nat
from punchd.lab.model_net import FIN, Datagram, IcmpError, Packet, Refused, Segment, refusal
from punchd.words.events import ACK, RST, SYN, SYN_ACK

IN, OUT = 22001, 23001  # the host's port and the peer's
ISN, PEER = 1_000_000, 9_000_000
LINUX = ["linux", "linux-reject", "linux-liberal", "firewall"]
WINDOW = 64240


class Box:
    """A NAT with a flow through it; times in seconds."""

    def __init__(self, kind: str) -> None:
        self.nat, self.now = Nat(KINDS[kind], "203.0.113.2"), 0.0

    def out(self, flags: int, seq: int = ISN, ack: int = 0, length: int = 0) -> bool:
        return self.nat.outbound(Segment(IN, OUT, flags, seq, ack, WINDOW, 64, length), self.now) is not None

    def back(self, flags: int, seq: int = PEER, ack: int = 0, length: int = 0) -> bool:
        return self.hears(Segment(OUT, IN, flags, seq, ack, WINDOW, 64, length))

    def hears(self, packet: Packet) -> bool:
        """Whether it comes in."""
        got = self.nat.inbound(packet, self.now)
        return got is not None and not isinstance(got, Refused)


@pytest.mark.parametrize("kind", LINUX)
def test_an_ordinary_connection_passes(kind: str) -> None:
    """SYN, SYN-ACK, ACK, data and the end."""
    box = Box(kind)
    assert box.out(SYN)
    assert box.back(SYN_ACK, ack=ISN + 1)
    assert box.out(ACK, ISN + 1, PEER + 1)
    assert box.back(ACK, PEER + 1, ISN + 1, length=100)
    assert box.out(FIN | ACK, ISN + 1, PEER + 101)
    assert box.back(FIN | ACK, PEER + 101, ISN + 2)
    assert box.out(ACK, ISN + 2, PEER + 102)


@pytest.mark.parametrize("kind", LINUX)
def test_simultaneous_open_passes(kind: str) -> None:
    """SYN out, SYN in, then the first SYN's number as SYN-ACK."""
    box = Box(kind)
    assert box.out(SYN)
    assert box.back(SYN)
    assert box.out(SYN_ACK, ack=PEER + 1)
    assert box.back(ACK, PEER + 1, ISN + 1)
    assert box.out(ACK, ISN + 1, PEER + 1)


@pytest.mark.parametrize(("kind", "passes"), [("linux", False), ("linux-liberal", True), ("untracked", True)])
def test_a_listeners_new_number_is_invalid(kind: str, passes: bool) -> None:
    """What nutss meets at a default Linux NAT."""
    box = Box(kind)
    assert box.out(SYN)
    assert box.back(SYN)
    assert passes == box.out(SYN_ACK, ISN + 3_000_000, PEER + 1)


def test_a_number_little_above_slips_through_and_strands_the_rest() -> None:
    """The half-way state: SYN-ACK passes without a trace, ACKs from inside are INVALID for ever."""
    box = Box("linux")
    assert box.out(SYN)
    assert box.back(SYN)
    assert box.out(SYN_ACK, ISN + 30_000, PEER + 1)
    assert box.back(ACK, PEER + 1, ISN + 30_001)
    assert not box.out(ACK, ISN + 30_001, PEER + 1)
    assert not box.out(ACK, ISN + 30_001, PEER + 1, length=10)


@pytest.mark.parametrize(
    ("kind", "passes"), [("linux", False), ("firewall", False), ("untracked", True), ("open", True)]
)
def test_a_syn_ack_after_nothing_but_a_syn_out(kind: str, passes: bool) -> None:
    """What syni asks of NAT B."""
    box = Box(kind)
    assert box.out(SYN)
    assert passes == box.out(SYN_ACK, ack=PEER + 1)


def test_an_ack_after_a_tracked_syn_is_invalid_until_a_reset_clears_it() -> None:
    """So no 4-tuple serves two techniques; and Clear makes it fresh."""
    box = Box("linux")
    assert box.out(SYN)
    assert not box.out(ACK, ISN + 1)
    assert box.out(RST, ISN + 1)
    assert box.out(ACK, ISN + 1)


@pytest.mark.parametrize(("kind", "passes"), [("linux", True), ("linux-noloose", False), ("untracked", True)])
def test_a_first_ack_picks_a_connection_up(kind: str, passes: bool) -> None:
    """nf_conntrack_tcp_loose: what midstream needs."""
    box = Box(kind)
    assert passes == box.out(ACK, ISN, PEER)
    assert passes == box.back(ACK, PEER + 5_000_000, ISN)
    assert not Box("linux").out(SYN_ACK)
    assert not Box("linux").out(RST)
    assert not Box("linux").out(FIN | ACK)


def test_a_reset_kills_what_nobody_answered() -> None:
    """Why primers must not arrive: the mapping is gone at once."""
    box = Box("linux")
    assert box.out(SYN)
    assert box.back(RST | ACK, 0, ISN + 1)
    assert not box.back(SYN)


def test_a_reset_with_an_old_number_does_not_pass() -> None:
    """Below what was acknowledged it is INVALID; above, the peer may challenge it and the state stays."""
    box = Box("linux")
    box.out(SYN)
    box.back(SYN_ACK, ack=ISN + 1)
    box.out(ACK, ISN + 1, PEER + 1)
    assert not box.back(RST, PEER)
    assert box.back(RST, PEER + 50)
    assert box.out(ACK, ISN + 1, PEER + 1, length=10)
    assert box.back(RST, PEER + 1)


def test_segments_far_outside_the_window_are_invalid() -> None:
    """tcp_in_window(); a picked-up connection is not checked."""
    box = Box("linux")
    box.out(SYN)
    box.back(SYN_ACK, ack=ISN + 1)
    box.out(ACK, ISN + 1, PEER + 1)
    assert not box.back(ACK, PEER + 1_000_000, ISN + 1)
    assert not box.back(ACK, PEER + 1, ISN + 1_000_000)
    assert box.back(ACK, PEER - 500_000, ISN + 1)  # below: ignored, it passes
    assert box.back(ACK, PEER + 1, ISN - 500_000)


def test_a_challenge_below_the_window_is_a_signals_way() -> None:
    """Signals bear SND.UNA-1; no NAT minds."""
    box = Box("linux")
    box.out(SYN)
    box.back(SYN_ACK, ack=ISN + 1)
    box.out(ACK, ISN + 1, PEER + 1)
    assert box.back(ACK, PEER, ISN + 1)
    assert box.out(ACK, ISN, PEER + 1)


def test_unasked_packets_stay_outside() -> None:
    """All kinds but the open one; only their answers differ."""
    for kind in KINDS:
        box = Box(kind)
        for flags in (SYN, ACK, SYN_ACK, RST):
            assert (kind == "open") == box.back(flags)
        assert (kind == "open") == box.hears(Datagram(OUT, IN, b"", 64))


def test_a_syn_filter_lets_answers_in() -> None:
    """Every bare SYN dies, expected or not, and leaves no trace."""
    box = Box("linux-synfilter")
    assert box.out(SYN)
    assert not box.back(SYN)
    assert box.back(SYN_ACK, ack=ISN + 1)


def test_tracked_syns_live_120_seconds_however_often_repeated() -> None:
    """Hence primers are renewed through a mapping made anew."""
    box = Box("linux")
    assert box.out(SYN)
    box.now = 100.0
    assert box.out(SYN)
    box.now = 121.0
    assert not box.back(SYN)


def test_picked_up_connections_live_300_seconds_and_days_once_answered() -> None:
    """nf_conntrack_tcp_timeout_unacknowledged."""
    box = Box("linux")
    assert box.out(ACK)
    box.now = 301.0
    assert not box.back(ACK)
    assert box.out(ACK)
    assert box.back(ACK, PEER, ISN)
    box.now = 100_000.0
    assert box.back(ACK, PEER, ISN)


@pytest.mark.parametrize(("kind", "life_s"), [("linux", 30), ("untracked", 120)])
def test_datagrams_open_a_hole_for_a_while(kind: str, life_s: int) -> None:
    """30 s after one packet out, 120 once there was an answer; a stateless hole 120 from the last packet out."""
    box = Box(kind)
    answer = Datagram(OUT, IN, b"", 64)
    assert box.nat.outbound(Datagram(IN, OUT, b"", 64), 0.0)
    box.now = life_s - 1.0
    assert box.hears(answer)
    box.now = life_s + 0.5
    assert (kind == "linux") == box.hears(answer)
    assert box.nat.outbound(Datagram(IN, OUT, b"", 64), life_s + 1.0)
    box.now = life_s + 200.0
    assert not box.hears(answer)


@pytest.mark.parametrize(
    ("kind", "passes"), [("linux", True), ("untracked", False), ("open", True), ("firewall", True)]
)
def test_icmp_errors_come_in_for_known_flows_only(kind: str, passes: bool) -> None:
    """RELATED; a box without states has nothing to relate it to."""
    box = Box(kind)
    error = IcmpError(11, 0, "198.18.12.2", Segment(IN, OUT, SYN, ISN, 0, WINDOW, 2))
    assert (kind == "open") == box.hears(error)
    box.out(SYN)
    assert passes == box.hears(error)


def test_refusals_are_as_the_rfc_says() -> None:
    """No RST to a RST; to an ACK its number, to a SYN an acknowledgement."""
    assert refusal(Segment(1, 2, RST, 5, 0, 0, 64)) is None
    reset = refusal(Segment(1, 2, ACK, 5, 77, 0, 64))
    assert reset is not None
    assert (2, 1, RST, 77) == (reset.src, reset.dst, reset.flags, reset.seq)
    reset = refusal(Segment(1, 2, SYN, 5, 0, 0, 64))
    assert reset is not None
    assert (RST | ACK, 0, 6) == (reset.flags, reset.seq, reset.ack)


def test_numbers_wrap_around() -> None:
    """A window that begins below 2^32 ends above 0."""
    top = 0xFFFFFFFF
    box = Box("linux")
    assert box.out(SYN, top)
    assert box.back(SYN_ACK, top - 3, 0)
    assert box.out(ACK, 0, top - 2)
    assert box.back(ACK, top - 2, 0, length=100)
    assert box.out(ACK, 0, 97)
