"""Admission: what a request with descriptors and known ports becomes, and what the last attempts change about it.
It refuses to ask the kernel for routes: this host's address is given."""

from __future__ import annotations

import random
import time
from ipaddress import IPv4Network
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from punchd.core import places, plan
from punchd.core.initiating import Initiating
from punchd.core.responding import Responding
from punchd.daemon.admission import Admission
from punchd.daemon.config import Config
from punchd.daemon.host import Host
from punchd.daemon.networks import Networks
from punchd.edge import gateway
from punchd.edge.gateway import Network
from punchd.wire.peer import encode_notification
from punchd.words.addresses import Endpoint, is_private
from punchd.words.errors import Code, PeerError, RequestError
from punchd.words.nat import Allocation, Dependence, Descriptor, Face, NatClass, Sample
from punchd.words.notification import NONCE_LEN, Notification, Offer, Opening
from punchd.words.plan import View
from punchd.words.requests import Initiate, Place, Respond, Transport

A, B = "203.0.113.2", "198.51.100.2"
HERE, UID = "10.0.1.2", 1000
COUNTS = NatClass(Dependence.ADDRESS_AND_PORT, Dependence.UNKNOWN, Allocation.SEQUENTIAL, 1)
ALL = frozenset({"ring", "raw", "repair", "rules", "queue"})


class Routed(Admission):
    """On a host with this address, in a network of 256."""

    __slots__ = ()

    def _route(self, remote: str) -> str:
        if remote == HERE:
            raise RequestError(Code.TARGET_REFUSED, "this host itself")
        return "172.17.0.1" if remote.startswith("172.17.") else HERE


def admission(**config: Any) -> Admission:
    host = cast(Host, SimpleNamespace(able=ALL))
    return Routed(Config(public=A, **config), host, random.Random(1))


def request(*peer: Place, **more: Any) -> Initiate:
    return Initiate(id="1", peer=peer or (Place(B),), transport=Transport.UDP, **more)


def counted(address: str, last: int = 40_000) -> Place:
    """A descriptor made just now, of a NAT that counts."""
    now_ms = int(time.time() * 1000)
    samples = tuple(Sample(now_ms - 40 * (9 - turn), 22000 + turn, last - 9 + turn) for turn in range(10))
    face = Face(22000, Endpoint(address, last - 9), COUNTS, samples)
    return Place(address, descriptor=Descriptor("10.0.2.2", now_ms, udp=face))


def test_addresses_alone_get_the_plan_of_the_unknown() -> None:
    """As ever."""
    attempt = admission().initiating(request(), UID)
    assert (A, B) == (attempt.public, attempt.remote)
    assert tuple(plan.rows(["udp"], listed=False)) == attempt.rows


def test_a_port_is_opened_and_aimed_at() -> None:
    """The caller knows of a mapping on either side."""
    attempt = admission().initiating(request(Place(B, 23000), self_=(Place(A, 24000),)), UID)
    assert (24000, 23000) == (attempt.pairs[0].own_port, attempt.pairs[0].aim_port)
    assert 1 == len(attempt.rows)


def test_a_descriptor_is_predicted_from() -> None:
    """The peer's next port, or ours, and no one else's."""
    attempt = admission().initiating(request(counted(B)), UID)
    fan, *_ = attempt.rows
    assert fan.lanes is not None
    assert (B, 1) == (attempt.remote, fan.lanes.aims.count)
    assert 40001 < fan.lanes.aims.first < 41000  # where it will have counted to when it is its turn
    attempt = admission().initiating(request(self_=(counted(A, 50_000),)), UID)
    fan, _, plain, *_ = attempt.rows
    assert fan.lanes is not None
    assert (A, 50002, 50003, 0) == (attempt.public, fan.lanes.seen.first, plain.seen_port, plain.aim_port)


