"""The issue's table and its times, in the modelled lab: who connects, who fails with which code, and when.
It refuses to excuse anything by a busy machine: times are virtual, hence exact. Kernel and model are compared in
test_model_agrees.py."""

from __future__ import annotations

from typing import Any

import pytest

from punchd.lab.model import Result, World
from punchd.wire.peer import decode_notification, encode_notification
from punchd.words.notification import Notification

SIMOPEN, MIDSTREAM, SYNI, NUTSS, DIRECT, UDP = (
    "tcp-simopen", "tcp-midstream", "tcp-syni", "tcp-nutss", "tcp-direct", "udp",
)  # fmt: skip
AUTO = "auto"
NOTHING, UNACKNOWLEDGED = "nothing-heard", "answer-unacknowledged"

# The kinds of the main job, all of which keep ports; the others are the matrix's matter.
KINDS = ("open", "firewall", "linux", "linux-reject", "linux-synfilter", "linux-liberal", "untracked")

MUST_CONNECT = {
    ("linux", "linux"): (SIMOPEN, MIDSTREAM, UDP, AUTO),
    ("linux-reject", "linux-reject"): (SIMOPEN, MIDSTREAM, UDP, AUTO),
    ("linux-synfilter", "linux-synfilter"): (MIDSTREAM, UDP, AUTO),
    ("untracked", "untracked"): (SIMOPEN, NUTSS, SYNI, MIDSTREAM, UDP, AUTO),
    ("linux-synfilter", "untracked"): (SYNI, MIDSTREAM, UDP, AUTO),
    ("linux-liberal", "linux"): (NUTSS, SIMOPEN, MIDSTREAM, UDP, AUTO),
    **{(bare, kind): (UDP, AUTO) for bare in ("open", "firewall") for kind in KINDS},
    **{(kind, bare): (UDP, AUTO) for bare in ("open", "firewall") for kind in KINDS},
}

MUST_FAIL = {
    ("linux", "linux", SYNI): (NOTHING, UNACKNOWLEDGED),
    ("linux", "linux", NUTSS): (UNACKNOWLEDGED, NOTHING),
    ("linux", "linux", DIRECT): (NOTHING, NOTHING),
    ("linux-reject", "linux-reject", SYNI): (NOTHING, UNACKNOWLEDGED),
    ("linux-reject", "linux-reject", NUTSS): (UNACKNOWLEDGED, NOTHING),
    ("linux-reject", "linux-reject", DIRECT): ("reset-by-peer-side", "reset-by-peer-side"),
    ("linux-synfilter", "linux-synfilter", SIMOPEN): (NOTHING, NOTHING),
    ("linux-synfilter", "linux-synfilter", NUTSS): (NOTHING, NOTHING),
    ("linux-synfilter", "linux-synfilter", SYNI): (NOTHING, UNACKNOWLEDGED),
    ("untracked", "untracked", DIRECT): (NOTHING, NOTHING),
    ("linux-synfilter", "untracked", NUTSS): (NOTHING, NOTHING),
    ("linux-synfilter", "untracked", SIMOPEN): (NOTHING, NOTHING),
    ("linux-liberal", "linux", SYNI): (NOTHING, UNACKNOWLEDGED),
}

S, R = 0.050, 0.100  # side channel one way and path round trip, both as in the issue


def punch(kind_a: str, kind_b: str, technique: str | list[str], **more: Any) -> Result:
    names = None if technique == AUTO else [technique] if isinstance(technique, str) else technique
    transport = "udp" if technique == UDP else "tcp"
    return World(kind_a, kind_b, techniques=names, transport=transport, **more).run()


@pytest.mark.parametrize(
    ("kind_a", "kind_b", "technique"), [(*kinds, name) for kinds, names in MUST_CONNECT.items() for name in names]
)
@pytest.mark.parametrize("net", ["delayed", "at-once", "slow-side", "rough"])
def test_every_cell_of_the_table_connects(kind_a: str, kind_b: str, technique: str, net: str) -> None:
    """Every pair of kinds in which any exchange is possible, whatever the distance, and the stream works."""
    nets: dict[str, dict[str, Any]] = {
        "delayed": {},
        "at-once": {"delay_ms": 0.0, "side_delay_ms": 0.0},
        "slow-side": {"side_delay_ms": 3000.0},
        "rough": {"delay_ms": 100.0, "jitter_ms": 20.0, "reorder": 0.2, "duplicate": 0.2, "wake_ms": 2.0},
    }
    result = punch(kind_a, kind_b, technique, **nets[net])
    assert (True, ()) == (result.ok, result.leaks)
    assert result.a.code == result.b.code
    assert technique in (AUTO, result.a.code)


