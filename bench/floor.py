"""How much of a punch is its system calls? Two C programs that do nothing else take the daemons' places.
Nothing that a daemon must check is checked (floor.c): it is a floor, not a daemon; whoever goes below it does less."""

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
ASKED_MS = 0.35  # bench/cpu.py
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
        measures: dict[str, Callable[[], float]] = {
            "uvloop": partial(baseline.rate, "uvloop", count, concurrency=CONCURRENCY),
            "C": partial(baseline.rate, "C", count, concurrency=CONCURRENCY),
            **{name: partial(_punch, duo, count, found[name]) for name, duo in duos.items()},
        }
        rates = interleaved(rounds, measures, progress)
        calls = duos["floor"].lab.a.run([str(compiled(Path(__file__).with_name("calls.c")))])
    figures = [Figure.of(f"plain, {name}", rates[name], "1/s") for name in ("uvloop", "C")]
    for name, outcomes in found.items():
        figures.append(Figure.of(f"{name}: punches", rates[name], "1/s"))
        figures.append(Figure.of(f"{name}: of uvloop", ratios(rates[name], rates["uvloop"]), "x"))
        figures.append(Figure.of(f"{name}: of C", ratios(rates[name], rates["C"]), "x"))
        for part, values in _parts(outcomes).items():
            figures.append(Figure.of(f"{name}: {part}", values, "ms"))
    costs = {name: _parts(outcomes)["daemons"] for name, outcomes in found.items()}
    shares = list(zip(ratios(rates["floor"], rates["uvloop"]), found["floor"], strict=True))
    figures += [
        Figure.of("punchd in multiples of the floor", ratios(costs["punchd"], costs["floor"]), "x"),
        Figure.of(f"left by {ASKED_MS} ms for all else", [ASKED_MS - cost for cost in costs["floor"]], "ms"),
        *(Figure.of(f"of uvloop, were daemons to cost {cost_ms:g} ms (reckoned)",
                    [share * _quickened(outcome, cost_ms) for share, outcome in shares], "x")
          for cost_ms in (0.0, ASKED_MS)),
        *(Figure(f"{name}: success", sum(one.ok for one in outcomes) / (rounds * count), "x", None, at_least(1.0))
          for name, outcomes in found.items()),
    ]  # fmt: skip
    for ns, name in (line.split(" ", 1) for line in calls.splitlines()):
        figures.append(Figure(f"one {name}", float(ns), "ns"))
    return Report(figures, conditions={"rounds": rounds, "count": count, "concurrency": CONCURRENCY})


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
        "side channel": [_of(one, "side") for one in outcomes],
    }


def _quickened(outcome: Outcome, cost_ms: float) -> float:
    """How the rate would grow if both daemons cost this: all five processes share the cores, and keep them busy."""
    rest_ms = _of(outcome, "clients") + _of(outcome, "side")
    return (_of(outcome, "daemons") + rest_ms) / (cost_ms + rest_ms)


def _of(outcome: Outcome, part: str) -> float:
    return outcome.cpu_s[part] / outcome.ok * 1000