def test_a_timed_attempt_that_fails_is_not_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its strays may be what the peer's NAT has refused or punished, whatever the descriptor says."""
    known = View(NatClass(drops_strays=True, forgives=True))
    monkeypatch.setattr(places, "view", lambda place, transport: known)
    gate, asked = admission(), request(techniques=("udp",), side_delay_ms=500.0)
    first = gate.initiating(asked, UID)
    assert [True] == [row.timed for row in first.rows]
    gate.ended(UID, first, ok=False)
    second = gate.initiating(asked, UID)
    assert [(False, 0.0)] == [(row.timed, row.after_s) for row in second.rows]
    assert [True] == [row.timed for row in gate.initiating(asked, UID + 1).rows]
    gate.ended(UID, first, ok=True)
    assert [True] == [row.timed for row in gate.initiating(asked, UID).rows]


def at_home(public: str, host: str, *, tcp: bool = False) -> Place:
    """A descriptor made just now, of a host behind an ordinary router."""
    face = Face(22000, Endpoint(public, 22000), NatClass(allocation=Allocation.PRESERVING))
    return Place(public, descriptor=Descriptor(host, int(time.time() * 1000), tcp=face if tcp else None, udp=face))


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel's table of routes would say."""
    monkeypatch.setattr(gateway, "is_on_link", lambda local, address: address.startswith("10.0.1."))


def within(attempt: Initiating | Responding) -> list[str]:
    return [address for address in attempt.targets[1:] if is_private(address)]


@pytest.mark.usefixtures("link")
def test_a_neighbour_behind_the_same_nat_is_tried_past_it_and_through_it() -> None:
    """Many routers turn nothing around; some switches keep hosts apart."""
    near = request(at_home(A, "10.0.1.3"), self_=(at_home(A, HERE),))
    attempt = admission().initiating(near, UID)
    assert ((A, A), ["10.0.1.3"]) == ((attempt.public, attempt.remote), within(attempt))
    first, *others = attempt.rows
    assert ("udp", "10.0.1.3", HERE) == (first.technique, first.remote, first.public)
    assert tuple(plan.rows(["udp"], listed=False)) == tuple(others)


@pytest.mark.usefixtures("link")
def test_a_neighbour_hears_nothing_that_a_stranger_could_answer() -> None:
    """A SYN would find whatever listens there; the operator may allow it, for hosts without privileges."""
    near = replace(request(at_home(A, "10.0.1.3", tcp=True), self_=(Place(A),)), transport=Transport.TCP)
    for allowed, names in ((False, {"tcp-midstream"}), (True, {"tcp-midstream", "tcp-direct"})):
        attempt = admission(allow_private=allowed).initiating(near, UID)
        assert names == {row.technique for row in attempt.rows if row.remote}


@pytest.mark.usefixtures("link")
@pytest.mark.parametrize(
    ("own", "peer", "allow_private"),
    [
        (at_home(A, HERE), at_home(A, "198.51.100.77"), True),
        (at_home(A, HERE), at_home(A, HERE), True),
        (at_home(A, HERE), at_home(A, "10.0.7.3"), False),
        (at_home(A, HERE), at_home(A, "172.17.0.2"), True),
        (at_home(A, HERE), at_home(B, "10.0.1.3"), True),
        (at_home(A, HERE), Place(A), True),
    ],
    ids=["third party", "this host", "another subnet", "another interface", "apart", "no descriptor"],
)
def test_nobody_else_is_sent_to(own: Place, peer: Place, allow_private: bool) -> None:
    """A descriptor's `host` is the peer's word."""
    attempt = admission(allow_private=allow_private).initiating(request(peer, self_=(own,)), UID)
    assert (A, peer.address, []) == (attempt.public, attempt.remote, within(attempt))


@pytest.mark.usefixtures("link")
def test_the_operator_may_allow_other_subnets() -> None:
    """A campus is one NAT and many links."""
    near = request(at_home(A, "10.0.7.3"), self_=(at_home(A, HERE),))
    assert ["10.0.7.3"] == within(admission(allow_private=True).initiating(near, UID))


