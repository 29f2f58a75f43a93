"""The modelled NAT's axes on which real ones disagree most: odd TCP packets, numbers, resets and taken 4-tuples.

It refuses to ask the kernel: no kind of its bears these axes alone. Numbers are those of the design's facts, section 4.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from street_model import TCP, UDP, ModelFlow, ModelStreet

from punchd.lab.model_kinds import KINDS, Axes, Ending, Odd, Ports, Say, Timers, Tracking
from punchd.lab.model_net import Segment
from punchd.words.events import ACK, RST, SYN

SYN_ACK = SYN | ACK
BOX = pytest.mark.parametrize("tracking", [Tracking.HOLES, Tracking.CONNTRACK])
SAYS = pytest.mark.parametrize("says", [Say.PASSES, Say.DROPPED])


def begun(tracking: Tracking, **axes: object) -> ModelFlow:
    """A flow whose SYN has left, through a box with these axes."""
    flow = ModelStreet.of(replace(KINDS["linux"], tracking=tracking, **axes)).flow()  # replace itself checks names
    assert flow.out(SYN, seq=1000) is not None
    return flow


@BOX
@SAYS
def test_syn_ack_out_before_anything_came_in(tracking: Tracking, says: Say) -> None:
    """Axis 11: what SYNI needs of the responder's NAT."""
    flow = begun(tracking, odd=Odd(syn_ack_out=says))
    assert (says is Say.PASSES) == (flow.out(SYN_ACK, seq=1000, ack=9001) is not None)
    assert flow.back(SYN, seq=9000) is not None
    assert flow.out(SYN_ACK, seq=1000, ack=9001) is not None


@BOX
@SAYS
def test_syn_in_after_a_syn_out(tracking: Tracking, says: Say) -> None:
    """Axis 12: simultaneous open."""
    flow = begun(tracking, odd=Odd(syn_in=says))
    assert (says is Say.PASSES) == (flow.back(SYN, seq=9000) is not None)
    assert flow.back(SYN_ACK, seq=9000, ack=1001) is not None


@BOX
@SAYS
def test_syn_ack_in_with_an_unexpected_number(tracking: Tracking, says: Say) -> None:
    """Axis 13: STUNT's first way."""
    flow = begun(tracking, odd=Odd(syn_ack_in=says))
    assert (says is Say.PASSES) == (flow.back(SYN_ACK, seq=9000, ack=77_777) is not None)
    assert flow.back(SYN_ACK, seq=9000, ack=1001) is not None


@BOX
@SAYS
def test_ack_out_after_a_syn_out_before_anything_came_in(tracking: Tracking, says: Say) -> None:
    """Axis 14: midstream on a 4-tuple that a SYN has used."""
    flow = begun(tracking, odd=Odd(ack_out=says))
    assert (says is Say.PASSES) == (flow.out(ACK, seq=1001, ack=9001) is not None)
    assert flow.back(SYN_ACK, seq=9000, ack=1001) is not None
    assert flow.out(ACK, seq=1001, ack=9001) is not None


@BOX
@SAYS
def test_another_number_than_the_syns(tracking: Tracking, says: Say) -> None:
    """Axis 15: NUTSS answers from a listener, whose number is new."""
    flow = begun(tracking, odd=Odd(new_number=says))
    assert (says is Say.PASSES) == (flow.out(SYN, seq=5000) is not None)
    assert flow.back(SYN, seq=9000) is not None
    assert (says is Say.PASSES) == (flow.out(SYN_ACK, seq=5_000_000, ack=9001) is not None)
    assert flow.out(SYN_ACK, seq=1000, ack=9001) is not None


@BOX
def test_rewritten_numbers_are_one_offset_per_session_both_ways(tracking: Tracking) -> None:
    """Axis 16: the peer sees other numbers than were sent, so numbers agreed upon beforehand are wrong."""
    flow = begun(tracking, rewrites=True)
    outside = flow.place.net
    seen: list[Segment] = []
    flow.place.far.receive = lambda packet, ttl: seen.append(packet)
    outside.leave(0, Segment(flow.port_a, flow.port_b, SYN, 1000, 0, 65535, 64))
    flow.street.wait(1)
    offset = seen[0].seq - 1000
    assert 0 != offset
    inside: list[Segment] = []
    flow.place.a.receive = lambda packet, ttl: inside.append(packet)
    outside.leave(1, Segment(flow.port_b, flow.port_a, SYN_ACK, 9000, seen[0].seq + 1, 65535, 64))
    flow.street.wait(1)
    assert (9000, 1001) == (inside[0].seq, inside[0].ack)
    outside.leave(0, Segment(flow.port_a, flow.port_b, ACK, 1001, 9001, 65535, 64))
    flow.street.wait(1)
    assert (1001 + offset, 9001) == (seen[1].seq, seen[1].ack)


@BOX
@pytest.mark.parametrize(
    ("rst_out", "leaves", "lives"),
    [(Ending.KEEPS, True, True), (Ending.KILLS, True, False), (Ending.SWALLOWED, False, True)],
)
def test_rst_from_inside_does_what_its_axis_says(
    tracking: Tracking, rst_out: Ending, leaves: bool, lives: bool
) -> None:
    """Axis 19: clearing a hole is of use only where the RST does what it does on Linux."""
    flow = begun(tracking, rst_out=rst_out)
    assert leaves == (flow.out(RST, seq=1001) is not None)
    assert lives == (flow.back(SYN_ACK, seq=9000, ack=1001) is not None)


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("ports", [Ports.PRESERVED, Ports.RANDOM])
def test_a_stray_that_takes_its_tuple_costs_the_later_flow_its_port(protocol: int, ports: Ports) -> None:
    """Axis 9: why a first packet that arrives too early can be worse than lost, even where nothing answers it."""
    axes = Axes(ports=ports, occupies=True)
    street = ModelStreet.of(replace(KINDS["linux"], tcp=axes, udp=axes, timers=Timers(occupied=30.0)))
    flow, free = street.flow(protocol), street.flow(protocol)
    assert flow.back(SYN if protocol == TCP else 0) is None
    flow.out(SYN if protocol == TCP else 0)
    assert flow.port_a != flow.mapped
    if ports is Ports.PRESERVED:
        free.out(SYN if protocol == TCP else 0)
        assert free.port_a == free.mapped
        later = street.flow(protocol)
        later.back(SYN if protocol == TCP else 0)
        street.wait(31)
        later.out(SYN if protocol == TCP else 0)
        assert later.port_a == later.mapped
