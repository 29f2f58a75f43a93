"""Prediction: a NAT that counts, simulated with its neighbours, is met as often as is asked for, and with how many
packets. It refuses to model anything else of a NAT."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from punchd.core import predict
from punchd.core.probe import PAIR_GAP_S
from punchd.words.addresses import Endpoint
from punchd.words.nat import Allocation, Dependence, Face, NatClass, Sample
from punchd.words.notification import Spread

ASKED = 0.95
SEEDS = 100
GAP_S, RTT_S = PAIR_GAP_S, 0.2
OLDEST_S = 5.0
FOREIGN = 20.0
FULL, HALF = (1024, 65535), (32768, 49151)


@dataclass(slots=True)
class Nat:
    """Gives each port of its range once in a round, a step apart; neighbours take `rate` a second."""

    dice: random.Random
    step: int
    rate: float
    low: int = FULL[0]
    high: int = FULL[1]
    count: int = field(init=False)
    _next: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.count = self.dice.randrange(self.high - self.low + 1)

    def open(self, at: float) -> int:
        while self.rate and self._next <= at:
            self.count += self._next > 0
            self._next += self.dice.expovariate(self.rate)
        width, step = self.high - self.low + 1, abs(self.step)
        per_round = width // step
        rounds, turn = divmod(self.count % (per_round * step), per_round)
        self.count += 1
        offset = turn * step + rounds
        return self.low + offset if self.step > 0 else self.high - offset

    def samples(self) -> list[Sample]:
        """As a probe takes them: two mappings for the endpoint, a round trip later four pairs of them."""
        times = [0.0, 0.01, *(RTT_S + pair * GAP_S for pair in range(4) for _ in "ab")]
        return [Sample(int(at * 1000), 22000 + turn, self.open(at)) for turn, at in enumerate(times)]


def course(nat: Nat) -> predict.Course:
    found = predict.course(nat.samples(), nat.step)
    assert found is not None
    return found


def one_side(seed: int, step: int, rate: float, bounds: tuple[int, int], parallel: int) -> float:
    """The share of punches that meet: holes here, guesses there. The peer's guesses are of the time of opening."""
    dice = random.Random(seed)
    nat = Nat(dice, step, rate, *bounds)
    known = course(nat)
    at = known.at_ms / 1000 + dice.uniform(0.2, OLDEST_S)
    own, plans = 0, []
    for _ in range(parallel):
        holes, guesses = predict.fan(known, predict.window(known, at_ms=at * 1000, own=own), holes=256, probes=256)
        own += holes
        plans.append((holes, guesses))
    return sum(met(guesses, [nat.open(at) for _ in range(holes)]) for holes, guesses in plans) / parallel


def both_sides(seed: int, step: int, rate: float, bounds: tuple[int, int], parallel: int) -> float:
    """A fan of sockets on each side, all aimed at one guess; B hears of it up to a second later."""
    dice = random.Random(seed)
    nats = Nat(dice, step, rate, *bounds), Nat(dice, step, rate, *bounds)
    known = course(nats[0]), course(nats[1])
    opened = known[0].at_ms / 1000 + dice.uniform(0.2, OLDEST_S - 1.0)
    heard = opened + dice.uniform(0.1, 1.0)
    expected_ms, own = (opened * 1000, (opened + 0.3) * 1000), [0, 0]
    plans = []
    for _ in range(parallel):
        fans = []
        for side in (0, 1):
            where = predict.window(known[side], at_ms=expected_ms[side], own=own[side], slack_ms=300.0 * side)
            fans.append(predict.fan(known[side], where, holes=256, probes=1))
            own[side] += fans[side][0]
        plans.append(fans)
    holes = [[nats[0].open(opened) for _ in range(fans[0][0])] for fans in plans]
    sources = [[nats[1].open(heard) for _ in range(fans[1][0])] for fans in plans]
    hits = [met(a[1], mine) and met(b[1], theirs) for (a, b), mine, theirs in zip(plans, holes, sources, strict=True)]
    return sum(hits) / parallel


def met(guesses: Spread, ports: list[int]) -> bool:
    return bool({guesses.first + turn * guesses.step for turn in range(guesses.count)} & set(ports))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [1, 10])
