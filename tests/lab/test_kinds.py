"""Each kind of NAT does what its page says, proven by packets through the kernel's own code; and so does the model's.

It refuses to believe the rules' text. Side a bears the kind, side b is open and plays the outside world. What is
asked of both halves of the lab is how they are held to each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from packets import Probe
from street import TCP, UDP, Street, street_of
from street_model import ModelStreet

from punchd.lab.pages import BARE, KINDS
from punchd.lab.topology import Lab
from punchd.lab.wire import ACK, RST, SYN, Packet

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

# by the axes of RFC 4787 and 5382 that the pages differ in
STATELESS = {"open", "untracked", "cone"}  # whatever TCP says
SYMMETRIC = {"random", "sequential"}
ANY_SEQUENCE = STATELESS | {"linux-liberal"}


@pytest.fixture(scope="module", params=KINDS)
def kernel_street(request: pytest.FixtureRequest) -> Iterator[Street]:
    with street_of(request.param) as street:
        yield street


@pytest.fixture(params=["kernel", "model"])
def street(request: pytest.FixtureRequest, kernel_street: Street) -> Street | ModelStreet:
    return kernel_street if request.param == "kernel" else ModelStreet.of(kernel_street.kind, kernel_street.kind)


@pytest.mark.parametrize(("protocol", "flags"), [(TCP, SYN), (TCP, ACK), (UDP, 0)])
def test_first_packet_out_leaves_from_the_public_address_and_keeps_its_port_unless_symmetric(
    street: Street | ModelStreet, protocol: int, flags: int
) -> None:
    """Every technique rests on it; a bare ACK among them is midstream's first packet, which loose=0 forbids."""
    flow = street.flow(protocol)
    seen = flow.out(flags)
    if street.kind == "linux-noloose" and flags == ACK:
        assert seen is None
        return
    assert seen is not None
    assert street.public == seen.src
    assert (street.kind not in SYMMETRIC) == (flow.port_a == seen.sport)


@pytest.mark.parametrize(("protocol", "flags"), [(TCP, ACK), (UDP, 0)])
def test_answer_to_the_first_packet_comes_in(street: Street | ModelStreet, protocol: int, flags: int) -> None:
    """Midstream (ACK after ACK) and udp pass every kind, but one that wants a SYN."""
    flow = street.flow(protocol)
    flow.out(flags)
    seen = flow.back(flags)
    if street.kind == "linux-noloose" and flags == ACK:
        assert seen is None
        return
    assert seen is not None
    assert (street.inside, flow.port_a) == (seen.dst, seen.dport)


def test_syn_ack_for_a_syn_comes_in(street: Street | ModelStreet) -> None:
    """An ordinary connect must work behind each of them."""
    flow = street.flow()
    flow.out(SYN)
    assert flow.back(SYN | ACK, ack=1001) is not None


def test_syn_for_a_syn_comes_in_except_through_the_syn_filter(street: Street | ModelStreet) -> None:
    """Simultaneous open lives on this; linux-synfilter is the kind without it."""
    flow = street.flow()
    flow.out(SYN)
    assert (street.kind != "linux-synfilter") == (flow.back(SYN) is not None)


@pytest.mark.parametrize(("protocol", "flags"), [(TCP, SYN), (TCP, ACK), (TCP, SYN | ACK), (UDP, 0)])
def test_strays_come_in_through_nothing_but_the_open_kind(
    street: Street | ModelStreet, protocol: int, flags: int
) -> None:
    """A NAT that lets strays in would make every technique look good."""
    assert (street.kind == "open") == (street.flow(protocol).back(flags) is not None)


@pytest.mark.parametrize(("protocol", "flags"), [(TCP, SYN), (TCP, ACK), (TCP, SYN | ACK), (UDP, 0)])
def test_strays_are_answered_only_by_the_rejecting_kind(
    street: Street | ModelStreet, protocol: int, flags: int
) -> None:
    """Its RST is what a first packet that arrives too early meets; silence elsewhere must be silence."""
    flow = street.flow(protocol)
    flow.back(flags)
    seen = flow.answer()
    if street.kind != "linux-reject":
        assert seen is None
        return
    assert seen is not None
    assert street.public == seen.src
    if protocol == UDP:
        assert seen.icmp == (3, 3)
    else:
        assert seen.flags & RST


