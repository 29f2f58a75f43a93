"""The plan: which techniques, in which order, and what is missing for the others.
It refuses to run any."""

from __future__ import annotations

import random
from typing import Any

import pytest
from msgspec.structs import replace

from punchd.core import nicknames, plan
from punchd.core.draw import draw, meet
from punchd.core.plan import Times
from punchd.core.ports import Ports
from punchd.core.techniques import TECHNIQUES
from punchd.words.addresses import LISTEN_PORTS, Endpoint
from punchd.words.nat import Allocation, Dependence, Face, NatClass, Sample
from punchd.words.notification import OFFERS_MAX, Fan, Opening, Spread
from punchd.words.plan import Lanes, Row, View, meeting

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
    candidate = draw(Row("tcp-birthday", lanes=plan.own_random()), Ports(random.Random(1)))
    fan = candidate.offer.fan
    assert fan is not None
    assert (Spread(0, 1024), 1) == (fan.targets, fan.sources.count)
    assert fan.sources.first == candidate.offer.responder_port == candidate.aim_port > 0
    assert (Spread(0, 256), fan.sources) == (candidate.own, candidate.aims)


def test_ports_that_a_fan_names_stay() -> None:
    """Prediction: the plan knows best."""
    lanes = Lanes(Spread(22100, 64), Spread(40000, 64, 2), Spread(23000), Spread(50000, 3))
    candidate = draw(Row("udp-birthday", lanes=lanes), Ports(random.Random(1)))
    assert Fan(lanes.seen, lanes.peers) == candidate.offer.fan
    assert (lanes.own, lanes.aims) == (candidate.own, candidate.aims)
    met = meet(candidate.offer, Ports(random.Random(2)))
    assert (lanes.peers, lanes.seen) == (met.own, met.aims)


def test_an_offer_of_a_listening_technique_has_a_listening_port() -> None:
    """The ranges are apart, see core/ports.py."""
    ports = Ports(random.Random(1))
    for name, technique in TECHNIQUES.items():
        offer = draw(Row(name), ports).offer
        assert name == offer.technique
        assert technique.listens == (offer.initiator_port in LISTEN_PORTS)
        assert offer.syn is None


# -- from both classes -------------------------------------------------------------------------------------------------

UNKNOWN = View()
TCP, UDP = list(plan.AUTO["tcp"]), list(plan.AUTO["udp"])
PRIMED, CROSSED, REFIRED, CALLED = Opening
HARMLESS = Times(now_ms=1_000_000.0)


def known(nickname: str) -> View:
    return View(nicknames.parse(nickname))


def auto(own: View, peer: View, transport: str = "tcp", **more: Any) -> list[Row]:
    return plan.rows(list(plan.AUTO[transport]), listed=False, own=own, peer=peer, **{"times": HARMLESS} | more)


def ways(planned: list[Row]) -> list[tuple[str, Opening]]:
    return [(row.technique, row.opening) for row in planned]


def counting(step: int = 1, *, last: int = 40_000, at_ms: int = 1_000_000) -> View:
    nat = NatClass(Dependence.ADDRESS_AND_PORT, Dependence.UNKNOWN, Allocation.SEQUENTIAL, step)
    samples = tuple(Sample(at_ms - 40 * (9 - turn), 22000 + turn, last - (9 - turn) * step) for turn in range(10))
    return View(nat, face=Face(22000, Endpoint("203.0.113.2", last), nat, samples))


def test_where_nothing_is_known_all_that_is_harmless_comes_first() -> None:
    """A stray at a NAT that blocks its sender would end what the primed rows might still have won."""
    openings = [row.opening for row in auto(UNKNOWN, UNKNOWN)]
    assert [PRIMED] * 4 + [REFIRED, REFIRED, CROSSED, PRIMED] == openings
    assert "tcp-direct" == auto(UNKNOWN, UNKNOWN)[-1].technique
    assert [PRIMED, REFIRED, CROSSED] == [row.opening for row in auto(UNKNOWN, UNKNOWN, "udp")]


def test_what_may_pass_at_once_comes_before_what_is_sure_but_must_be_waited_for() -> None:
    """To try it costs a tenth of a second; to be called, the way back of the side channel."""
    silent = View(NatClass(drops_strays=True, forgives=True))
    assert [PRIMED, CROSSED, REFIRED] == [row.opening for row in auto(UNKNOWN, silent, "udp")]
    mortal = View(NatClass(outlives_icmp=False))
    assert CROSSED is auto(mortal, silent, "udp")[0].opening


