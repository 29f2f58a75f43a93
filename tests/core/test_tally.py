"""What a host knows of its own NAT's counter, and two hosts whose punches meet at appointed ports, ten at once.
It refuses to model anything of a NAT but its counter and its neighbours."""

from __future__ import annotations

import random

import pytest
from test_predict import FOREIGN, GAP_S, RTT_S, Nat, met

from punchd.core import plan, predict
from punchd.core.fan import SPARE
from punchd.core.lanes import MEETS_MAX
from punchd.core.tally import AHEAD_MAX, Tally
from punchd.words.addresses import Endpoint
from punchd.words.nat import Allocation, Dependence, Face, NatClass
from punchd.words.notification import Opening
from punchd.words.plan import View, meeting

SEEDS = 60
ASKED = 0.95


def told(*samples: tuple[float, int]) -> Tally:
    """A tally of these samples, each a mapping of our own."""
    tally = Tally()
    for at, port in samples:
        tally.opened(1, at)
        tally.saw(port, at)
    return tally


def test_nothing_is_known_without_a_sample() -> None:
    """The counter may be anywhere."""
    assert Tally().ahead(40000, 1, 1.0) is None
    assert [] == Tally().line(1)


def test_what_we_opened_since_is_counted() -> None:
    """To the last mapping, where nobody else opens any."""
    tally = told((1.0, 40000), (2.0, 40001))
    tally.opened(10, 2.5)
    least, most = tally.ahead(40050, 1, 2.5) or (0, 0)
    assert least <= 40050 - 40012 <= most
    assert most - least < 10


def test_a_port_that_is_gone_is_known_to_be() -> None:
    """Then nothing needs to be sent."""
    tally = told((1.0, 40000), (2.0, 40001))
    tally.opened(100, 2.5)
    _, most = tally.ahead(40050, 1, 2.5) or (0, 0)
    assert most < 0
    assert (-AHEAD_MAX, -AHEAD_MAX) == told((1.0, 40000), (2.0, 40256)).ahead(40128, 256, 2.0)


def test_a_busy_past_is_no_surety() -> None:
    """Who must come past a port, whatever it costs, counts on nobody's help."""
    tally = told(*((number / 40, 40000 + 4 * number) for number in range(40)))
    least, most = tally.ahead(40500, 1, 3.0) or (0, 0)
    other, surely = tally.ahead(40500, 1, 3.0, surely=True) or (0, 0)
    assert most < surely == 40500 - 40157 + 2
    assert least == other


@pytest.mark.parametrize("shared", [True, False])
def test_the_other_transports_mappings_are_foreign_only_where_one_counter_serves_both(shared: bool) -> None:
    """Eight hops sounded beside each probe would make every quiet NAT look busy."""
    tally, port = Tally(), 40000
    for turn in range(4):
        tally.opened_beside(8, turn - 0.01)
        port += 1 + (8 if shared else 0)
        tally.opened(1, float(turn))
        tally.saw(port, float(turn))
    (_, first), (_, last) = tally.line(1)
    assert 1 == last - first
    tally.opened_beside(8, 4.0)
    assert (0, 8) == (tally.taken(3.0), tally.unsure(3.0))


def test_samples_of_one_moment_are_in_the_order_of_their_ports() -> None:
    """Times are told to the millisecond, and two leave within one."""
    tally = told((1.0, 40000), (2.0004, 40003), (2.001, 40002))
    assert 40003 == tally.line(1)[-1][1]
    falling = told((1.0, 40005), (2.0, 40002), (2.0, 40003))
    assert 40002 == falling.line(-1)[-1][1]


def test_a_sample_that_comes_twice_counts_once() -> None:
    """Two servers may be told of one mapping."""
    tally = told((1.0, 40000), (1.0, 40000), (2.0, 40001))
    assert (1.0, 39999) != tally.line(1)[0]
    assert 2 == len(tally.line(1))


class Host:
    """A host behind a NAT that counts, as its daemon knows it."""

    def __init__(self, nat: Nat) -> None:
        self.nat, self.tally = nat, Tally()

    def probe(self, at: float) -> float:
        """As the endpoint's probe does; when it is over."""
        for turn in (0.0, 0.01, *(RTT_S + pair * GAP_S for pair in range(4) for _ in "ab")):
            self.tally.opened(1, at + turn)
            self.tally.saw(self.nat.open(at + turn), at + turn)
        return at + turn

    def open(self, count: int, at: float) -> list[int]:
        self.tally.opened(count, at)
        return [self.nat.open(at) for _ in range(count)]

    def view(self, aimed: int = 0) -> View:
        samples = self.tally.samples(self.nat.step, 0.0)
        nat = NatClass(Dependence.ADDRESS_AND_PORT, Dependence.UNKNOWN, Allocation.SEQUENTIAL, self.nat.step)
        face = Face(22000, Endpoint("203.0.113.2", samples[-1].public_port), nat, samples)
        return View(nat, face=face, taken=self.tally.taken(self.tally.line(self.nat.step)[-1][0]), aimed=aimed)


def meetings(seed: int, step: int, rate: float, parallel: int) -> float:
    """The share of punches that meet. The peer's probes of the other punches go on, and we hear nothing of them."""
    dice = random.Random(seed)
    a, b = (Host(Nat(dice, step, rate)) for _ in "ab")
    now = max(a.probe(1000.0), b.probe(1000.0)) + dice.uniform(0.2, 1.0)
    described, aimed, hits = b.view(), 0, 0
    planned = []
    for _ in range(parallel):
        now += 0.005
        peer = View(described.nat, face=described.face, aimed=aimed)
        rows = plan.rows(["udp"], listed=False, own=a.view(), peer=peer, times=plan.Times(now * 1000), fans=True)
        fans = [row.lanes for row in rows if row.opening is Opening.PRIMED and row.lanes is not None]
        aimed = meeting(next(row.lanes for row in reversed(rows) if row.lanes is not None))
        planned.append([(lanes, a.open(lanes.own.count, now)) for lanes in fans])
    b.open(12, now + 0.1)
    now += dice.uniform(0.1, 0.6)
    for fans in planned:
        now += 0.005
        hit = False
        for lanes, holes in fans:
            far = b.tally.ahead(lanes.aims.first, step, now)
            assert far is not None
            count = min(far[1] + 1 + SPARE, MEETS_MAX) if far[1] >= 0 and far[0] < MEETS_MAX else 0
            hit |= met(lanes.aims, b.open(count, now)) and met(lanes.seen, holes)
        hits += hit
    return hits / parallel


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [1, 4, 10])
@pytest.mark.parametrize("rate", [0.0, 5.0, FOREIGN])
@pytest.mark.parametrize("step", [1, -1])
def test_two_counting_nats_meet_at_appointed_ports(step: int, rate: float, parallel: int) -> None:
    """With neighbours on both sides, ten punches at once and a dozen mappings of the peer's that we did not know of."""
    share = sum(meetings(seed, step, rate, parallel) for seed in range(SEEDS)) / SEEDS
    assert share >= ASKED


def test_turns_and_ports_are_each_others_inverse() -> None:
    """An appointment is a port on the wire and a number of mappings to whoever keeps it."""
    for step in (1, -1, 2, 256):
        known = predict.Course(0.0, 60000, step, foreign=0, past_s=1.0)
        assert [0, 5, 500] == [predict.turn_of(known, known.port_of(turn), AHEAD_MAX) for turn in (0, 5, 500)]
    assert predict.turn_of(predict.Course(0.0, 60000, 256, 0, 1.0), 60001 - 1024, 2) is None