@pytest.mark.parametrize(("cell", "codes"), MUST_FAIL.items(), ids=lambda it: "-".join(it))
def test_what_cannot_pass_says_why(cell: tuple[str, str, str], codes: tuple[str, str]) -> None:
    """`timeout` alone would be a miss; each side says what it saw."""
    result = punch(*cell)
    assert codes == (result.a.code, result.b.code)
    assert () == result.leaks


@pytest.mark.parametrize("kinds", [("linux", "linux"), ("untracked", "untracked")])
@pytest.mark.parametrize("technique", [SIMOPEN, MIDSTREAM, AUTO, UDP])
def test_both_hear_as_early_as_light_allows(kinds: tuple[str, str], technique: str) -> None:
    """B at s + r, A at s + 3r/2: the least that a proof in both directions takes."""
    result = punch(*kinds, technique)
    assert (S + R, S + 1.5 * R) == (pytest.approx(result.b.at), pytest.approx(result.a.at))


def test_syni_is_as_fast() -> None:
    """Where it passes."""
    result = punch("linux-synfilter", "untracked", SYNI)
    assert (S + R, S + 1.5 * R) == (pytest.approx(result.b.at), pytest.approx(result.a.at))


@pytest.mark.parametrize(
    ("kinds", "technique"), [(("linux-synfilter", "untracked"), SYNI), (("linux", "linux"), MIDSTREAM)]
)
def test_early_gives_the_socket_half_a_round_trip_after_the_notification(
    kinds: tuple[str, str], technique: str
) -> None:
    """For applications that bring their own handshake, such as TLS; the word follows in its time."""
    result = punch(*kinds, technique, early=True)
    assert (S + R / 2, S + 1.5 * R) == (pytest.approx(result.a.early_at), pytest.approx(result.a.at))
    assert result.ok


def test_nutss_pays_for_its_proof() -> None:
    """One round trip more, and 10 ms between the two sequence numbers."""
    result = punch("linux-liberal", "linux", NUTSS)
    assert (S + 2 * R + 0.010, S + 2.5 * R + 0.010) == (pytest.approx(result.b.at), pytest.approx(result.a.at))


def test_auto_loses_one_stagger_where_syns_are_filtered() -> None:
    """At most 300 ms more, says the issue; the second technique starts after 100."""
    result = punch("linux-synfilter", "linux-synfilter", AUTO)
    assert (S + R + 0.1, S + 1.5 * R + 0.1) == (pytest.approx(result.b.at), pytest.approx(result.a.at))


def test_a_list_falls_through_to_its_third() -> None:
    """Progress names each that failed; the turn of each is a second."""
    result = punch("linux", "linux", [SYNI, NUTSS, SIMOPEN])
    assert result.ok
    assert SIMOPEN == result.a.code
    failed = [(line.technique, line.code) for line in result.b.progress if line.stage == "failed"]
    assert [(SYNI, UNACKNOWLEDGED), (NUTSS, NOTHING)] == failed
    failed = [(line.technique, line.code) for line in result.a.progress if line.stage == "failed"]
    assert [(SYNI, NOTHING), (NUTSS, UNACKNOWLEDGED)] == failed
    assert S + R + 2.0 == pytest.approx(result.b.at)


@pytest.mark.parametrize("technique", [SIMOPEN, MIDSTREAM, UDP])
def test_one_lost_packet_costs_no_kernels_retransmission(technique: str) -> None:
    """The kernel would wait a second; a re-fire comes after 150 ms."""
    at = [punch("linux", "linux", technique, seed=seed, loss=0.1).a.at for seed in range(30)]
    assert max(at) < 1.0
    assert {S + 1.5 * R} < {round(time, 6) for time in at}