def test_nothing_full_range_leaves_unasked_before_half_of_the_patience_is_over() -> None:
    """Whoever carries no second message has the rest for it."""
    for own in nicknames.NICKNAMES:
        for row in auto(known(own), UNKNOWN):
            assert (0.0 if row.opening is PRIMED else 5.0) == row.after_s


def test_a_known_side_delay_says_when_the_peer_is_ready() -> None:
    """Then nobody has to wait for half of the patience."""
    rows = auto(UNKNOWN, UNKNOWN, times=Times(side_s=0.2))
    assert {0.0, 0.2 + plan.LATE_AFTER_S} == {row.after_s for row in rows}
    assert 5.0 == Times(side_s=50.0).late_s


@pytest.mark.parametrize("name", ["tcp-midstream", "udp"])
def test_the_only_row_is_timed_where_the_delay_is_told_and_strays_harm_nobody(name: str) -> None:
    """What comes before the peer's hole is a stray; what comes just after it is A's proof half a round trip later."""

    def planned(peer: str, *names: str, side_s: float | None = 0.5) -> list[Row]:
        times = Times(side_s=side_s)
        return plan.rows([name, *names], listed=True, own=known("linux"), peer=known(peer), times=times)

    (row,) = planned("linux")
    assert (row.timed, row.opening, 0.5 - plan.EARLY_S) == (True, PRIMED, pytest.approx(row.after_s))
    assert 0.0 == planned("linux", side_s=0.05)[0].after_s
    others = [planned("linux", side_s=None), planned("linux", name), planned("unknown")]
    others += [planned(peer) for peer in ("blacklist", "linux-reject", "open")]
    assert not any(row.timed or row.after_s for rows in others for row in rows)


def test_what_signals_with_a_syn_is_not_timed() -> None:
    """Two SYNs that meet leave it open who answered whom."""
    for name in set(TECHNIQUES) - {"tcp-midstream", "udp"}:
        rows = plan.rows([name], listed=True, own=known("linux"), peer=known("linux"), times=Times(side_s=0.5))
        assert not any(row.timed for row in rows)


def test_auto_is_timed_where_one_row_is_all_there_is() -> None:
    """Mapped on both sides there is but one 4-tuple; with others to choose from, the responder must hear an answer."""
    mapped = View(nicknames.parse("linux"), own_port=22000, public_port=22000)
    times = Times(side_s=0.5)
    assert [True] == [row.timed for row in auto(mapped, mapped, "udp", times=times)]
    assert not any(row.timed for row in auto(known("linux"), known("linux"), "udp", times=times))


def test_a_timed_row_that_gets_company_is_timed_no_more() -> None:
    """Of several pairs the responder chooses, upon an answer."""
    times = Times(side_s=0.5)
    (row,) = alone = plan.rows(["udp"], listed=True, own=known("linux"), peer=known("linux"), times=times)
    assert row.timed
    assert alone == plan.merged(alone, [])
    together = plan.merged(alone, [[replace(row, remote="198.51.100.9")]])
    assert [(False, 0.0)] * 2 == [(row.timed, row.after_s) for row in together]


def test_a_mapping_that_dies_of_icmp_is_never_primed() -> None:
    """The primer's time exceeded would end it, in the middle of a handshake at worst."""
    for transport in ("tcp", "udp"):
        rows = auto(known("icmp-kills"), known("linux"), transport)
        assert rows[0].opening is not PRIMED
        assert not {("tcp-simopen", PRIMED), ("tcp-midstream", PRIMED), ("udp", PRIMED)} & set(ways(rows))
        assert 0.0 == rows[0].after_s


def test_where_mappings_die_of_icmp_all_primers_come_last() -> None:
    """What `endpoint` measures of a NAT; each row that can't pass would cost a try."""
    for transport in ("tcp", "udp"):
        rows = auto(View(NatClass(outlives_icmp=False)), UNKNOWN, transport)
        assert Opening.REFIRED is rows[0].opening
        primed = [row.opening is PRIMED for row in rows if row.technique != "tcp-direct"]
        assert sorted(primed) == primed


def test_a_nat_that_blocks_strays_is_fired_at_on_call_alone() -> None:
    """One packet too early, and 30 s are lost."""
    rows = auto(known("icmp-kills"), known("blacklist"))
    assert {PRIMED, CALLED} == {row.opening for row in rows}
    assert ("tcp-simopen", CALLED) == ways(rows)[0]


def test_a_syn_filter_is_met_without_syns() -> None:
    """midstream passes it at either side; but a NAT that wants a SYN first needs ours, when it is ready."""
    assert ("tcp-midstream", PRIMED) == ways(auto(known("linux-synfilter"), known("linux")))[0]
    assert ("tcp-simopen", REFIRED) == ways(auto(known("linux-synfilter"), known("linux-noloose")))[0]
    assert ("tcp-simopen", PRIMED) == ways(auto(known("linux-noloose"), known("linux-synfilter")))[0]


