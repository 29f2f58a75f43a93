"""What tells one kind of NAT from another, axis by axis in the words of RFC 4787 and 5382, proven by packets.

It refuses to repeat test_kinds.py, which asks every kind the same questions about what punching needs.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from street import TCP, UDP, Flow, Street, street_of
from street_model import ModelFlow, ModelStreet

from punchd.lab.wire import ACK, RST, SYN

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

FIRST = {TCP: SYN, UDP: 0}
BOTH = pytest.mark.parametrize("protocol", [TCP, UDP])
NOTABLE = ("cone", "random", "sequential", "linux")


@pytest.fixture(scope="module", params=NOTABLE)
def kernel_street(request: pytest.FixtureRequest) -> Iterator[Street]:
    with street_of(request.param) as street:
        yield street


@pytest.fixture(params=["kernel", "model"])
def street(request: pytest.FixtureRequest, kernel_street: Street) -> Street | ModelStreet:
    return kernel_street if request.param == "kernel" else ModelStreet.of(kernel_street.kind, kernel_street.kind)


def one(*kinds: str) -> pytest.MarkDecorator:
    """This test asks these kinds; `street` bears one, in either half, and `kernel_street` in the kernel."""
    return pytest.mark.parametrize("kernel_street", kinds, indirect=True)


def established(flow: Flow | ModelFlow) -> Flow | ModelFlow:
    """Three packets of an ordinary connect from inside."""
    assert flow.out(SYN) is not None
    assert flow.back(SYN | ACK, ack=1001) is not None
    assert flow.out(ACK, seq=1001, ack=9001) is not None
    return flow


# -- mapping and filtering ---------------------------------------------------------------------------------------


@BOTH
def test_mapping_is_one_port_for_all_destinations_unless_the_kind_is_symmetric(
    street: Street | ModelStreet, protocol: int
) -> None:
    """RFC 4787, section 4.1: what a STUN server says is of use towards others, or it isn't."""
    flow = street.flow(protocol)
    flows = [flow, flow.other_port(), flow.other_address()]
    mapped = []
    for each in flows:
        seen = each.out(FIRST[protocol])
        assert seen is not None
        mapped.append(seen.sport)
    if street.kind == "random":
        assert 3 == len(set(mapped))
        assert max(mapped) - min(mapped) > 3
    elif street.kind == "sequential":
        assert [mapped[0], mapped[0] + 1, mapped[0] + 2] == mapped
    else:
        assert [flow.port_a] * 3 == mapped


@pytest.mark.parametrize(("protocol", "flags"), [(TCP, SYN), (TCP, ACK), (TCP, SYN | ACK), (UDP, 0)])
def test_only_the_cone_lets_in_whom_the_port_never_spoke_to(
    street: Street | ModelStreet, protocol: int, flags: int
) -> None:
    """RFC 4787, section 5: filtering, by another port of the same address and by another address."""
    flow = street.flow(protocol)
    flow.out(FIRST[protocol])
    for stranger in (flow.other_port(), flow.other_address()):
        assert (street.kind == "cone") == (stranger.back(flags) is not None)
    assert flow.back(ACK | SYN if protocol == TCP else 0, ack=1001) is not None


@one("cone")
def test_cone_answers_a_stranger_from_the_open_port(street: Street | ModelStreet) -> None:
    """A whole connection from outside: SYN in, SYN-ACK out, ACK in, data out."""
    flow = street.flow()
    flow.out(SYN)
    stranger = flow.other_address()
    assert stranger.back(SYN) is not None
    seen = stranger.out(SYN | ACK, ack=9001)
    assert seen is not None
    assert (street.public, flow.port_a) == (seen.src, seen.sport)
    assert stranger.back(ACK, seq=9001, ack=1001) is not None
    assert stranger.out(ACK, seq=1001, ack=9001) is not None


