"""Cells made by hand, for the tests of what is done with them.

It refuses to be measured: no lab ever saw these.
"""

from __future__ import annotations

from typing import Any

from punchd.lab.cells import Cell, Spread


def cell(a: str = "linux", b: str = "linux", *, ok: int = 20, **more: Any) -> Cell:
    """20 of 20 for TCP auto at 0 ms, unless told otherwise."""
    times = Spread(median=1.5, worst=2.5) if ok else Spread(median=None, worst=None)
    known: dict[str, Any] = {
        "a": a, "b": b, "ok": ok, "first_try": ok, "transport": "tcp", "technique": "auto", "delay_ms": 0.0,
        "loss": 0.0, "hosts_conntrack": False, "foreign": 20, "endpoint": "run", "runs": 20, "winners": {},
        "causes": {}, "time_a_ms": times, "time_b_ms": times,
    }  # fmt: skip
    return Cell(**known | more)