def test_what_a_class_rules_out_is_still_tried_last() -> None:
    """It was measured at another time, perhaps on another network."""
    rows = auto(known("linux-synfilter"), known("linux"))
    assert ("tcp-simopen", PRIMED) == ways(rows)[-1]
    assert "our NAT lets no SYN in" == rows[-1].reason


@pytest.mark.parametrize("own", nicknames.NICKNAMES)
@pytest.mark.parametrize("peer", nicknames.NICKNAMES)
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("fans", [False, True])
def test_every_plan_fits_a_notification_and_gives_its_reasons(own: str, peer: str, transport: str, fans: bool) -> None:
    """And there is always something to try."""
    rows = auto(known(own), known(peer), transport, fans=fans)
    assert 1 <= len(rows) <= OFFERS_MAX
    assert all(row.reason for row in rows)


def test_the_callers_list_is_left_alone() -> None:
    """Who names techniques wants them, in this order, at once."""
    rows = plan.rows(["tcp-direct", "tcp-midstream"], listed=True, own=known("icmp-kills"), tried=3)
    assert [("tcp-direct", PRIMED), ("tcp-direct", REFIRED), ("tcp-midstream", PRIMED)] == ways(rows)
    assert {0.0} == {row.after_s for row in rows}


def test_a_listed_fan_serves_either_nat() -> None:
    """Unless a class says which of the two it is."""
    rows = plan.rows(["udp-birthday"], listed=True)
    assert [plan.own_random(), plan.peers_random()] == [row.lanes for row in rows]
    assert 4 == len(plan.rows(["tcp-birthday"], listed=True))
    rows = plan.rows(["udp-birthday"], listed=True, own=known("random"), peer=known("linux"), times=HARMLESS)
    assert {plan.own_random()} == {row.lanes for row in rows}
    rows = plan.rows(["udp-birthday"], listed=True, own=counting(), times=HARMLESS)
    assert [2] == [row.lanes.own.count for row in rows if row.lanes and row.opening is PRIMED]


def test_a_mapping_that_is_known_is_aimed_at() -> None:
    """A NAT that keeps no ports but one mapping for all destinations."""
    mapped = View(NatClass(Dependence.INDEPENDENT), own_port=22000, public_port=40000)
    rows = auto(mapped, UNKNOWN)
    assert {(22000, 40000, 0, 0)} == {(row.own_port, row.seen_port, row.peer_port, row.aim_port) for row in rows}
    assert 8 == len(rows)
    rows = auto(UNKNOWN, mapped)
    assert {(0, 0, 22000, 40000)} == {(row.own_port, row.seen_port, row.peer_port, row.aim_port) for row in rows}


def test_two_known_mappings_are_one_4_tuple() -> None:
    """Two sockets can't have it; the next try takes the next technique."""
    mapped = View(NatClass(Dependence.INDEPENDENT), own_port=22000, public_port=40000)
    assert [("tcp-simopen", PRIMED)] == ways(auto(mapped, mapped))
    assert [("tcp-simopen", REFIRED)] == ways(auto(mapped, mapped, tried=1))


def test_guesses_follow_the_order_in_which_the_holes_are_opened() -> None:
    """A listener opens none until it is spoken to, and the late rows open theirs after all others."""
    rows = auto(counting(2), UNKNOWN)
    seen = {way: row.seen_port for way, row in zip(ways(rows), rows, strict=True)}
    primed = ["tcp-simopen", "tcp-midstream", "tcp-syni", "tcp-nutss"]
    assert [40002, 40004, 40006, 40008] == [seen[name, PRIMED] for name in primed]
    assert [40010, 40012, 40014] == [row.seen_port for row in rows if row.opening is not PRIMED]
    assert {0} == {row.aim_port for row in rows}


def test_a_peer_that_counts_opens_one_hole_after_the_other() -> None:
    """In the order of the offers, whatever they are."""
    assert [40000 - 1 - turn for turn in range(8)] == [row.aim_port for row in auto(UNKNOWN, counting(-1))]


def test_what_other_attempts_took_is_passed_over() -> None:
    """Ten punches at once through one NAT that counts."""
    rows = auto(replace(counting(), taken=30), UNKNOWN)
    assert 40031 == rows[0].seen_port