@one("cone")
@BOTH
def test_cone_forgets_a_port_that_only_outsiders_use(kernel_street: Street, protocol: int) -> None:
    """RFC 4787, REQ-6: packets from outside must not keep a mapping alive for ever."""
    street = kernel_street
    flow = street.flow(protocol)
    flow.out(FIRST[protocol])
    minutes = {TCP: 124, UDP: 5}[protocol]
    assert minutes - 1 <= left_s(street, "open", f"{protocol_name(protocol)} . {flow.port_a}") / 60 <= minutes
    name = f"{protocol_name(protocol)} . {flow.port_a}"
    street.lab.nat_a.nft(f"delete element ip lab open {{ {name} }}\nadd element ip lab open {{ {name} timeout 150ms }}")
    assert flow.other_address().back(FIRST[protocol]) is not None
    time.sleep(0.15)
    assert flow.other_address().back(FIRST[protocol]) is None
    assert flow.other_port().out(FIRST[protocol]) is not None
    assert flow.other_address().back(FIRST[protocol]) is not None


# -- port allocation ---------------------------------------------------------------------------------------------


@one("sequential")
def test_sequential_counts_tcp_and_udp_together(street: Street | ModelStreet) -> None:
    """Samples taken over UDP predict TCP here; the second packet of a connection takes no port."""
    first = street.flow(UDP)
    first.out()
    first.out()
    second = street.flow(TCP)
    second.out(SYN)
    assert first.mapped + 1 == second.mapped


@pytest.mark.parametrize("step", [-1, 2, 256])
def test_sequential_advances_by_the_step_that_it_is_given(step: int) -> None:
    """Steps seen in the field (techniques: 1, 2, 256, downwards), which prediction must find out."""
    with street_of(f"sequential:step={step}") as street:
        flows = [street.flow(UDP) for _ in range(4)]
        for flow in flows:
            flow.out()
    assert [step] * 3 == [later.mapped - earlier.mapped for earlier, later in pairwise(flows)]


def test_neighbours_take_ports_at_their_rate() -> None:
    """The rate is what prediction estimates; Poisson, so about 100 in half a second at 200."""
    with street_of("sequential:foreign=200") as street:
        first = street.flow(UDP)
        deadline = time.monotonic() + 5
        first.out()
        while (last := street.flow(UDP)).out() and last.mapped == first.mapped + 1 and time.monotonic() < deadline:
            first = last
        begun, first = time.monotonic(), last
        time.sleep(0.5)
        last = street.flow(UDP)
        last.out()
        rate = (last.mapped - first.mapped - 1) / (time.monotonic() - begun)
    assert 120 < rate < 280


# -- layers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "layers"), [("cgn", 2), ("linux-reject/linux/linux", 3)])
def test_a_layer_costs_a_ttl(kind: str, layers: int) -> None:
    """Behind a CGN a packet of TTL 2 dies within: who complains tells which TTL clears the outermost NAT."""
    with street_of(kind) as street:
        for ttl in range(1, layers + 2):
            flow = street.flow()
            flow.out(SYN, ttl=ttl)
            error = street.a.receive(lambda seen, port=flow.port_a: seen.icmp == (11, 0) and seen.sport == port)
            assert error is not None
            gateways = ["10.0.1.1", "100.64.1.1", "100.65.1.1"][:layers]
            assert [*gateways, "203.0.113.1"][ttl - 1] == error.src
            assert (ttl > layers) == bool(flow.mapped)
            assert (ttl > layers) == (flow.back(SYN | ACK, ack=1001) is not None)


# -- reactions ---------------------------------------------------------------------------------------------------


@one("icmp-kills")
@BOTH
def test_error_ends_the_mapping_that_it_quotes_and_no_other(street: Street | ModelStreet, protocol: int) -> None:
    """RFC 5508, REQ-7 broken, as a minority do; a packet from inside begins anew."""
    flow, other = street.flow(protocol), street.flow(protocol)
    answer = (SYN | ACK, 1001) if protocol == TCP else (0, 0)
    for each in (flow, other):
        each.out(FIRST[protocol])
    flow.out(FIRST[protocol], ttl=2)
    assert flow.back(answer[0], ack=answer[1]) is None
    assert other.back(answer[0], ack=answer[1]) is not None
    flow.out(FIRST[protocol])
    assert flow.back(answer[0], ack=answer[1]) is not None


@one("icmp-kills")
def test_error_ends_an_established_connection_until_its_next_packet_out(street: Street | ModelStreet) -> None:
    """What is dead lets nothing out but what would begin a connection: ACK does, FIN and RST don't."""
    flow = established(street.flow())
    flow.out(ACK, seq=1001, ack=9001, ttl=2)
    assert flow.back(ACK, seq=9001, ack=1001) is None
    assert flow.out(RST, seq=1001) is None
    assert flow.out(ACK, seq=1001, ack=9001) is not None
    assert flow.back(ACK, seq=9001, ack=1001) is not None


