"""Claims about core/candidates.py: which ways lead to a peer, and what may go past a NAT that both share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchd.core.candidates import WAYS_MAX, Way, neighbour, rows_within, told, ways
from punchd.words.addresses import Endpoint, is_private
from punchd.words.nat import Descriptor, Face, NatClass
from punchd.words.outcomes import Failed
from punchd.words.requests import Place

HERE, THERE = "203.0.113.2", "198.51.100.2"
TRANSPORTS = pytest.mark.parametrize("transport", ["tcp", "udp"])


def host(address: str, public: str, *, udp: bool = True) -> Place:
    face = Face(22001, Endpoint(public, 42001), NatClass())
    return Place(public, descriptor=Descriptor(address, 1_795_365_636_908, face, face if udp else None, 2))


def all_ways(own: Place | list[Place], *peers: Place, transport: str = "tcp", near: bool = True) -> list[Way]:
    owns = own if isinstance(own, list) else [own]
    return ways(owns, peers, transport, local="10.0.1.2", is_near=lambda address: near)


ANNA, BOB = host("10.0.1.2", HERE), host("10.0.1.3", HERE)
INSIDE = Way(Place("10.0.1.2"), Place("10.0.1.3"), within=True)


@TRANSPORTS
def test_peers_with_other_public_addresses_are_aimed_at_there(transport: str) -> None:
    """Equal or not, private addresses mean nothing between two networks, and may be somebody else's."""
    afar = host("10.0.1.3", THERE)
    assert [Way(ANNA, afar)] == all_ways(ANNA, afar, transport=transport)


@TRANSPORTS
def test_behind_one_nat_there_is_a_way_through_it_and_one_past_it(transport: str) -> None:
    """Many routers turn nothing around, many access points keep hosts apart; nobody can tell beforehand."""
    assert [Way(ANNA, BOB), INSIDE] == all_ways(ANNA, BOB, transport=transport)
    assert [Way(ANNA, BOB)] == all_ways(ANNA, BOB, transport=transport, near=False)


def test_an_address_alone_tells_that_the_nat_is_shared_but_not_where_the_peer_is() -> None:
    """The rendezvous server's view is enough of ourselves; of the peer it takes the descriptor."""
    assert [Way(Place(HERE), BOB), INSIDE] == all_ways(Place(HERE), BOB)
    assert [Way(ANNA, Place(HERE))] == all_ways(ANNA, Place(HERE))


def test_a_private_address_that_the_caller_names_itself_is_no_second_way() -> None:
    """It is tried as any entry is, where the operator allows it."""
    assert [Place("10.0.1.3"), BOB] == [way.peer for way in all_ways(ANNA, Place("10.0.1.3"), BOB)]


def test_one_way_twice_is_one_way() -> None:
    """A descriptor and the bare address that it holds: the one that says more, if it was named first."""
    assert [Way(ANNA, host("10.0.9.9", THERE))] == all_ways([ANNA, Place(HERE)], host("10.0.9.9", THERE), Place(THERE))


def test_lists_are_paired_peer_by_peer_up_to_a_bound() -> None:
    """Each way costs holes and packets."""
    others = [Place(f"198.51.100.{n}") for n in range(3, 9)]
    found = all_ways([ANNA, Place("192.0.2.8")], BOB, *others)
    assert WAYS_MAX == len(found)
    assert [(HERE, HERE), ("192.0.2.8", HERE), (HERE, "198.51.100.3")] == [
        (way.own.address, way.peer.address) for way in found[:-1]
    ]
    assert INSIDE == found[-1]


def test_transport_that_one_side_lacks_shows_no_neighbour() -> None:
    """Its UDP is blocked: that it is near says nothing of where its datagrams would come from."""
    assert neighbour([host("10.0.1.2", THERE)], [BOB], "udp") is None
    assert "10.0.1.3" == neighbour([ANNA], [BOB], "tcp")


@given(st.ip_addresses(v=4).map(str))
def test_lying_descriptor_names_no_third_party_as_private(address: str) -> None:
    """The peer's `host` is its own word: anybody's public address, a loopback or a broadcast one is never aimed at."""
    for way in all_ways(ANNA, host(address, HERE)):
        assert not way.within or is_private(way.peer.address)


@pytest.mark.parametrize("address", ["127.0.0.1", "255.255.255.255", "169.254.1.1", THERE, "224.0.0.1"])
def test_special_and_public_addresses_are_no_private_ones(address: str) -> None:
    """The property above seldom draws them."""
    assert [False] == [way.within for way in all_ways(ANNA, host(address, HERE))]


def test_nothing_that_connects_to_a_stranger_goes_within() -> None:
    """What is not sealed by the nonce could reach a neighbour's service; the operator may allow it."""
    names = ["tcp-simopen", "tcp-midstream", "tcp-syni", "tcp-nutss", "tcp-direct", "tcp-birthday"]
    assert ["tcp-midstream"] == [row.technique for row in rows_within(INSIDE, names, trusted=False)]
    rows = rows_within(INSIDE, names, trusted=True)
    assert ["tcp-midstream", "tcp-direct"] == [row.technique for row in rows]
    assert {("10.0.1.3", "10.0.1.2")} == {(row.remote, row.public) for row in rows}


def test_a_silence_behind_one_nat_is_called_by_its_name() -> None:
    """`nothing-heard` sends people to the other side's router, and here there is none."""
    silent = Failed("nothing-heard", "nothing came from the peer", "wait", {"udp": {}})
    verdict = told(silent, HERE, tried=False)
    assert ("nothing-heard", silent.cause) == (verdict.code, verdict.cause)
    assert f"behind the same NAT, {HERE}, which brings nothing back inside" in verdict.message
    assert "--allow-private" in verdict.advice
    assert "isolation" in told(silent, HERE, tried=True).advice
    own = Failed("blocked-outgoing", "a rule of this host drops what we send", "doctor")
    assert own is told(own, HERE, tried=True)