def test_a_counting_nat_gets_a_fan_first() -> None:
    """Where a single guess may miss, neighbours don't; with an ACK, and with a SYN for those who want one."""
    rows = auto(counting(), UNKNOWN, fans=True)
    assert [("tcp-birthday", PRIMED)] * 2 + [("tcp-birthday", Opening.CALLED)] * 2 == ways(rows)[:4]
    first, second = rows[0].lanes, rows[1].lanes
    assert first is not None
    assert second is not None
    assert (False, True) == (first.handshake, second.handshake)
    assert (Spread(0), Spread(0)) == (first.peers, first.aims)
    assert first.own.count == second.own.count
    assert second.seen.first == first.seen.first + first.own.count
    assert 40001 + first.own.count + second.own.count == rows[4].seen_port


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("own", ["unknown", "blacklist", "icmp-kills", "linux", "linux-reject", "open"])
def test_a_counting_peer_fires_at_nobody(own: str, transport: str) -> None:
    """From a port at which we do not aim it would be a stray to our NAT, which may block the peer for it. Where that
    forgives, a miss is a miss all the same: only the peer's daemon knows what others have opened there since."""
    busy = counting(last=50_000)
    rows = auto(known(own), busy, transport, fans=True, times=Times(1_004_000.0))
    fans = [row for row in rows if row.lanes is not None]
    assert fans
    for row in fans:
        assert row.lanes is not None
        assert (1, row.lanes.aims.first) == (row.lanes.aims.count, meeting(row.lanes))
    first, second = (row.opening for row in fans)
    assert first is REFIRED
    assert second is (CALLED if transport == "udp" else first)
    punishes = replace(busy, nat=replace(busy.nat, forgives=False))
    again = auto(known(own), punishes, transport, fans=True)
    assert {Opening.CALLED} == {row.opening for row in again if row.lanes is not None}


@pytest.mark.parametrize("counts", ["own", "peers", "both"])
def test_no_fan_with_a_counting_nat_is_the_only_one(counts: str) -> None:
    """A neighbour may take the very port that was predicted or named: over UDP no row with SYNs stands behind it."""
    lasting = NatClass(outlives_icmp=True)
    mine, theirs = (counting(last=50_000) if counts in (side, "both") else View(lasting) for side in ("own", "peers"))
    mine = replace(mine, nat=replace(mine.nat, outlives_icmp=True))
    rows = [row for row in auto(mine, theirs, "udp", fans=True, times=Times(1_001_000.0)) if row.lanes]
    assert CALLED is rows[-1].opening
    assert len(rows) > 1


def test_two_counting_nats_get_fans_that_aim_at_one_guess_each() -> None:
    """Each further guess would be another mapping of the guesser's."""
    rows = auto(counting(), counting(last=50_000), "udp", fans=True, times=Times(1_001_000.0))
    lanes, second = (row.lanes for row in rows[:2])
    assert lanes is not None
    assert second is not None
    assert second.seen.first == lanes.seen.first + lanes.own.count  # and another chance behind it
    assert [Opening.PRIMED, Opening.PRIMED, Opening.CALLED] == [row.opening for row in rows]
    assert (1, 1) == (lanes.seen.count, lanes.aims.count)
    assert lanes.own.count > 1
    assert lanes.peers.count > 1


def test_two_counting_nats_meet_again_where_the_peer_will_name_the_port() -> None:
    """Whatever ICMP does there: it is the second try. It moves no other attempt's appointment."""
    own = counting()
    lasting = replace(own, nat=replace(own.nat, outlives_icmp=True))
    rows = auto(lasting, counting(last=50_000), "udp", fans=True, times=Times(1_001_000.0))
    assert [PRIMED, PRIMED, CALLED] == [row.opening for row in rows[:3]]
    first, second, called = (row.lanes for row in rows[:3])
    assert first is not None
    assert second is not None
    assert called is not None
    assert second.aims == called.aims
    assert second.aims.first - first.aims.first > plan.NEXT
    assert called.seen.first - second.seen.first > plan.MEET_LATER  # others of ours come in between


@pytest.mark.parametrize(
    ("own", "peer", "opening", "lanes"),
    [
        ("random", "blacklist", PRIMED, (256, 1024, 1, 1)),
        ("random", "linux", PRIMED, (256, 1024, 1, 1)),
        ("linux", "random", CALLED, (1, 1, 256, 1024)),
        ("blacklist", "random", CALLED, (1, 1, 256, 1024)),
        ("unknown", "random", CALLED, (1, 1, 256, 1024)),
        ("icmp-kills", "random", CALLED, (1, 1, 256, 1024)),
        ("random", "random", CALLED, (256, 1, 256, 1)),
        ("random", "sequential", CALLED, (256, 1, 256, 1)),
        ("sequential", "random", CALLED, (256, 1, 256, 1)),
    ],
)
def test_a_nat_that_draws_is_met_by_chance(
    own: str, peer: str, opening: Opening, lanes: tuple[int, int, int, int]
) -> None:
    """Holes on its side, probes from the other one, which begins once it has been called."""
    first = auto(known(own), known(peer), fans=True)[0]
    assert first.lanes is not None
    assert opening is first.opening
    assert lanes == tuple(one.count for one in (first.lanes.own, first.lanes.seen, first.lanes.peers, first.lanes.aims))


