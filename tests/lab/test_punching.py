"""The quick subset of the acceptance table: every row of it, by real daemons through the kernel's NATs.

It refuses leniency as lab/accept.py does, whose table and judgement it uses; two runs a cell instead of twenty.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from duo import Duo, duo
from running import NOBODY

from punchd import client
from punchd.lab.accept import Want, judge, table
from punchd.lab.pair import PRIVILEGES, Pair
from punchd.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow]

RUNS = 2

# one network for each row of the issue; the rows `open or firewall` x each of these are drawn by lot
ROWS = [
    ("linux", "linux", False),
    ("linux", "linux", True),
    ("linux-reject", "linux-reject", False),
    ("linux-synfilter", "linux-synfilter", False),
    ("untracked", "untracked", False),
    ("linux-synfilter", "untracked", False),
    ("linux-liberal", "linux", False),
    ("open", "linux-reject", False),
    ("firewall", "linux-synfilter", False),
    ("open", "untracked", False),
]


def _cells(a: str, b: str, hosts_conntrack: bool) -> list[Want]:
    cells = [want for want in table() if want.network == (a, b, 0.0, hosts_conntrack) and not want.side_delay_ms]
    # B's code of a failing nutss depends on how short the gap between SYN and listen was
    return [replace(want, code_b=None) if want.technique == "tcp-nutss" and not want.must else want for want in cells]


@pytest.mark.parametrize(("a", "b", "hosts_conntrack"), ROWS)
def test_row_of_the_table_connects_where_it_must_and_names_its_cause_where_not(
    a: str, b: str, hosts_conntrack: bool
) -> None:
    """What users are promised for their kind of network."""
    cells = _cells(a, b, hosts_conntrack)
    assert cells

    async def all_at_once(both: Duo) -> Any:
        return await asyncio.gather(*(both.cell(want, runs=RUNS) for want in cells))

    with duo(a, b, hosts_conntrack=hosts_conntrack) as both:
        results = asyncio.run(all_at_once(both))
    misses = {want.technique: judge(want, result) for want, result in zip(cells, results, strict=True)}
    assert {} == {technique: missed for technique, missed in misses.items() if missed}


def test_failing_nutss_is_heard_on_one_side_at_least() -> None:
    """The listener's SYN-ACK is INVALID to its own NAT: A hears B, and says so."""
    with duo("linux", "linux") as both:
        a, b = asyncio.run(both.run(["tcp-nutss"], timeout_ms=1500))
    assert "answer-unacknowledged" == a["code"]
    assert b["code"] in ("nothing-heard", "answer-unacknowledged")


def test_side_channel_of_three_seconds_costs_nothing_but_time() -> None:
    """A message that takes its time, by mail as it were; holes must wait for it and no kernel timer must spoil them."""
    names = ["tcp-simopen", "tcp-midstream", "auto"]
    wants = [Want(a="linux-reject", b="linux-reject", technique=name, side_delay_ms=3000) for name in [*names, "udp"]]

    async def all_at_once(both: Duo) -> Any:
        return await asyncio.gather(*(both.cell(want, runs=3) for want in wants))

    with duo("linux-reject", "linux-reject") as both:
        results = asyncio.run(all_at_once(both))
    assert [[]] * 4 == [judge(want, result) for want, result in zip(wants, results, strict=True)]


@pytest.mark.parametrize(
    ("a", "b", "technique"),
    [("linux", "linux", "tcp-midstream"), ("linux-synfilter", "untracked", "tcp-syni")],
)
def test_early_socket_comes_a_proof_sooner_and_works(a: str, b: str, technique: str) -> None:
    """TLS brings its own proof: it need not wait for ours, one path round trip less."""
    with duo(a, b, delay_ms=30) as both:
        early, _ = asyncio.run(both.run([technique], early=True, side_delay_s=0.03))
        proven, _ = asyncio.run(both.run([technique], side_delay_s=0.03))
    assert early["ok"]
    assert proven["ok"]
    took_ms, full_ms = ((said["ready_ns"] - said["t0_ns"]) / 1e6 for said in (early, proven))
    assert 60 <= took_ms < full_ms - 40