def invited(*, technique: str = "udp", host: str = "10.0.1.3", **more: Any) -> Respond:
    """A notification from behind our own NAT, as it says."""
    offers = (Offer(technique, 22001, 23001, at=1), Offer(technique, 22002, 23002))
    text = encode_notification(
        Notification(bytes(16), A, A, technique.partition("-")[0], offers, others=(host,)), None
    )  # fmt: skip
    return Respond(id="1", notification=text, **more)


def at(gate: Admission, public: str) -> Admission:
    gate.networks = Networks(life_s=3600.0, look=lambda local: Network("10.0.1.0/24", "02:00:0a:00:01:01"))
    gate.networks.show(HERE, public)
    return gate


@pytest.mark.usefixtures("link")
def test_a_responder_believes_its_own_endpoint_alone() -> None:
    """That both are behind one NAT is the initiator's word until this host has been seen at that address itself."""
    assert ["10.0.1.3"] == within(at(admission(), A).responding(invited(), UID))
    assert [] == within(at(admission(), B).responding(invited(), UID))
    assert ["10.0.1.3"] == within(at(admission(allow_private=True), B).responding(invited(), UID))


@pytest.mark.usefixtures("link")
@pytest.mark.parametrize(
    "wanted",
    [invited(technique="tcp-direct"), invited(technique="tcp-simopen"), invited(host="10.0.7.3"), invited(host=HERE),
     invited(host="127.0.0.1"), invited(host="172.17.0.2"), invited(from_=(IPv4Network("203.0.113.0/24"),))],
    ids=["connects", "sends a SYN", "another subnet", "this host", "loopback", "another interface", "beyond from"],
)  # fmt: skip
def test_a_responder_strikes_out_what_it_must_not_reach(wanted: Respond) -> None:
    """And tries the rest."""
    attempt = at(admission(), A).responding(wanted, UID)
    assert (A,) == tuple(target for target in attempt.targets if target)
    attempt.begin()
    assert {""} == {pair.remote for pair in attempt.pairs}


def test_a_notification_for_strangers_alone_is_refused() -> None:
    """There is nothing left to try."""
    text = encode_notification(
        Notification(bytes(16), A, A, "udp", (Offer("udp", 22001, 23001, at=1),), others=("10.0.9.9",)), None
    )  # fmt: skip
    with pytest.raises(RequestError) as refused:
        admission().responding(Respond(id="1", notification=text), UID)
    assert Code.TARGET_REFUSED is refused.value.code


def test_a_blind_host_refuses_what_only_eyes_can_end() -> None:
    """An initiator that must fire wants a signal for answer. No attempt, for it would have nothing to fail with."""
    gate = admission()
    gate._host = cast(Host, SimpleNamespace(able=frozenset()))
    offer = Offer("tcp-simopen", 22001, 23001, opening=Opening.REFIRED)
    with pytest.raises(PeerError) as refused:
        gate.responding(
            Respond(id="1", notification=encode_notification(Notification(bytes(16), A, B, "tcp", (offer,)), None)), UID
        )
    assert Code.NO_COMMON_TECHNIQUE is refused.value.code
    assert {"tcp-simopen": ["queue", "raw", "ring"]} == refused.value.cause["missing"]


def test_further_entries_are_tried_after_the_first() -> None:
    """An application need not know by which address a peer, or this host, is reached."""
    attempt = admission().initiating(request(Place(B), Place("192.0.2.77"), self_=(Place(A), Place("192.0.2.8"))), UID)
    ways = list(dict.fromkeys((row.public or A, row.remote or B) for row in attempt.rows))
    assert [(A, B), ("192.0.2.8", B), (A, "192.0.2.77"), ("192.0.2.8", "192.0.2.77")] == ways
    assert (B, "192.0.2.77") == attempt.targets
    assert {Opening.PRIMED} == {row.opening for row in attempt.rows[:4]}


