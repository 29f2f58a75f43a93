"""`lab pair` counts honestly: what connects and carries data both ways is ok, everything else has its code.

It refuses to need punchd: a daemon of a page with plain sockets stands in for it.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from punchd.lab.pair import Pair
from punchd.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

PLAIN = [sys.executable, str(Path(__file__).with_name("plain_daemon.py"))]


@pytest.mark.parametrize("technique", ["tcp-simopen", "udp"])
def test_working_pair_counts_every_run_and_times_both_sides(technique: str) -> None:
    """B cannot be faster than the side channel, A not faster than the answer."""
    with Lab("linux", "linux", delay_ms=20, echo=None) as lab:
        with Pair(lab, daemon=PLAIN) as pair:
            result = pair.run(technique, runs=3, side_delay_ms=10)
    assert (3, {}, {}) == (result.ok, result.causes_a, result.causes_b)
    assert {technique: 3} == result.winners
    if technique == "tcp-simopen":
        assert 20 + 10 + 40 <= min(result.times_b_ms) < 20 + 10 + 40 + 50  # the other two may meet a busy machine
        assert min(result.times_a_ms) >= 20 + 10 + 60


def test_failing_pair_counts_each_sides_codes() -> None:
    """The acceptance table compares codes, side by side."""
    with Lab("linux-reject", "linux-reject", echo=None) as lab:
        with Pair(lab, daemon=PLAIN) as pair:
            result = pair.run("tcp-simopen", runs=4, parallel=4, timeout_ms=500)
            refused = pair.run("tcp-nutss", runs=2)
    assert 0 == result.ok
    assert {"nothing-heard": 4} == result.causes_a
    assert 4 == result.causes_b.total()
    assert {"no-common-technique": 2} == refused.causes_a
    assert {"no-notification": 2} == refused.causes_b


def test_loss_costs_time_but_no_run_and_udp_repeats_what_is_missing() -> None:
    """A lossy path must not make the lab's own transfer fail."""
    with Lab("linux", "linux", loss=0.1, echo=None) as lab:
        with Pair(lab, daemon=PLAIN) as pair:
            result = pair.run("udp", runs=6, parallel=6)
    assert 6 == result.ok


@pytest.mark.parametrize(("endpoint", "asked"), [("join", 1), ("run", 3)])
def test_descriptors_reach_the_initiator_by_the_side_channel(endpoint: str, asked: int) -> None:
    """Asked for once or anew for each run, both sides' descriptors stand in A's request."""
    with Lab("open", "open", echo=None) as lab:
        with Pair(lab, daemon=PLAIN) as pair:
            result = pair.run("udp", runs=3, endpoint=endpoint)
            requests = _requests(pair, "a")
    assert 3 == result.ok
    initiated = [request for request in requests if request["call"] == "initiate"]
    assert 3 == len(initiated)
    assert {(f"ZTE{lab.b.address}", f"ZTE{lab.a.address}")} == {(one["peer"], one["self"]) for one in initiated}
    endpoints = [request for request in requests if request["call"] == "endpoint"]
    assert [(True, "udp")] * asked == [(one["keep"], one["transport"]) for one in endpoints]
    let_go = {request["attempt"] for request in requests if request["call"] == "cancel"}
    assert ({one["id"] for one in endpoints} if endpoint == "run" else set()) == let_go


def test_endpoint_that_is_not_found_has_its_own_code() -> None:
    """A run that never began must not look like a NAT that blocks."""
    with Lab("linux", "open", echo=None) as lab:
        with Pair(lab) as pair:
            pair.run("udp", runs=1)
            for place in (lab.a, lab.b):
                place.nft("table ip mute { chain out { type filter hook output priority 0; ip daddr 192.0.2.10 "
                          "udp dport 3478 drop; }; }")  # fmt: skip
            result = pair.run("udp", runs=1, endpoint="run")
    said = {"no-answer: Operation not permitted": 1}
    assert (said, said) == (result.causes_a, result.causes_b)


def test_responders_own_message_reaches_the_open_attempt() -> None:
    """The second message is what some pairs of NATs need; without it the initiator here waits in vain."""
    with Lab("open", "open", echo=None) as lab:
        with Pair(lab, daemon=[*PLAIN, "--second"]) as pair:
            result = pair.run("udp", runs=2, timeout_ms=2000)
            notified = [request for request in _requests(pair, "a") if request["call"] == "notify"]
    assert 2 == result.ok
    assert [("a0", "and again"), ("a1", "and again")] == [(one["attempt"], one["notification"]) for one in notified]


