"""The plan: which techniques, in which order, and what is missing for the others.
It refuses to run any."""

from __future__ import annotations

import random

from punchd.core import plan
from punchd.core.ports import Ports
from punchd.core.techniques import TECHNIQUES
from punchd.words.addresses import LISTEN_PORTS
from punchd.words.plan import Row

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
    """A new file in core/techniques must get its place in the order."""
    assert set(TECHNIQUES) == {name for names in plan.AUTO.values() for name in names}


def test_an_offer_of_a_listening_technique_has_a_listening_port() -> None:
    """The ranges are apart, see core/ports.py."""
    ports = Ports(random.Random(1))
    for name, technique in TECHNIQUES.items():
        offer = plan.draw(Row(name), ports).offer
        assert name == offer.technique
        assert technique.listens == (offer.initiator_port in LISTEN_PORTS)
        assert offer.syn is None