def test_long_and_lossy_path_loses_no_attempt() -> None:
    """Every word is repeated until it is answered: 200 ms of round trip and 2 % loss are only time."""
    names = ["tcp-simopen", "tcp-midstream", "auto"]

    async def all_at_once(both: Duo) -> Any:
        runs = [both.run(name if name == "auto" else [name], side_delay_s=0.1) for name in names * 4]
        runs += [both.run(["udp"], transport="udp", side_delay_s=0.1) for _ in range(4)]
        return await asyncio.gather(*runs)

    with duo("linux", "linux", delay_ms=100, loss=0.02) as both:
        results = asyncio.run(all_at_once(both))
    assert [] == [said for sides in results for said in sides if not said["ok"]]


def test_hundred_attempts_share_one_connection() -> None:
    """One application with many peers needs no pool of connections; no id, fd or port is mistaken for another."""
    with duo("linux", "linux") as both:
        results = asyncio.run(_many(both, 100))
    assert [] == [said for sides in results for said in sides if not said["ok"]]
    tuples = {(a["local"].partition(":")[2], a["remote"]) for a, _ in results}
    assert 100 == len(tuples)
    for a, b in results:
        ports = [
            said[key].partition(":")[2] for said, key in ((a, "local"), (b, "remote"), (a, "remote"), (b, "local"))
        ]
        assert ports[0] == ports[1]
        assert ports[2] == ports[3]


async def _many(both: Duo, count: int) -> Any:
    async with client.connect(both.a.path) as near, client.connect(both.b.path) as far:
        return await asyncio.gather(*(both.run("auto", daemons=(near, far)) for _ in range(count)))


def test_crossed_initiates_are_two_attempts() -> None:
    """Two peers that think of each other at the same moment get two connections, not a puzzle."""

    async def crossed(both: Duo) -> Any:
        async with client.connect(both.a.path) as near, client.connect(both.b.path) as far:
            return await asyncio.gather(
                *(both.run("auto", daemons=(near, far), back=back) for back in (False, True) for _ in range(5))
            )

    with duo("linux", "linux") as both:
        results = asyncio.run(crossed(both))
    assert [True] * 20 == [said["ok"] for sides in results for said in sides]
    assert 10 == len({(sides[0]["local"], sides[0]["remote"]) for sides in results})


@pytest.mark.parametrize("privileges", ["capable", "none"])
def test_home_routers_are_punched_without_root(privileges: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root is a convenience: two capabilities do all, and none at all still passes ordinary routers."""
    monkeypatch.setenv("PUNCHD_UID", str(NOBODY))
    command = PRIVILEGES[privileges][0]
    names = ["tcp-simopen", "auto"] + (["tcp-midstream"] if privileges == "capable" else [])
    with duo("linux", "linux", command_a=command, command_b=command) as both:
        with client.connect_blocking(both.a.path) as daemon:
            ping = daemon.ping()
        results = [asyncio.run(both.run(name if name == "auto" else [name])) for name in names]
        results.append(asyncio.run(both.run(["udp"], transport="udp")))
    assert [] == [said for sides in results for said in sides if not said["ok"]]
    lacking = {lack["capability"] for lack in ping["missing"]}
    assert (set() if privileges == "capable" else {"ring", "raw", "repair", "queue", "rules"}) == lacking
    assert all("CAP_NET_RAW" in lack["grant"] for lack in ping["missing"])


def test_open_hosts_connect_directly_without_privileges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is in the way, nothing is needed."""
    monkeypatch.setenv("PUNCHD_UID", str(NOBODY))
    command = PRIVILEGES["none"][0]
    with duo("open", "open", command_a=command, command_b=command) as both:
        results = [asyncio.run(both.run(["tcp-direct"])) for _ in range(3)]
    assert [True] * 6 == [said["ok"] for sides in results for said in sides]


def test_applications_in_processes_of_their_own_agree() -> None:
    """The lab's contract: a run is ok when two programs, apart from the daemons, exchanged 64 KiB each way."""
    with Lab("linux", "linux", echo=None) as lab, Pair(lab) as pair:
        result = pair.run("auto", runs=4, parallel=2)
    assert 4 == result.ok
    assert {"tcp-simopen": 4} == result.winners
