"""The plan: which techniques, in which order, and what is missing for the others.
It refuses to run any."""

from __future__ import annotations

import random

from punchd.core import plan
from punchd.core.ports import Ports
from punchd.core.techniques import TECHNIQUES
from punchd.words.addresses import LISTEN_PORTS
from punchd.words.notification import Fan, Spread
from punchd.words.plan import Lanes, Row

ALL = frozenset({"ring", "raw", "repair", "rules", "queue"})


def test_auto_tries_what_needs_least_first() -> None:
    """97.6 % of successes come on the first try: the one that passes most NATs is it."""
    assert (list(plan.AUTO["tcp"]), {}) == plan.choose(None, "tcp", ALL)
    assert "tcp-simopen" == plan.AUTO["tcp"][0]


def test_auto_never_crosses_transports() -> None:
    """Who asked for a stream can't use datagrams."""
    assert (["udp"], {}) == plan.choose(None, "udp", ALL)


def test_a_list_keeps_its_order() -> None:
    """The caller knows something."""
    wanted = ["tcp-nutss", "tcp-simopen"]
    assert (wanted, {}) == plan.choose(wanted, "tcp", ALL)


def test_what_cannot_run_is_named_with_what_it_lacks() -> None:
    """`not-capable` must say which capability to grant."""
    runnable, missing = plan.choose(["tcp-midstream", "tcp-simopen"], "tcp", frozenset({"ring"}))
    assert ["tcp-simopen"] == runnable
    assert {"tcp-midstream": "raw, repair"} == missing


def test_without_any_capability_three_techniques_are_left() -> None:
    """Design: udp, direct and simopen need no privilege."""
    left = {name for transport in plan.AUTO for name in plan.choose(None, transport, frozenset())[0]}
    assert {"udp", "tcp-direct", "tcp-simopen"} == left


def test_auto_knows_every_technique() -> None:
    """A new file in core/techniques must get its place in the order; fans cost too many packets without a reason."""
    known = {name for names in plan.AUTO.values() for name in names}
    assert set(TECHNIQUES) == known | {"tcp-birthday", "udp-birthday"}


def test_a_listed_fan_takes_either_side_for_the_random_one() -> None:
    """Without classes nobody knows which NAT draws its ports, or whether one wants a SYN first."""
    udp, tcp = plan.rows(["udp-birthday"], listed=True), plan.rows(["tcp-birthday"], listed=True)
    assert [plan.own_random(), plan.peers_random()] == [row.lanes for row in udp]
    assert [False, False, True, True] == [row.lanes is not None and row.lanes.handshake for row in tcp]


def test_ports_of_a_fan_are_drawn_where_the_row_leaves_them_open() -> None:
    """One port that is open is drawn as ever; many are drawn round by round, from the candidate's seed."""
    candidate = plan.draw(Row("tcp-birthday", lanes=plan.own_random()), Ports(random.Random(1)))
    fan = candidate.offer.fan
    assert fan is not None
    assert (Spread(0, 1024), 1) == (fan.targets, fan.sources.count)
    assert fan.sources.first == candidate.offer.responder_port == candidate.aim_port > 0
    assert (Spread(0, 256), fan.sources) == (candidate.own, candidate.aims)


def test_ports_that_a_fan_names_stay() -> None:
    """Prediction: the plan knows best."""
    lanes = Lanes(Spread(22100, 64), Spread(40000, 64, 2), Spread(23000), Spread(50000, 3))
    candidate = plan.draw(Row("udp-birthday", lanes=lanes), Ports(random.Random(1)))
    assert Fan(lanes.seen, lanes.peers) == candidate.offer.fan
    assert (lanes.own, lanes.aims) == (candidate.own, candidate.aims)
    met = plan.meet(candidate.offer, Ports(random.Random(2)))
    assert (lanes.peers, lanes.seen) == (met.own, met.aims)


def test_an_offer_of_a_listening_technique_has_a_listening_port() -> None:
    """The ranges are apart, see core/ports.py."""
    ports = Ports(random.Random(1))
    for name, technique in TECHNIQUES.items():
        offer = plan.draw(Row(name), ports).offer
        assert name == offer.technique
        assert technique.listens == (offer.initiator_port in LISTEN_PORTS)
        assert offer.syn is None