def test_a_fan_wants_syns_where_a_nat_does() -> None:
    """And spares the packets of the other kind."""
    shakes = {row.lanes.handshake for row in auto(known("random"), known("linux-noloose"), fans=True) if row.lanes}
    assert {True} == shakes
    shakes = {row.lanes.handshake for row in auto(known("random"), known("linux"), fans=True) if row.lanes}
    assert {False} == shakes


def test_whoever_lets_strangers_in_needs_no_chance() -> None:
    """Ordinary rows follow, since the ports that they miss do not matter there."""
    assert "tcp-direct" in [row.technique for row in auto(known("random"), known("open"), fans=True)]
    assert {"tcp-birthday"} == {row.technique for row in auto(known("random"), known("linux"), fans=True)}


def test_a_retry_changes_the_strategy() -> None:
    """Nearly all success is of the first try: the same again is the worst second try."""
    first, second, third = (auto(UNKNOWN, UNKNOWN, tried=tried) for tried in range(3))
    assert [REFIRED, REFIRED, PRIMED] == [row.opening for row in second][:3]
    assert ["tcp-midstream", "tcp-syni"] == [rows[2].technique for rows in (second, third)]
    assert [CROSSED, PRIMED] == [row.opening for row in second[-2:]]
    assert sorted(map(repr, first)) == sorted(map(repr, second)) == sorted(map(repr, third))


def test_a_retry_by_chance_changes_sides() -> None:
    """Where nobody carried the call, the peer's packets may do, strays or not."""
    assert [CALLED, PRIMED] == [auto(UNKNOWN, known("random"), fans=True, tried=tried)[0].opening for tried in range(2)]


def test_no_technique_no_plan() -> None:
    """Admission says which capability is missing."""
    assert [] == plan.rows([], listed=False)


def test_fans_need_a_technique_that_can() -> None:
    """A build or a host without it plans without it."""
    assert not plan.fans("tcp", frozenset())


def test_mappings_are_counted_where_they_are_made() -> None:
    """The next attempt's prediction passes over them."""
    assert (4, 1) == plan.mappings(auto(UNKNOWN, UNKNOWN))
    fan = Row("udp-birthday", lanes=Lanes(Spread(0, 8), Spread(40000, 4, 8), Spread(0), Spread(0)))
    assert (8, 4) == plan.mappings([fan])
    assert (0, 1) == plan.mappings([])


def test_ways_share_one_plan_harmless_rows_first() -> None:
    """What fires where no hole may be waits until every way has had its harmless try."""
    main = plan.rows(plan.AUTO["tcp"], listed=False)
    other = [replace(row, remote="192.0.2.77") for row in main]
    within = [Row("tcp-midstream", remote="10.0.1.3", public="10.0.1.2")]
    merged = plan.merged(main, [other], within=within)
    assert OFFERS_MAX == len(merged)
    assert set(main) <= set(merged)
    assert within == merged[:1]
    assert ["", "192.0.2.77"] == [row.remote for row in merged[1:9:4]]
    assert {Opening.PRIMED} == {row.opening for row in merged[:9]}
    assert [*within, *main] == plan.merged(main, [], within=within)


def test_a_list_goes_by_technique_before_it_goes_by_way() -> None:
    """The caller's order is one of techniques."""
    main = [Row("tcp-midstream"), Row("tcp-simopen")]
    other = [replace(row, remote="192.0.2.77") for row in main]
    merged = plan.merged(main, [other], order=("tcp-midstream", "tcp-simopen"))
    assert [main[0], other[0], main[1], other[1]] == merged


def test_many_ways_never_make_more_offers_than_fit() -> None:
    """The main way's are all there; the others have what is left, by turns."""
    main = [Row("tcp-simopen")] * 10
    others = [[Row("tcp-simopen", remote=name)] * 8 for name in ("192.0.2.1", "192.0.2.2")]
    merged = plan.merged(main, others)
    assert OFFERS_MAX == len(merged)
    assert [10, 3, 3] == [[row.remote for row in merged].count(name) for name in ("", "192.0.2.1", "192.0.2.2")]