def test_time_exceeded_comes_back_and_the_hole_stays_unless_it_kills(street: Street | ModelStreet) -> None:
    """Low-TTL primers open the hole and die at r1: where the error closes it, they are of no use."""
    flow = street.flow()
    assert flow.out(SYN, ttl=street.hole_ttl) is None
    error = flow.error()
    assert (street.kind != "untracked") == (error is not None and error.icmp == (11, 0))
    assert (street.kind != "icmp-kills") == (flow.back(SYN | ACK, ack=1001) is not None)


def test_syn_ack_after_own_syn_leaves_only_where_nothing_is_tracked(street: Street | ModelStreet) -> None:
    """SYNI's prerequisite at the responder: conntrack calls it INVALID."""
    flow = street.flow()
    flow.out(SYN)
    assert (street.kind in STATELESS) == (flow.out(SYN | ACK, ack=9001) is not None)


def test_syn_ack_with_another_number_leaves_only_where_the_window_is_not_checked(street: Street | ModelStreet) -> None:
    """NUTSS: the listener's SYN-ACK has a new number; it comes after the peer's SYN came in."""
    flow = street.flow()
    flow.out(SYN, seq=1000)
    flow.back(SYN)
    seen = flow.out(SYN | ACK, seq=5_000_000, ack=9001)
    assert (street.kind in ANY_SEQUENCE) == (seen is not None)


def test_syn_ack_with_the_syns_own_number_leaves_after_a_syn_in(street: Street | ModelStreet) -> None:
    """A kept SYN_SENT socket answers so: simopen passes all that let the SYN in."""
    flow = street.flow()
    flow.out(SYN)
    flow.back(SYN)
    assert (street.kind != "linux-synfilter") == (flow.out(SYN | ACK, ack=9001) is not None)


def test_ack_after_a_tracked_syn_does_not_leave(street: Street | ModelStreet) -> None:
    """Why no 4-tuple is used twice: one technique's SYN blocks the next one's ACK."""
    flow = street.flow()
    flow.out(SYN)
    assert (street.kind in STATELESS) == (flow.out(ACK, ack=9001) is not None)


def test_rst_in_for_a_fresh_syn_ends_a_tracked_mapping(street: Street | ModelStreet) -> None:
    """The damage that a provoked RST does on Linux; stateless holes stay."""
    flow = street.flow()
    flow.out(SYN)
    flow.back(RST | ACK, ack=1001)
    assert (street.kind in STATELESS) == (flow.back(SYN | ACK, ack=1001) is not None)


def test_rst_out_clears_a_tracked_syn_for_a_later_ack(street: Street | ModelStreet) -> None:
    """Clearing at an attempt's end: a low-TTL RST, and the 4-tuple is as new."""
    flow = street.flow()
    flow.out(SYN, ttl=street.hole_ttl)
    flow.out(RST, seq=1001, ttl=street.hole_ttl)
    assert (street.kind != "linux-noloose") == (flow.out(ACK, seq=7000, ack=9001) is not None)


def test_private_addresses_never_cross_the_routers(kernel_street: Street) -> None:
    """An INVALID packet that leaves untranslated would make results depend on luck."""
    street = kernel_street
    outer = Probe(street.lab.r1, "nat")
    flow = street.flow()
    flow.out(SYN)
    flow.out(SYN | ACK, ack=9001)
    leak = outer.receive(lambda seen: seen.src.startswith(("10.", "100.")))
    outer.close()
    assert leak is None
    packet = Packet("203.0.113.2", "10.0.2.2", TCP, 1, 2, SYN, 1)
    street.a.send(replace(packet, src=street.lab.a.address))
    assert street.b.receive(lambda seen: seen.dport == 2) is None


def test_hosts_with_conntrack_drop_what_they_did_not_ask_for() -> None:
    """Docker and ufw hosts are the normal case: the host itself refuses strays and INVALID."""
    with Lab("open", "open", hosts_conntrack=True, echo=None) as lab:
        a, b = Probe(lab.a), Probe(lab.b)
        a.send(Packet(lab.a.address, lab.b.address, TCP, 1, 2, SYN, 1000))
        assert b.receive(lambda seen: seen.dport == 2) is not None
        assert a.receive(lambda seen: seen.sport == 2) is None
        with pytest.raises(PermissionError):  # how a raw sender learns of a drop in its own output
            a.send(Packet(lab.a.address, lab.b.address, TCP, 1, 2, SYN | ACK, 1000, 1))
        a.close()
        b.close()


def test_bare_kinds_put_the_public_address_on_the_host(kernel_street: Street) -> None:
    """What `self` must say differs by it."""
    street = kernel_street
    assert (street.kind in BARE) == (street.lab.a.address == street.lab.public_a)
