"""Which pairs of NATs can be passed at all, by exhaustion of the orders of packets in the modelled half.

It refuses to say how punchd does it; test_search_kernel.py plays the orders found here through real NATs.
"""

from __future__ import annotations

from functools import cache

import pytest

from punchd.lab.automaton import START, Automaton, Way, Word
from punchd.lab.model_kinds import KINDS, layers
from punchd.lab.search import Discipline, Found, ladder, search, short
from punchd.words.events import ACK, SYN

BOTH = pytest.mark.parametrize("transport", ["tcp", "udp"])
HOPELESS = {("random", "random"), ("random", "sequential"), ("sequential", "random")}
PROOF_DEPTH = 12


@cache
def table(transport: str) -> dict[tuple[str, str], Found]:
    """Each ordered pair of kinds."""
    return {(a, b): search(a, b, transport) for a in KINDS for b in KINDS}


@pytest.mark.slow
@BOTH
def test_every_pair_but_the_hopeless_has_an_order_that_passes(transport: str) -> None:
    """Issue 3: any other exception would need a proof, and there is none to be had."""
    assert HOPELESS == {pair for pair, found in table(transport).items() if found.steps is None}


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("pair", sorted(HOPELESS), ids="-".join)
def test_no_order_passes_where_both_ports_change_and_one_is_drawn(pair: tuple[str, str], transport: str) -> None:
    """The proof of the exceptions: whatever is sent, in whatever order, told or not, each knocks at a closed door."""
    found = search(*pair, transport, disciplines=(Discipline.TOLD,), depth=PROOF_DEPTH)
    assert found.steps is None
    assert found.closed == (transport == "udp")  # TCP's are bounded: a RST and a new SYN draw ever new ports


@pytest.mark.slow
@BOTH
def test_spraying_is_asked_for_only_where_one_port_is_drawn_and_the_other_steady(transport: str) -> None:
    """Birthday costs 1280 packets: where a port can be known it would be waste, and of two drawn ones no use."""
    sprayed = {pair for pair, found in table(transport).items() if found.sprays}
    steady = set(KINDS) - {"random", "sequential", "open", "cone"}
    assert {(a, "random") for a in steady} | {("random", b) for b in steady} == sprayed


@pytest.mark.slow
@BOTH
def test_only_these_pairs_need_more_than_a_quiet_initiator(transport: str) -> None:
    """What the plan must know: where the initiator fires before it has heard anything, and where it waits for B."""
    asked: dict[str, set[tuple[str, str]]] = {}
    for pair, found in table(transport).items():
        asked.setdefault(found.discipline.name, set()).add(pair)
    told = {("icmp-kills", "blacklist")}
    refired = {("icmp-kills", "linux-reject"), ("random", "cone"), ("blacklist", "random")}
    loud = {("icmp-kills", b) for b in KINDS} - told - refired | {("random", "open")}
    assert (told | HOPELESS, refired, loud) == (asked["TOLD"], asked["REFIRED"], asked["LOUD"])


@pytest.mark.parametrize(
    ("pair", "transport", "order"),
    [
        (("linux", "linux"), "tcp", "A ACK~, B data"),  # midstream
        (("linux-noloose", "linux"), "tcp", "A SYN~, B SYN, A SYN-ACK, B data"),  # simultaneous open
        (("linux", "open"), "udp", "A datagram~, B data"),
        (("open", "linux"), "udp", "B data"),
        (("linux", "random"), "udp", "A datagram~ x1024, B data x256"),
        (("random", "linux"), "udp", "A datagram~ x256, B data x1024"),
        (("random", "cone"), "udp", "A datagram!, B datagram~, A datagram, B data"),
        (("icmp-kills", "blacklist"), "tcp", "B ACK~, A data"),
        (("random", "random"), "udp", "no order"),
    ],
)
def test_the_shortest_order_is_the_known_one(pair: tuple[str, str], transport: str, order: str) -> None:
    """Orders that people have found by thinking: the search must not miss them, nor beat them by cheating."""
    assert order == short(search(*pair, transport))


@pytest.mark.parametrize(
    ("discipline", "order"),
    [
        (Discipline.QUIET, "A SYN~, B SYN~, B RST, B SYN~, A SYN, B SYN-ACK, B data"),
        (Discipline.REFIRED, "A SYN!, B SYN~, A SYN, B SYN-ACK, B data"),
        (Discipline.TOLD, "B SYN~, A SYN, B SYN-ACK, B data"),
    ],
)
def test_the_later_the_initiator_may_speak_the_shorter_the_order(discipline: Discipline, order: str) -> None:
    """A filters SYNs, B begins only with one: A must be the one who connects, once B's hole is there."""
    assert order == short(search("linux-synfilter", "linux-noloose", "tcp", disciplines=(discipline,)))


@pytest.mark.parametrize(
    ("pair", "order"),
    [
        (("linux", "linux"), "A SYN~, B SYN, A SYN-ACK, B data"),
        (("linux-synfilter", "linux"), "A SYN~, B SYN~, B RST, B SYN~, A SYN, B SYN-ACK, B data"),
        (("linux-synfilter", "linux-synfilter"), "no order of up to 6 packets before data"),
    ],
)
def test_without_repair_a_handshake_must_pass_first(pair: tuple[str, str], order: str) -> None:
    """Where both filter SYNs only midstream is left; where A alone does, B's RST can tell A that it is time."""
    assert order == short(search(*pair, "tcp", handshake=True))


def test_an_order_ends_in_data_both_ways_and_a_ladder_shows_it() -> None:
    """What a person reads."""
    found = search("linux", "linux", "tcp")
    assert [step.data for step in found.steps or ()] == [False, True, True, True, True]
    assert [
        "linux x linux, tcp, quiet",
        "                 ACK |----x           |",
        "                     |<---------------| data",
        "                data |--------------->|",
    ] == ladder(found).splitlines()[:4]


def test_parameters_and_layers_are_searched_too() -> None:
    """Any kind that the lab can build."""
    assert short(search("random/linux", "sequential:step=-2,foreign=20", "udp")) == "no order"
    assert search("linux-reject/sequential", "cgn", "tcp").steps is not None
    with pytest.raises(ValueError, match="stand apart"):
        search("same:linux", "same:linux", "tcp")


def test_equal_memories_are_one_state() -> None:
    """A repeated SYN tells a box nothing new, at the latest the second time; without this no search would end."""
    table = Automaton(layers("linux"), 0)
    syn, ack = Word(1, 2, SYN, 1000), Word(1, 2, ACK, 1001, 9001)
    once = table.step(START, Way.FULL, syn)
    assert (syn, 120.0) == (once.passed, once.life_s)
    twice = table.step(once.state, Way.FULL, syn)
    assert twice.state == table.step(twice.state, Way.FULL, syn).state
    assert table.step(twice.state, Way.FULL, ack).passed is None