def test_no_syn_comes_again_while_its_answer_is_under_way() -> None:
    """NAT A calls it INVALID by then. linux-reject's RST ends the connection in NAT B's table if its sequence number,
    0, is within the window that B's COMMIT claims: one of a hundred runs between kernel NATs."""
    silent, answering = (punch(kind, "linux", SIMOPEN, delay_ms=140.0).packets for kind in ("linux", "linux-reject"))
    assert silent == answering


@pytest.mark.parametrize("technique", [SIMOPEN, UDP, DIRECT])
@pytest.mark.parametrize("blind", ["a", "b", "ab"])
def test_no_privilege_still_passes(technique: str, blind: str) -> None:
    """udp, simopen and direct need no capability; direct needs an open side."""
    kinds = ("open", "linux") if technique == DIRECT else ("linux", "linux")
    result = punch(*kinds, technique, blind_a="a" in blind, blind_b="b" in blind)
    assert result.ok


@pytest.mark.parametrize("kinds", [("linux", "linux"), ("untracked", "untracked")])
@pytest.mark.parametrize("technique", [SIMOPEN, MIDSTREAM, UDP, AUTO])
def test_hosts_that_track_their_own_connections_pass(kinds: tuple[str, str], technique: str) -> None:
    """Docker and ufw hosts drop INVALID in and out: the normal case."""
    assert punch(*kinds, technique, hosts_conntrack=True).ok


def test_syni_into_the_kept_socket_passes_a_tracking_host() -> None:
    """Into a listener it would not: the second sequence number is INVALID to the host itself."""
    assert punch("linux-synfilter", "untracked", SYNI, hosts_conntrack=True).ok


def test_a_primer_that_arrives_provokes_what_primers_are_for() -> None:
    """Full TTL at a NAT that answers strays: its RST kills the hole. The model knows why the TTL is low."""
    result = punch("linux-reject", "linux-reject", MIDSTREAM, hole_ttl=6)
    assert not result.ok
    assert punch("linux", "linux", MIDSTREAM, hole_ttl=6).ok


@pytest.mark.parametrize("hole_ttl", [2, 3, 4])
def test_primers_die_on_the_way(hole_ttl: int) -> None:
    """Between the own NAT and the peer's any TTL serves; at 5 the peer's NAT takes it for itself."""
    assert punch("linux-reject", "linux-reject", SIMOPEN, hole_ttl=hole_ttl).ok
    assert not punch("linux-reject", "linux-reject", SIMOPEN, hole_ttl=5).ok


def test_a_notification_that_never_comes_is_told_as_silence() -> None:
    """B never heard of it, so only A has a verdict."""
    result = punch("linux", "linux", SIMOPEN, side_delay_ms=None)
    assert (NOTHING, "silent") == (result.a.code, result.b.code)
    assert 10.0 == result.a.at


def test_a_repeated_notification_sends_nothing() -> None:
    """B remembers nonces."""
    once = punch("linux", "linux", SIMOPEN)
    assert once.packets == punch("linux", "linux", SIMOPEN, side_repeat=3).packets


def test_words_of_every_notification_survive_the_wire() -> None:
    """What A's core says is what B's core gets."""
    carried: list[Notification] = []
    for technique in (SIMOPEN, MIDSTREAM, SYNI, NUTSS, DIRECT, UDP, AUTO):
        world = World(
            "untracked", "untracked", techniques=None if technique == AUTO else [technique],
            transport="udp" if technique == UDP else "tcp", on_notification=carried.append,
        )  # fmt: skip
        world.run()
    assert 7 == len(carried)
    for notification in carried:
        assert notification == decode_notification(encode_notification(notification))


def test_a_run_counts_its_packets() -> None:
    """Two primed sides, a FIRE, an ANSWER and a COMMIT: nobody floods."""
    assert punch("linux", "linux", MIDSTREAM, speaks="").packets <= 6
    assert punch("linux", "linux", SIMOPEN, speaks="").packets <= 7


def test_nothing_to_run_is_refused_at_once() -> None:
    """A test that asks for what a blind side can't do is wrong."""
    with pytest.raises(ValueError, match="tcp-midstream"):
        World("linux", "linux", techniques=[MIDSTREAM], blind_a=True)
