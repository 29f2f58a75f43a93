"""The theory at the head of core/attempt.py: whatever the net, the kernels and the callers do, both sides end well.

It refuses to care which technique wins. Two real cores run in the modelled lab (punchd/lab/model.py); hypothesis
draws the schedules, and each counterexample ever found is kept below as a vector.
"""

from __future__ import annotations

from typing import Any

import pytest
from acts import begun, initiating, responding
from hypothesis import given, settings
from hypothesis import strategies as st

from punchd.core import plan
from punchd.core.attempt import Attempt
from punchd.core.techniques import TECHNIQUES
from punchd.lab.model import World
from punchd.lab.model_kinds import KINDS, Ports
from punchd.lab.model_nat import Nat
from punchd.lab.model_peer import Daemon
from punchd.words.effects import Effect, HandOver, Resend, Tell
from punchd.words.events import DeadlinePassed, Event
from punchd.words.notification import Opening, Spread
from punchd.words.outcomes import Punched
from punchd.words.plan import Lanes, Row

TCP = [name for name, technique in TECHNIQUES.items() if technique.transport == "tcp" and "birthday" not in name]
KIND_NAMES = sorted(KINDS)
EITHER_WAY = {"tcp-direct", "tcp-simopen", "tcp-midstream", "udp"}
PROBES_PER_PAIR_AND_SECOND = 12  # three words at first, then pauses of 150 ms and more
INSISTENT_PROBES = 55  # and per second: every 20 ms, and the signals
TIMED_PROBES = 150  # of a timed one, until it is no more frequent than that: every 3 ms, then 2 % of the time waited
DYING_TTLS = (2, 3, 4, 5)  # a primer that reaches the peer is no primer


class Judge:
    """Watches both cores step by step; `complaints` is empty for a run that keeps all promises."""

    def __init__(self, setting: dict[str, Any]) -> None:
        self.complaints: list[str] = []
        self.probes = 0
        self._setting = setting

    def run(self) -> Judge:
        world = World(**self._setting, on_attempt=self._watch)
        result = world.run()
        for name, daemon, half in (("a", world.a, result.a), ("b", world.b, result.b)):
            if not daemon.done:
                self.complaints.append(f"{name} never ends")
            elif daemon.attempt is not None and half.finals != 1:
                self.complaints.append(f"{name} has {half.finals} final outcomes")
            if len(half.handed) > 1:
                self.complaints.append(f"{name} is handed {len(half.handed)} sockets")
        self.complaints += result.leaks
        a, b = result.a.outcome, result.b.outcome
        if isinstance(a, Punched) and isinstance(b, Punched):
            if not self._is_one_connection(a, b):
                self.complaints.append(f"a has {a}, b has {b}")
            elif not (a.technique.startswith("udp") or result.exchanged or self._is_excused(world)):
                self.complaints.append("both have it, and it carries nothing")
        allowed = 0.0
        for daemon in (world.a, world.b):
            if daemon.attempt is not None:
                lasted_s = daemon.ended_at - daemon.attempt.started
                for pair in daemon.attempt.pairs:
                    primed = pair.offer.opening is Opening.PRIMED and not pair.offer.timed
                    allowed += TIMED_PROBES if pair.offer.timed else 0
                    allowed += (PROBES_PER_PAIR_AND_SECOND if primed else INSISTENT_PROBES) * (lasted_s + 2)
        if self.probes > allowed:
            self.complaints.append(f"{self.probes} probes where {allowed:.0f} are allowed")
        return self

    def _is_one_connection(self, a: Punched, b: Punched) -> bool:
        """By its ports, where NATs keep them; else its data must tell."""
        same_a = a.local.port == b.remote.port or not _keeps_ports(self._setting["kind_a"])
        return same_a and (a.remote.port == b.local.port or not _keeps_ports(self._setting["kind_b"]))

    def _is_excused(self, world: World) -> bool:
        """What is proven may be cut off afterwards, by a NAT that punishes strays which were under way by then."""
        boxes = [box for side in (0, 1) for box in world.net.boxes(side)]
        return self._setting["loss"] >= 0.5 or any(isinstance(box, Nat) and box.punished for box in boxes)

    def _watch(self, daemon: Daemon, attempt: Attempt) -> None:
        before = attempt.deadline

        def judge(event: Event | None, now: float, effects: list[Effect]) -> None:
            nonlocal before
            deadline = attempt.deadline
            if deadline is not None:
                if isinstance(event, DeadlinePassed) and deadline <= now:
                    self.complaints.append(f"{type(attempt).__name__} asks for a deadline in the past")
                elif deadline < now and deadline != before:
                    self.complaints.append(f"{event} sets a deadline in the past")
            before = deadline
            self.probes += sum(isinstance(effect, Tell | Resend) for effect in effects)
            if sum(isinstance(effect, HandOver) for effect in effects) > 1:
                self.complaints.append("two sockets in one step")

        daemon.watcher = judge