@one("rst-kills", "linux")
def test_rst_ends_an_established_connection_at_once_or_leaves_it_to_linger(street: Street | ModelStreet) -> None:
    """RFC 7857 wants four minutes, Linux takes ten seconds, and some NATs none; the RST itself passes."""
    flow = established(street.flow())
    assert flow.back(RST, seq=9001) is not None
    assert (street.kind != "rst-kills") == (flow.back(ACK, seq=9001, ack=1001) is not None)
    assert flow.out(ACK, seq=1001, ack=9001) is not None
    assert flow.back(ACK, seq=9001, ack=1001) is not None


@one("rst-kills")
def test_rst_ends_a_picked_up_connection(street: Street | ModelStreet) -> None:
    """Midstream's: ACK out, ACK in, and then a RST of the peer's kernel."""
    flow = street.flow()
    flow.out(ACK, seq=1001, ack=9001)
    assert flow.back(ACK, seq=9001, ack=1001) is not None
    assert flow.back(RST, seq=9001) is not None
    assert flow.back(ACK, seq=9001, ack=1001) is None


@one("blacklist")
@pytest.mark.parametrize(("protocol", "flags"), [(TCP, SYN), (TCP, ACK), (TCP, SYN | ACK), (UDP, 0)])
def test_stray_blocks_its_sender_and_nobody_else(street: Street | ModelStreet, protocol: int, flags: int) -> None:
    """Why a first packet that arrives too early is worse than lost: nothing from there comes in for 30 s."""
    flow = street.flow()
    flow.out(SYN)
    elsewhere = flow.other_address()
    elsewhere.out(SYN)
    stray = flow.other_port()
    stray.protocol = protocol
    assert stray.back(flags) is None
    assert flow.back(SYN | ACK, ack=1001) is None
    assert elsewhere.back(SYN | ACK, ack=1001) is not None


@one("blacklist")
def test_block_lasts_30_s_from_the_last_arrival(kernel_street: Street) -> None:
    """Each arrival prolongs: whoever keeps knocking stays out."""
    street = kernel_street
    flow = street.flow()
    flow.out(SYN)
    flow.other_port().back(SYN)
    time.sleep(0.3)
    waited_s = left_s(street, "blocked", street.lab.b.address)
    assert 29 < waited_s < 29.75
    flow.back(SYN | ACK, ack=1001)
    assert waited_s < left_s(street, "blocked", street.lab.b.address) <= 30
    address = street.lab.b.address
    street.lab.nat_a.nft(f"flush set ip lab blocked\nadd element ip lab blocked {{ {address} timeout 100ms }}")
    time.sleep(0.15)
    assert flow.back(SYN | ACK, ack=1001) is not None


@one("blacklist")
def test_late_packets_of_an_own_flow_are_no_strays(street: Street | ModelStreet) -> None:
    """A RST of the peer's ends the mapping on Linux; what it had under way must not block it."""
    flow = street.flow()
    flow.out(SYN)
    flow.back(RST | ACK, ack=1001)
    assert flow.back(SYN | ACK, ack=1001) is None
    assert flow.out(SYN, seq=2000) is not None
    assert flow.back(SYN | ACK, ack=2001) is not None


@one("linux-noloose")
def test_only_a_syn_begins_a_connection_and_then_all_of_it_passes(street: Street | ModelStreet) -> None:
    """RFC 6146's automaton: midstream has no place here, simultaneous open has."""
    assert street.flow().out(ACK, seq=1001, ack=9001) is None
    flow = established(street.flow())
    assert flow.back(ACK, seq=9001, ack=1001) is not None


def left_s(street: Street, name: str, element: str) -> float:
    """How long an element of a set still has."""
    listing = street.lab.nat_a.run(["nft", "list", "set", "ip", "lab", name])
    match = re.search(rf"\b{re.escape(element)} [^,}}]*expires ((?:\d+(?:ms|[hms]))+)", listing)
    assert match is not None, listing
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|[hms])", match[1]))


def protocol_name(protocol: int) -> str:
    return {TCP: "tcp", UDP: "udp"}[protocol]
