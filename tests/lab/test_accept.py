"""The acceptance table judges strictly: what it lets pass is what the issue asks for.

It refuses to start a lab: results are made by hand.
"""

from __future__ import annotations

from typing import Any

from punchd.lab.accept import Want, judge, measured, table
from punchd.lab.pair import Result


def _result(*, ok: int = 0, code_a: str = "", code_b: str = "", times_ms: float = 1, **more: Any) -> Result:
    result = Result(
        a="linux", b="linux", technique="tcp-syni", runs=2, delay_ms=0, loss=0, side_delay_ms=0, early=False
    )
    for number in range(2):
        good = number < ok
        side = {"ok": good, "failed": more.get("failed", []), "technique": more.get("winner", "tcp-syni")}
        ready = {"t0_ns": 0, "ready_ns": round(times_ms * 1e6)}
        result.add(side | ready | {"code": code_a}, side | ready | {"code": code_b})
    return result


def _want(**more: Any) -> Want:
    return Want(a="linux", b="linux", technique="tcp-syni", **more)


def test_one_failed_run_of_a_must_cell_is_a_miss() -> None:
    """20 of 20 means 20."""
    assert [] == judge(_want(), _result(ok=2))
    assert judge(_want(), _result(ok=1, code_a="nothing-heard", code_b="nothing-heard"))


def test_failure_is_explained_only_by_the_named_codes_on_both_sides() -> None:
    """The verdict is part of the product; `timeout` alone says nothing."""
    named = _want(must=False, code_a="nothing-heard", code_b="answer-unacknowledged")
    assert [] == judge(named, _result(code_a="nothing-heard", code_b="answer-unacknowledged"))
    assert ["B says nothing-heard"] == judge(named, _result(code_a="nothing-heard", code_b="nothing-heard"))
    assert [] == judge(_want(must=False), _result(code_a="nothing-heard", code_b="reset-by-peer-side"))
    assert ["A says time-up"] == judge(_want(must=False), _result(code_a="time-up", code_b="nothing-heard"))


def test_cell_that_may_fail_may_also_connect() -> None:
    """A technique that works better than expected is no miss."""
    assert [] == judge(_want(must=False, code_a="nothing-heard", code_b="nothing-heard"), _result(ok=2))


def test_times_hold_in_the_worst_run() -> None:
    """A median hides the kernel's retransmission in every second run."""
    want = _want(time_a_ms=210, time_b_ms=160)
    assert [] == judge(want, _result(ok=2, times_ms=159.9))
    assert ["B late 2 of 2"] == judge(want, _result(ok=2, times_ms=160.1))
    assert "2 of 2, B 160.1 (160.1) ms, A 160.1 (160.1) ms" == measured(want, _result(ok=2, times_ms=160.1))


def test_list_is_won_by_its_last_and_names_the_others_each_time() -> None:
    """Falling through silently would leave users guessing."""
    want = _want(winner="tcp-simopen", named=("tcp-syni",))
    failed = [["tcp-syni", "nothing-heard"]]
    assert [] == judge(want, _result(ok=2, winner="tcp-simopen", failed=failed))
    assert 1 == len(judge(want, _result(ok=2, winner="tcp-syni", failed=failed)))
    assert 1 == len(judge(want, _result(ok=2, winner="tcp-simopen")))


def test_table_holds_every_row_of_the_issue() -> None:
    """A forgotten row would pass for ever."""
    wants = list(table())
    must = {(want.a, want.b, want.technique) for want in wants if want.must}
    assert ("linux-synfilter", "untracked", "tcp-syni") in must
    assert {("open", kind, "auto") for kind in ("linux", "untracked", "firewall")} <= must
    assert 5 == sum(want.time_a_ms is not None and not want.early for want in wants)
    assert len(wants) == len(set(wants))