def _keeps_ports(kind: str) -> bool:
    return KINDS[kind].tcp.ports is KINDS[kind].udp.ports is Ports.PRESERVED


def delays_ms(highest: float) -> st.SearchStrategy[float]:
    return st.sampled_from([0.0, 0.1, 1.0, 10.0, 50.0]) | st.floats(0, highest)


def shares() -> st.SearchStrategy[float]:
    return st.sampled_from([0.0, 0.0, 0.05, 0.2, 0.5])


def faults() -> st.SearchStrategy[dict[int, str]]:
    codes = st.sampled_from(["port-taken", "host-refused", "out-of-descriptors"])
    return st.dictionaries(st.integers(0, 60), codes, min_size=1, max_size=3)


def schedules(**extra: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Nets, NATs and times at random; a keyword adds to what is drawn or takes its place."""
    drawn: dict[str, st.SearchStrategy[Any]] = {
        "kind_a": st.sampled_from(KIND_NAMES), "kind_b": st.sampled_from(KIND_NAMES),
        "techniques": st.none() | st.lists(st.sampled_from(TCP), min_size=1, max_size=6),
        "seed": st.integers(0, 2**32 - 1), "delay_ms": delays_ms(300), "jitter_ms": delays_ms(400),
        "loss": shares(), "reorder": shares(), "duplicate": shares(), "hole_ttl": st.sampled_from([2, 2, 3, 4, 5, 6]),
        "side_delay_ms": st.none() | delays_ms(5000), "side_repeat": st.integers(1, 2), "wake_ms": delays_ms(300),
        "early": st.booleans(), "timeout_s": st.sampled_from([0.3, 3.0, 10.0]),
        "speaks": st.sampled_from(["", "a", "b", "ab"]), "hosts_conntrack": st.booleans(),
    }  # fmt: skip
    return st.fixed_dictionaries(drawn | extra)


@given(schedules())
def test_both_sides_end_with_the_same_connection(setting: dict[str, Any]) -> None:
    """One outcome each, one connection if any, nothing left behind: the reason for the commit probe."""
    assert [] == Judge(setting).run().complaints


@given(schedules(transport=st.just("udp"), techniques=st.lists(st.just("udp"), min_size=1, max_size=3)))
def test_datagrams_agree_too(setting: dict[str, Any]) -> None:
    """The same conversation, without a kernel that answers by itself."""
    assert [] == Judge(setting).run().complaints


@st.composite
def fans(draw: st.DrawFn, technique: str) -> list[Row]:
    """A few lanes on ports that are named, so that between NATs that keep ports any number of them is hit at once."""
    rows = []
    for turn in range(draw(st.integers(1, 2))):
        many, few = Spread(22100 + 100 * turn, draw(st.integers(1, 70))), Spread(23000 + turn)
        mine, peers = draw(st.permutations([many, few]))
        lanes = Lanes(mine, mine, peers, peers, draw(st.booleans()))
        rows.append(Row(technique, draw(st.sampled_from(Opening)), lanes=lanes))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@given(data=st.data())
def test_fans_agree_on_one_lane(transport: str, data: st.DataObject) -> None:
    """Any number of lanes may be hit, on both sides, in any order: one is answered, and that one is handed over."""
    setting = data.draw(schedules(transport=st.just(transport), techniques=st.none(), hole_ttl=st.just(2)))
    rows = data.draw(fans(f"{transport}-birthday"))
    assert [] == Judge(setting | {"rows": rows}).run().complaints


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@settings(max_examples=12)
@given(data=st.data())
def test_birthdays_agree_through_random_nats(transport: str, data: st.DataObject) -> None:
    """As large as they are in the field: four lanes are hit on average, so the choice among them is not rare."""
    kinds = st.sampled_from([("random", "linux"), ("linux", "random"), ("random", "random"), ("blacklist", "random")])
    kind_a, kind_b = data.draw(kinds)
    setting = data.draw(schedules(transport=st.just(transport), techniques=st.none(), hole_ttl=st.just(2)))
    lanes = data.draw(st.sampled_from([plan.own_random(), plan.peers_random(), plan.own_random(True)]))
    rows = [Row(f"{transport}-birthday", data.draw(st.sampled_from(Opening)), lanes=lanes)]
    setting |= {"kind_a": kind_a, "kind_b": kind_b, "rows": rows, "speaks": "ab"}
    assert [] == Judge(setting).run().complaints


def plans(techniques: list[str]) -> st.SearchStrategy[list[Row]]:
    """Rows that open in any way that their technique knows."""
    ways = [Row(name, way) for name in techniques for way in Opening if way is Opening.PRIMED or name in EITHER_WAY]
    return st.lists(st.sampled_from(ways), min_size=1, max_size=6)


@given(schedules(techniques=st.none(), rows=plans(TCP), calls_back=st.booleans()))
def test_whoever_fires_first_both_sides_agree(setting: dict[str, Any]) -> None:
    """A plan may let the initiator fire, again and again or when it is called; the rule of choice is the same."""
    assert [] == Judge(setting).run().complaints


@given(schedules(transport=st.just("udp"), techniques=st.none(), rows=plans(["udp"]), calls_back=st.booleans()))
def test_datagrams_agree_whoever_fires_first(setting: dict[str, Any]) -> None:
    """As above, without a kernel that answers by itself."""
    assert [] == Judge(setting).run().complaints


def timed(technique: str) -> st.SearchStrategy[list[Row]]:
    """The only row, fired at any time: long before the responder is ready, just in time, long after."""
    return st.builds(lambda after_s: [Row(technique, timed=True, after_s=after_s)], st.just(0.0) | st.floats(0.0, 6.0))


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@given(data=st.data())
def test_a_timed_initiator_comes_first_and_both_sides_agree(transport: str, data: st.DataObject) -> None:
    """It hands over on a COMMIT that no ANSWER has fetched; whatever is lost then, nobody has another connection."""
    rows = timed("udp" if transport == "udp" else "tcp-midstream")
    extra = {"rows": rows, "calls_back": st.booleans(), "faults_b": st.just({}) | faults()}
    setting = data.draw(schedules(transport=st.just(transport), techniques=st.none(), **extra))
    assert [] == Judge(setting).run().complaints


@given(
    schedules(
        techniques=st.none() | st.lists(st.sampled_from(["tcp-simopen", "tcp-direct"]), min_size=1, max_size=5),
        blind_a=st.booleans(), blind_b=st.booleans(), hole_ttl=st.sampled_from(DYING_TTLS),
    )
)  # fmt: skip
def test_blind_sides_agree_as_far_as_primers_die(setting: dict[str, Any]) -> None:
    """Without a ring nobody knows what the own kernel answered: one pair at a time must do."""
    assert [] == Judge(setting).run().complaints


@given(schedules(faults_a=faults(), faults_b=faults(), blind_b=st.booleans()))
def test_whatever_the_host_refuses_is_undone_and_said(setting: dict[str, Any]) -> None:
    """Every effect may fail, by index; the caller still gets one final word, and nothing leaks."""
    assert [] == Judge(setting).run().complaints


@given(schedules(cancel_a_ms=st.none() | delays_ms(6000), cancel_b_ms=st.none() | delays_ms(6000)))
def test_a_cancel_at_any_moment_leaves_nothing_behind(setting: dict[str, Any]) -> None:
    """Callers hang up when they like."""
    assert [] == Judge(setting).run().complaints


@given(schedules())
def test_the_same_seed_is_the_same_run(setting: dict[str, Any]) -> None:
    """A user's journal becomes a test only if nothing in the core depends on anything but its arguments."""
    assert _diary(setting) == _diary(setting)


@pytest.mark.parametrize("name", TCP)
def test_an_attempt_performs_nothing_by_itself(name: str) -> None:
    """Whoever steps it twice with copies gets the same twice: the core holds no descriptor, no clock, no dice."""
    assert begun(initiating(name)) == begun(initiating(name))
    assert begun(responding(name)) == begun(responding(name))


BASE: dict[str, Any] = {"side_delay_ms": 50.0, "loss": 0.0}
VECTORS: dict[str, dict[str, Any]] = {
    "nutss slipped half-way through NAT A, two milliseconds after its primer": {
        "kind_a": "linux", "kind_b": "linux", "techniques": ["tcp-nutss"], "delay_ms": 1.0, "side_delay_ms": 1.0,
    },
    "the same when B's SYN came twice": {
        "kind_a": "linux", "kind_b": "linux", "techniques": ["tcp-nutss"], "delay_ms": 3.0, "side_delay_ms": 2.0,
        "duplicate": 1.0,
    },
    "syni took a challenge for the handshake's ACK": {
        "kind_a": "linux-noloose", "kind_b": "linux-liberal", "seed": 41629321, "delay_ms": 0.0, "loss": 0.2,
        "duplicate": 0.5, "early": True, "hole_ttl": 6, "timeout_s": 1.0,
    },
    "midstream handed over a socket that a late RST had killed": {
        "kind_a": "firewall", "kind_b": "linux-reject", "seed": 162193585, "delay_ms": 1.0,
        "jitter_ms": 161.27574046876896, "loss": 0.02, "duplicate": 0.5, "side_repeat": 2, "wake_ms": 1.0,
        "hole_ttl": 6, "speaks": "a",
    },
    "B's COMMIT could not be sent, and its caller never heard of the connection": {
        "kind_a": "linux", "kind_b": "linux", "techniques": ["tcp-simopen"], "faults_b": {3: "host-refused"},
    },
    "half of 0.3 s was over before the proof: A's strays had NAT B block what was proven then": {
        "kind_a": "blacklist", "kind_b": "blacklist", "wake_ms": 90.0, "timeout_s": 0.3, "speaks": "a",
    },
}  # fmt: skip


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_counterexamples_stay_dead(vector: dict[str, Any]) -> None:
    """Each of these once refuted the theory, or left a caller with nothing."""
    assert [] == Judge(BASE | vector).run().complaints


@pytest.mark.parametrize("technique", [*TCP, "udp", None])
@pytest.mark.parametrize("loss", [0.02, 0.1])
def test_loss_costs_time_but_no_connection(technique: str | None, loss: float) -> None:
    """At 2 % midstream's initiator once ended empty-handed in every sixtieth run: its lost COMMIT was not repeated."""
    for seed in range(12):
        result = World(
            "untracked" if technique != "tcp-direct" else "open", "untracked", seed=seed, delay_ms=100.0, loss=loss,
            techniques=None if technique is None else [technique], transport="udp" if technique == "udp" else "tcp",
            speaks="" if technique != "udp" else "b",
        ).run()  # fmt: skip
        assert (technique or result.a.code, technique or result.b.code) == (result.a.code, result.b.code)
        assert result.a.ok


@pytest.mark.parametrize("technique", ["tcp-midstream", "udp"])
@pytest.mark.parametrize("loss", [0.02, 0.1, 0.4])
def test_a_lost_answer_costs_time_but_no_connection(technique: str, loss: float) -> None:
    """A timed initiator has handed over when it is lost: it repeats it, or its application's data tells."""
    for seed in range(12):
        result = World(
            "untracked", "untracked", seed=seed, delay_ms=100.0, loss=loss, rows=[Row(technique, timed=True)],
            transport="udp" if technique == "udp" else "tcp", speaks="" if technique != "udp" else "a",
        ).run()  # fmt: skip
        assert (technique, technique) == (result.a.code, result.b.code)


def _diary(setting: dict[str, Any]) -> list[tuple[str, float, Event | None, list[Effect]]]:
    diary: list[tuple[str, float, Event | None, list[Effect]]] = []

    def watch(daemon: Daemon, attempt: Attempt) -> None:
        name = type(attempt).__name__
        daemon.watcher = lambda event, now, effects: diary.append((name, now, event, effects))

    World(**setting, on_attempt=watch).run()
    return diary