def test_ten_punches_at_once_guess_ten_ports() -> None:
    """What the first took is not there for the second."""
    gate, own = admission(), counted(A, 50_000)
    guesses = []
    for _ in range(10):
        attempt = gate.initiating(request(self_=(own,)), UID)
        guesses.append(attempt.rows[2].seen_port)
        gate.recent.maps("udp", attempt.local, 2, time.monotonic() + 0.01)  # after the sample for certain
    assert 50003 == guesses[0]
    # a fan and a hole of its own each; where the machine took its time, a neighbour's port besides
    assert {later - earlier for earlier, later in pairwise(guesses)} <= {2, 3}


def test_a_retry_within_a_minute_begins_elsewhere() -> None:
    """And a success makes the first way the first again; users know nothing of each other."""
    gate = admission()
    first = gate.initiating(request(), UID)
    listed = gate.initiating(request(techniques=("udp",)), UID)
    gate.ended(UID, listed, ok=False)
    assert first.rows == gate.initiating(request(), UID).rows
    gate.ended(UID, first, ok=False)
    again = gate.initiating(request(), UID)
    assert [Opening.PRIMED, Opening.REFIRED] == [first.rows[0].opening, again.rows[0].opening]
    assert Opening.PRIMED is gate.initiating(request(), UID + 1).rows[0].opening
    gate.ended(UID, again, ok=True)
    assert Opening.PRIMED is gate.initiating(request(), UID).rows[0].opening


def test_a_told_side_delay_moves_the_late_rows() -> None:
    """See core/plan.py."""
    attempt = admission().initiating(request(side_delay_ms=100.0), UID)
    assert 0.1 + plan.LATE_AFTER_S == attempt.rows[1].after_s


@pytest.mark.parametrize("key", ["peer", "self"])
def test_a_descriptor_that_lies_costs_a_refusal(key: str) -> None:
    """On either side, and nothing is opened."""
    place = counted(B)
    assert place.descriptor is not None
    lie = replace(place, descriptor=replace(place.descriptor, made_ms=place.descriptor.made_ms + 3_600_000))
    with pytest.raises(RequestError, match="nothing was sent") as refused:
        admission().initiating(request(lie) if key == "peer" else request(self_=(lie,)), UID)
    assert (Code.BAD_VALUE, {"key": key}) == (refused.value.code, refused.value.cause)


def primers(gate: Admission, uid: int = UID) -> Initiating:
    return gate.initiating(request(techniques=("udp",)), uid)


def respond(nonce: int) -> Respond:
    text = encode_notification(Notification(bytes([nonce]) * NONCE_LEN, B, A, "udp", (Offer("udp", 22001, 23001),)))
    return Respond(id="1", notification=text)


def test_a_retry_primes_further_in_either_role_and_stays_where_it_works() -> None:
    """A TTL that does not clear the own NATs fails in silence; the caller's own list fails by it as `auto` does."""
    gate = admission()
    first, beside = primers(gate), primers(gate)
    gate.ended(UID, first, ok=False)
    gate.ended(UID, beside, ok=False)  # with the same TTL, so it says nothing new
    second = gate.responding(respond(1), UID)
    gate.ended(UID, second, ok=False)
    third = primers(gate)
    gate.ended(UID, third, ok=True)
    assert [2, 4, 3, 3] == [one.terms.hole_ttl for one in (first, second, third, gate.responding(respond(2), UID))]
    assert 2 == primers(gate, UID + 1).terms.hole_ttl


def test_a_ttl_that_somebody_has_set_or_found_is_no_guess() -> None:
    """The operator knows; and a first failure may have had another reason."""
    told, found = admission(hole_ttl=3), admission()
    found.networks = cast(Networks, SimpleNamespace(ttl=lambda local: 3))
    for gate in (told, found):
        gate.ended(UID, primers(gate), ok=False)
        assert 3 == primers(gate).terms.hole_ttl
    gate = found
    gate.ended(UID, primers(gate), ok=False)
    assert 5 == primers(gate).terms.hole_ttl
