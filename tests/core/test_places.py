"""Places and descriptors: what is believed of them, and what is refused before anything is sent.
It refuses to send: tests/lab/test_hostile.py counts packets."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from punchd.core import places
from punchd.words.addresses import PUNCH_PORTS, Endpoint
from punchd.words.errors import Code, RequestError
from punchd.words.nat import Allocation, Dependence, Descriptor, Face, NatClass, Sample
from punchd.words.plan import View
from punchd.words.requests import Place

NOW_MS = 1_700_000_000_000
B = "198.51.100.2"
COUNTS = NatClass(Dependence.ADDRESS_AND_PORT, Dependence.UNKNOWN, Allocation.SEQUENTIAL, 1)
KEEPS = NatClass(Dependence.INDEPENDENT, Dependence.UNKNOWN, Allocation.PRESERVING)


def face(nat: NatClass = KEEPS, *, local: int = 22000, public: int = 22000, address: str = B) -> Face:
    return Face(local, Endpoint(address, public), nat, (Sample(NOW_MS - 100, 22001, 40000),))


def described(
    tcp: Face | None = None, udp: Face | None = None, *, host: str = "10.0.2.2", made_ms: int = NOW_MS
) -> Place:
    descriptor = Descriptor(host, made_ms, tcp, udp)
    some = tcp or udp
    assert some is not None
    return Place(some.public.address, descriptor=descriptor)


def usable(*named: Place, key: str = "peer", transport: str = "tcp", allow_private: bool = False) -> list[Place]:
    return places.usable(
        key, named, transport, ports=PUNCH_PORTS, now_ms=NOW_MS, allow_private=allow_private
    )  # fmt: skip


LIES = {
    "a loopback address": described(face(address="127.0.0.1")),
    "a private address": described(face(address="10.0.2.2")),
    "a private address (RFC 1918)": described(face(), face(address="192.168.1.1")),
    "the descriptor's host, 127.0.0.1, is a loopback address": described(face(), host="127.0.0.1"),
    "made 61 s from now": described(face(), made_ms=NOW_MS + 61_000),
    "local port 443 is outside of the punch range": described(face(local=443)),
    "local port 40000 is outside of the punch range": described(face(local=40000)),
    "public port 22 is below 1024": described(face(public=22)),
    "local port 50000": described(replace(face(), samples=(Sample(NOW_MS, 50000, 40000),))),
    "public port 80": described(replace(face(), samples=(Sample(NOW_MS, 22001, 80),))),
    "port 4711 is outside of the punch range": Place(B, 4711),
}


@pytest.mark.parametrize("why", LIES)
def test_what_lies_is_refused(why: str) -> None:
    """It would cost the peer's network, or a third one, packets that nobody asked for."""
    with pytest.raises(RequestError, match=r"nothing (is|was) sent") as refused:
        usable(LIES[why])
    assert why in refused.value.message


def test_usable_places_stay_in_the_callers_order() -> None:
    """An application may name all it knows, the address at home too."""
    good, other = Place(B), Place("198.51.100.3")
    assert [good, other] == usable(Place("192.168.1.7"), LIES["public port 80"], good, other)


def test_where_no_place_is_usable_the_first_ones_fault_is_told() -> None:
    """It is the one that the caller wanted most."""
    with pytest.raises(RequestError) as refused:
        usable(Place("127.0.0.1"), Place("10.0.0.1"))
    assert (Code.TARGET_REFUSED, True) == (refused.value.code, "127.0.0.1" in refused.value.message)


def test_an_own_place_that_nobody_can_reach_is_a_bad_value() -> None:
    """It is no target: the peer's packets would go there."""
    with pytest.raises(RequestError) as refused:
        usable(Place("10.0.1.2"), key="self")
    assert Code.BAD_VALUE is refused.value.code


def test_private_places_are_fine_where_the_daemon_was_told_so() -> None:
    """A lab, or a company's network."""
    assert ["10.0.2.2"] == [place.address for place in usable(Place("10.0.2.2"), allow_private=True)]


def test_each_transport_has_its_own_face() -> None:
    """A carrier may pool addresses."""
    place = described(face(), face(address="198.51.100.3"))
    assert (B, "198.51.100.3") == tuple(places.address(place, transport) for transport in ("tcp", "udp"))
    assert B == places.address(described(face()), "udp")


def test_a_plain_port_is_a_mapping_that_is_there_already() -> None:
    """Own port and public one are the same, else a descriptor is needed to say so."""
    assert View(own_port=23000, public_port=23000) == places.view(Place(B, 23000), "tcp")
    assert View() == places.view(Place(B), "tcp") == places.view(None, "tcp")


def test_a_nat_that_keeps_ports_needs_no_mapping_in_advance() -> None:
    """Fresh ports for every technique are worth more."""
    assert View(KEEPS) == places.view(described(face()), "tcp")
    guess = NatClass(Dependence.ADDRESS_AND_PORT)
    assert View(guess) == places.view(described(face(guess)), "tcp")


def test_a_mapping_for_all_destinations_is_used() -> None:
    """Its port is known, whatever way it was chosen."""
    nat = NatClass(Dependence.INDEPENDENT, allocation=Allocation.RANDOM)
    assert View(nat, own_port=22000, public_port=40000) == places.view(described(face(nat, public=40000)), "tcp")


def test_a_counting_nat_comes_with_its_samples() -> None:
    """Of the other transport too: one counter may serve both."""
    tcp, udp = face(COUNTS, public=40000), face(COUNTS, public=40001)
    assert View(COUNTS, face=udp, other=tcp) == places.view(described(tcp, udp), "udp")


def test_a_mapping_that_changes_somehow_is_taken_for_a_drawn_one() -> None:
    """Chance serves every NAT."""
    nat = NatClass(Dependence.ADDRESS_AND_PORT)
    assert Allocation.RANDOM is places.view(described(face(nat, public=40000)), "tcp").nat.allocation


def test_a_transport_that_was_not_probed_is_unknown() -> None:
    """What TCP does says little of UDP (RFC 7857, section 5)."""
    assert View() == places.view(described(face()), "udp")
