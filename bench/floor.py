"""How much of a punch is its system calls? Two C programs that do nothing else take the daemons' places.
Nothing that a daemon must check is checked (floor.c): it is a floor, not a daemon; whoever goes below it does less.

Rates of five processes and of two do not suffer alike from other programs, so shares of uvloop's rate are told by
processor time as well: what a plain connection costs both its ends, by what a punch costs all five. That is what the
rates come to where both keep as much of the machine busy. What daemons may cost for the share asked for is reckoned so.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench._baseline import Baseline, compiled
from bench._duo import Duo, Outcome, shorten_time_wait
from bench._frame import Figure, Progress, Report, at_least, interleaved, ratios
from punchd.words.addresses import PUNCH_PORTS

TECHNIQUE = "tcp-midstream"
CONCURRENCY = 100
ASKED_MS, ASKED_SHARE = 0.35, 0.5  # bench/cpu.py, bench/throughput.py
CSRC = ("capture", "checksum", "filter", "flows", "frame", "options", "repair", "segment", "send", "sieve", "sift",
        "siphash")  # fmt: skip
# A peer's segment may come before there is a socket for it, and our kernel would reset the peer's.
RULES = f"""
table ip floor {{
  chain out {{
    type filter hook output priority -150;
    tcp sport {PUNCH_PORTS.low}-{PUNCH_PORTS.high} tcp flags & (rst | ack) == rst drop
  }}
}}
"""


class Floor(Duo):
    """Both programs in a lab of their own, asked as daemons are."""

    def __init__(self) -> None:
        folder = Path(__file__).parents[1] / "csrc"
        program = compiled(Path(__file__).with_suffix(".c"), *(folder / f"{name}.c" for name in CSRC))
        super().__init__("linux", "linux", daemon=[str(program)])

    def __enter__(self) -> Floor:
        super().__enter__()
        for host in (self.lab.a, self.lab.b):
            host.nft(RULES)
        return self


def run(*, quick: bool, progress: Progress) -> Report:
    rounds, count = (3, 500) if quick else (5, 2000)
    found: dict[str, list[Outcome]] = {"floor": [], "punchd": []}
    with ExitStack() as stack:
        duos = {"floor": stack.enter_context(Floor()), "punchd": stack.enter_context(Duo("linux", "linux"))}
        baseline = stack.enter_context(Baseline("linux", "linux"))
        for lab in (baseline.lab, *(duo.lab for duo in duos.values())):
            shorten_time_wait(lab)
        plain: dict[str, list[float]] = {"uvloop": [], "C": []}
        measures: dict[str, Callable[[], float]] = {
            **{name: partial(_connect, baseline, name, count, costs) for name, costs in plain.items()},
            **{name: partial(_punch, duo, count, found[name]) for name, duo in duos.items()},
        }
        rates = interleaved(rounds, measures, progress)
        calls = duos["floor"].lab.a.run([str(compiled(Path(__file__).with_name("calls.c")))])
    figures = [Figure.of(f"plain, {name}", rates[name], "1/s") for name in plain]
    figures += [Figure.of(f"plain, {name}: both ends", plain[name], "ms") for name in plain]
    for name, outcomes in found.items():
        figures.append(Figure.of(f"{name}: punches", rates[name], "1/s"))
        figures.append(Figure.of(f"{name}: of uvloop", ratios(rates[name], rates["uvloop"]), "x"))
        figures.append(Figure.of(f"{name}: of C", ratios(rates[name], rates["C"]), "x"))
        figures.append(Figure.of(f"{name}: of uvloop, by processor time", ratios(plain["uvloop"], _all(outcomes)), "x"))
        for part, values in _parts(outcomes).items():
            figures.append(Figure.of(f"{name}: {part}", values, "ms"))
    costs = {name: _parts(outcomes)["daemons"] for name, outcomes in found.items()}
    figures += [
        Figure.of("punchd in multiples of the floor", ratios(costs["punchd"], costs["floor"]), "x"),
        Figure.of(f"left by {ASKED_MS} ms for all else", [ASKED_MS - cost for cost in costs["floor"]], "ms"),
        *(figure for name, outcomes in found.items() for figure in _reckoned(name, outcomes, plain["uvloop"])),
        *(Figure(f"{name}: success", sum(one.ok for one in outcomes) / (rounds * count), "x", None, at_least(1.0))
          for name, outcomes in found.items()),
    ]  # fmt: skip
    for ns, name in (line.split(" ", 1) for line in calls.splitlines()):
        figures.append(Figure(f"one {name}", float(ns), "ns"))
    return Report(figures, conditions={"rounds": rounds, "count": count, "concurrency": CONCURRENCY})


def _connect(baseline: Baseline, program: str, count: int, costs_ms: list[float]) -> float:
    rate, cost_ms = baseline.measure(program, count, concurrency=CONCURRENCY)
    costs_ms.append(cost_ms)
    return rate


def _punch(duo: Duo, count: int, outcomes: list[Outcome]) -> float:
    outcome = duo.punch(TECHNIQUE, count, concurrency=CONCURRENCY)
    outcomes.append(outcome)
    return outcome.rate


def _parts(outcomes: list[Outcome]) -> dict[str, list[float]]:
    """Milliseconds per punch."""
    return {
        "daemons": [_of(one, "daemons") for one in outcomes],
        "daemons, user": [_of(one, "daemons user") for one in outcomes],
        "daemons, system": [_of(one, "daemons") - _of(one, "daemons user") for one in outcomes],
        "clients": [_of(one, "clients") for one in outcomes],
        "clients, user": [_of(one, "clients user") for one in outcomes],
        "side channel": [_of(one, "side") for one in outcomes],
    }


def _all(outcomes: list[Outcome]) -> list[float]:
    """Milliseconds of all five processes per punch."""
    return [_of(one, "daemons") + rest for one, rest in zip(outcomes, _rest(outcomes), strict=True)]


def _rest(outcomes: list[Outcome]) -> list[float]:
    """Milliseconds per punch of all but the daemons: punchd's wake up the others more often than the floor does."""
    return [_of(one, "clients") + _of(one, "side") for one in outcomes]


def _reckoned(name: str, outcomes: list[Outcome], plain_ms: list[float]) -> list[Figure]:
    """By processor time: what daemons of this cost would come to, and what they may cost for the share asked for."""
    rest_ms, label = _rest(outcomes), f"with the applications as {name} wakes them"
    return [
        *(
            Figure.of(f"{name}: of uvloop, were daemons to cost {cost_ms:g} ms (reckoned)",
                      ratios(plain_ms, [cost_ms + rest for rest in rest_ms]), "x", note=label)
            for cost_ms in (0.0, ASKED_MS)
        ),
        Figure.of(f"{name}: daemons may cost, for {ASKED_SHARE:g} of uvloop (reckoned)",
                  [one / ASKED_SHARE - rest for one, rest in zip(plain_ms, rest_ms, strict=True)], "ms", note=label),
    ]  # fmt: skip


def _of(outcome: Outcome, part: str) -> float:
    return outcome.cpu_s[part] / outcome.ok * 1000
