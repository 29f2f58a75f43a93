"""Model and kernel agree: in each cell the same techniques connect, and failures bear the same codes on both sides.

It refuses to compare times, which the model has exactly and a busy machine has not.
"""

from __future__ import annotations

import pytest

from punchd.lab.model import World
from punchd.lab.pair import Pair
from punchd.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow]

TECHNIQUES = ("tcp-simopen", "tcp-midstream", "tcp-syni", "tcp-nutss", "tcp-direct", "udp")
CELLS = [
    ("linux", "linux"),
    ("linux-reject", "linux-reject"),
    ("linux-synfilter", "linux-synfilter"),
    ("untracked", "untracked"),
    ("linux-synfilter", "untracked"),
    ("linux-liberal", "linux"),
    ("open", "linux-reject"),
    ("linux", "firewall"),
]
TIMEOUT_MS = 1000  # what connects does so in a tenth of it, the rest waits for nothing
RUNS = 1

Verdict = tuple[bool, frozenset[str], frozenset[str]]


@pytest.mark.parametrize(("kind_a", "kind_b"), CELLS)
def test_model_and_kernel_agree(kind_a: str, kind_b: str) -> None:
    """What random schedules prove in the model counts only as far as the model is the kernel."""
    with Lab(kind_a, kind_b, delay_ms=10, echo=None) as lab, Pair(lab) as pair:
        kernel = {technique: _kernel(pair, technique) for technique in TECHNIQUES}
    assert kernel == {technique: _model(kind_a, kind_b, technique) for technique in TECHNIQUES}


def _kernel(pair: Pair, technique: str) -> Verdict:
    result = pair.run(technique, runs=RUNS, parallel=RUNS, side_delay_ms=10, timeout_ms=TIMEOUT_MS)
    return result.ok == RUNS, frozenset(result.causes_a), frozenset(result.causes_b)


def _model(kind_a: str, kind_b: str, technique: str) -> Verdict:
    transport = "udp" if technique == "udp" else "tcp"
    result = World(
        kind_a, kind_b, techniques=[technique], transport=transport, delay_ms=10, side_delay_ms=20,
        timeout_s=TIMEOUT_MS / 1000,
    ).run()  # fmt: skip
    codes = [frozenset[str]() if half.ok else frozenset([half.code]) for half in (result.a, result.b)]
    return result.ok, codes[0], codes[1]