def test_side_delay_is_told_only_when_it_is_wanted() -> None:
    """It is the path of the side channel, through the server, and what was added to it."""
    with Lab("open", "open", delay_ms=10, echo=None) as lab:
        with Pair(lab, daemon=PLAIN) as pair:
            pair.run("udp", runs=1)
            pair.run("udp", runs=1, side_delay_ms=5, tell_side_delay=True)
            told = [one.get("side_delay_ms") for one in _requests(pair, "a") if one["call"] == "initiate"]
    assert [None, 15] == told


def test_hopeless_cell_opens_its_other_runs_together() -> None:
    """Each failure costs the whole timeout; twenty of them in a row would make the matrix take a day."""
    with Lab("linux-reject", "linux-reject", echo=None) as lab:
        with Pair(lab, daemon=PLAIN) as pair:
            begun = time.monotonic()
            result = pair.run("tcp-simopen", runs=12, parallel=2, hurry=True, timeout_ms=1000)
            took_s = time.monotonic() - begun
    assert 12 == result.causes_a.total()
    assert took_s < 6 * 1.0  # two at a time they would take six rounds


def test_unprivileged_daemons_hold_no_capability() -> None:
    """`--unprivileged` must mean it, or the tests without privileges prove nothing."""
    with Lab("open", "open", echo=None) as lab:
        for privileges, expected in (("none", 0), ("capable", 1 << 12 | 1 << 13)):
            with Pair(lab, privileges=privileges) as pair:
                assert 1 == pair.run("udp", runs=1).ok
                for daemon in pair.daemons:
                    status = Path(f"/proc/{daemon.pid}/status").read_text(encoding="ascii")
                    assert f"CapEff:\t{expected:016x}" in status
                    assert "Uid:\t65534" in status


def test_dead_daemon_is_named_with_its_last_words() -> None:
    """A crash at start must not look like a NAT that blocks."""
    with Lab("open", "open", echo=None) as lab:
        with pytest.raises(RuntimeError, match="last words:\nno such thing"):
            Pair(lab, daemon=["sh", "-c", "echo no such thing; exit 1"]).__enter__()


@pytest.mark.parametrize(
    ("mute", "codes"),
    [
        ("initiate", ("daemon-hangs", "no-notification")),
        ("respond", ("no-data", "daemon-hangs")),
        ("endpoint", ("endpoint-hangs", "endpoint-hangs")),
    ],
)
def test_a_daemon_that_says_nothing_hangs_no_lab(mute: str, codes: tuple[str, str]) -> None:
    """Each wait has an end, and the peer is told of it: it waited for a notification for ever."""
    with Lab("open", "open", echo=None) as lab:
        with Pair(lab, daemon=[*PLAIN, "--mute", mute]) as pair:
            result = pair.run("udp", runs=1, timeout_ms=500, endpoint="run")
    assert ({codes[0]: 1}, {codes[1]: 1}) == (result.causes_a, result.causes_b)


def test_silent_application_is_named(tmp_path: Path) -> None:
    """With the runs that wait for it, and what its daemon said last: there is nothing else to begin with."""
    (tmp_path / "b.log").write_text("no such luck\n")
    pair = Pair(Mock(), logs=tmp_path)
    with pytest.raises(RuntimeError, match=r"application b \(runs \[3\]\) said nothing for 0.01 s(?s:.*)no such luck"):
        pair._next(queue.Queue(), 0.01, {"b": [3]})


def test_json_is_one_object_on_the_last_line() -> None:
    """The contract for scripts."""
    options = ["--technique", "udp", "--runs", "2", "--json", "--daemon", " ".join(PLAIN)]
    done = subprocess.run(
        [sys.executable, "-m", "punchd.lab", "pair", "linux", "open", *options],
        capture_output=True,
        text=True,
        check=True,
    )
    line = json.loads(done.stdout.splitlines()[-1])
    assert {
        "a": "linux",
        "b": "open",
        "technique": "udp",
        "runs": 2,
        "ok": 2,
        "causes": {},
    }.items() <= line.items()
    assert line["time_a_ms"]["median"] <= line["time_a_ms"]["worst"]
    assert "ip netns add" in done.stderr


def _requests(pair: Pair, role: str) -> list[dict[str, Any]]:
    """What the plain daemon was asked."""
    return [json.loads(line) for line in pair.log(role).read_text().splitlines() if line.startswith("{")]