@pytest.mark.parametrize("rate", [0.0, 5.0, FOREIGN])
@pytest.mark.parametrize("bounds", [FULL, HALF])
@pytest.mark.parametrize("step", [1, 2, 256, -1, -2])
def test_one_counting_nat_is_met(step: int, bounds: tuple[int, int], rate: float, parallel: int) -> None:
    """Samples up to five seconds old, twenty foreign mappings a second, ten punches at once, unknown ends of ranges."""
    share = sum(one_side(seed, step, rate, bounds, parallel) for seed in range(SEEDS)) / SEEDS
    assert share >= ASKED


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [1, 10])
@pytest.mark.parametrize("rate", [0.0, 5.0, FOREIGN])
@pytest.mark.parametrize("step", [1, 2, 256, -1, -2])
def test_two_counting_nats_meet(step: int, rate: float, parallel: int) -> None:
    """Both guesses must hold at once, and B's is of a time that A does not know."""
    share = sum(both_sides(seed, step, rate, FULL, parallel) for seed in range(SEEDS)) / SEEDS
    assert share >= ASKED


def test_a_quiet_nat_is_met_with_a_handful_of_packets() -> None:
    """A hundred holes where four will do would be noise at every home router."""
    known = course(Nat(random.Random(1), 1, 0.0))
    holes, guesses = predict.fan(known, predict.window(known, at_ms=known.at_ms + 500), holes=256, probes=256)
    assert holes + guesses.count <= 8


def test_many_guesses_are_as_far_apart_as_the_holes_are_wide() -> None:
    """Then one of them meets, wherever in the window the first hole is."""
    known = predict.Course(0.0, 40000, 2, foreign=10, past_s=0.5)
    where = predict.Window(3, 100, 50.0, 10.0)
    holes, guesses = predict.fan(known, where, holes=256, probes=256)
    for begin in range(where.first, where.first + where.count):
        assert met(guesses, [known.port_of(begin + hole) for hole in range(holes)])


def test_one_guess_alone_wants_as_many_holes_as_the_window_has_turns() -> None:
    """Where the peer counts too, each further guess would cost it another mapping."""
    known = predict.Course(0.0, 40000, 1, foreign=10, past_s=0.5)
    assert (100, Spread(known.port_of(102))) == predict.fan(
        known, predict.Window(3, 100, 50.0, 10.0), holes=256, probes=1
    )


def test_too_wide_a_window_is_filled_in_its_middle() -> None:
    """There the next mapping most likely is."""
    known = predict.Course(0.0, 20000, 1, foreign=10, past_s=0.5)
    holes, guesses = predict.fan(known, predict.Window(0, 1000, 500.0, 100.0), holes=256, probes=1)
    assert (256, known.port_of(500 - 128 + 255)) == (holes, guesses.first)


def test_ports_wrap_where_the_samples_have_wrapped() -> None:
    """The end of the range is seen only by going beyond it."""
    samples = [Sample(40 * turn, 22000 + turn, port) for turn, port in enumerate((49149, 49150, 49151, 32768, 32769))]
    found = predict.course(samples, 1)
    assert found is not None
    assert (HALF, True, 0, 32770) == ((found.low, found.high), found.wrapped, found.foreign, found.port_of(0))


@pytest.mark.parametrize("step", [1, -1, 2, -2, 256, -256])
def test_every_port_follows_the_last(step: int) -> None:
    """A counter with its bytes swapped advances by 256, and carries one over at the end."""
    nat = Nat(random.Random(3), step, 0.0)
    known = course(nat)
    assert [nat.open(9.0) for _ in range(1000)] == [known.port_of(turn) for turn in range(1000)]


def test_foreign_mappings_are_what_the_gaps_have_more_than_ours() -> None:
    """And their rate is expected to go on."""
    samples = [Sample(at, 22000, port) for at, port in ((0, 30000), (500, 30006), (1000, 30012))]
    found = predict.course(samples, 2)
    assert found is not None
    assert (4, 1.0) == (found.foreign, found.past_s)


