"""`lab pair` counts honestly: what connects and carries data both ways is ok, everything else has its code.

It refuses to need punchd: a daemon of a page with plain sockets stands in for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
        assert min(result.times_b_ms) >= 20 + 10 + 40
        assert max(result.times_b_ms) < 20 + 10 + 40 + 30
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