def test_older_samples_make_a_wider_window() -> None:
    """What is not known of the rate grows with time."""
    known = predict.Course(0.0, 40000, 1, foreign=4, past_s=0.4)
    windows = [predict.window(known, at_ms=at) for at in (0, 1000, 5000)]
    assert all(earlier.count < later.count and earlier.spread < later.spread for earlier, later in pairwise(windows))
    assert predict.window(known, at_ms=1000, slack_ms=300).count > windows[1].count


def test_a_long_past_is_no_trouble() -> None:
    """A few hundred samples' chances are below what a float can hold; then the bell will do."""
    known = predict.Course(0.0, 40000, 1, foreign=5000, past_s=60.0)
    where = predict.window(known, at_ms=60_000)
    assert 5000 < where.count < 5400


@pytest.mark.parametrize("samples", [(), (Sample(0, 22000, 30000),)])
def test_nothing_is_made_of_too_few_samples(samples: tuple[Sample, ...]) -> None:
    """One port says where a counter stood, not how fast it goes."""
    assert predict.course(samples, 1) is None


def face(ports: list[tuple[int, int]], step: int = 1) -> Face:
    samples = tuple(Sample(at, 22000, port) for at, port in ports)
    nat = NatClass(Dependence.ADDRESS_AND_PORT, Dependence.UNKNOWN, Allocation.SEQUENTIAL, step)
    return Face(22000, Endpoint("203.0.113.2", ports[0][1]), nat, samples)


def test_one_counter_for_both_transports_is_no_busy_nat() -> None:
    """Both are probed at the same time: each would take the other's mappings for its neighbours'."""
    tcp, udp = face([(0, 30000), (20, 30002), (40, 30004)]), face([(10, 30001), (30, 30003), (50, 30005)])
    together = predict.of_face(tcp, udp)
    assert together is not None
    assert (0, 30006) == (together.foreign, together.port_of(0))


def test_two_counters_are_kept_apart() -> None:
    """Ports that go back and forth are of two counters."""
    tcp, udp = face([(0, 30000), (20, 30001), (40, 30002)]), face([(10, 50000), (30, 50001), (50, 50002)])
    alone = predict.of_face(tcp, udp)
    assert alone is not None
    assert (0, 30003) == (alone.foreign, alone.port_of(0))


def test_only_counting_nats_have_a_course() -> None:
    """The others keep their ports, or draw them."""
    kept = Face(22000, Endpoint("203.0.113.2", 22000), NatClass(allocation=Allocation.PRESERVING))
    assert predict.of_face(kept) is None


def test_what_we_open_ourselves_does_not_look_foreign() -> None:
    """Another probe of ours, or a fan, between two samples would make a quiet NAT look busy, and fans wide."""
    samples = [Sample(1000, 1, 40000), Sample(1100, 2, 40005), Sample(1200, 3, 40010)]
    probed = [Sample(1050, 4, 40001), Sample(1150, 5, 40007), Sample(1210, 6, 40012)]
    fan_at = 1120
    line = predict.less_ours(samples, 1, [*samples, *probed], lambda since: 2 if since.at_ms < fan_at else 0)
    assert [40004, 40008, 40010, 40012] == [sample.public_port for sample in line]
    known = predict.course(line, 1)
    assert known is not None
    assert (40012, 5) == (known.port, known.foreign)  # 12 between the first and the last, of which 2 + 3 + 2 are ours


def test_the_order_of_samples_survives_what_is_taken_out() -> None:
    """A fan that was planned and did not leave must not turn the line around."""
    samples = [Sample(1000, 1, 40005), Sample(1100, 2, 40003)]
    assert tuple(samples) == predict.less_ours(samples, -2, [], lambda since: 2100 - since.at_ms)


@pytest.mark.parametrize("age_s", [86_400.0, 1e9])
def test_a_descriptor_from_long_ago_costs_no_more_than_a_fresh_one(age_s: float) -> None:
    """Its age is the peer's word, and the daemon has one thread: thirty years took half an hour."""
    known = predict.course([Sample(1000 + 40 * turn, 22000 + turn, 40000 + turn) for turn in range(10)], 1)
    assert known is not None
    began_s = time.process_time()
    found = predict.window(known, at_ms=known.at_ms + 1000 * age_s)
    assert time.process_time() - began_s < 0.1
    assert found.count >= predict._TURNS_MAX
