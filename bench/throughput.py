"""How many punched connections a second, beside plain ones through the same NATs, with everything on this machine?
Nothing is left out: both daemons, two applications, the side channel, proof, hand-over, a byte each way, close."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from bench._baseline import Baseline
from bench._duo import BUDGET, Duo, shorten_time_wait
from bench._frame import Figure, Plot, Progress, Report, at_least, interleaved, number, ratios

# The share of the baseline's rate that each technique is to reach, through which NATs.
PLACES = {
    ("linux", "linux"): {"tcp-midstream": 0.5, "tcp-simopen": 0.45, "udp": 0.4},
    ("linux-synfilter", "untracked"): {"tcp-syni": 0.4},
}
BASELINE_OF_C = 0.5
Points = dict[str, list[tuple[float, float]]]


def run(*, quick: bool, progress: Progress) -> Report:
    rounds, count = (3, 500) if quick else (5, 2500)
    figures: list[Figure] = []
    tally: dict[str, Counter[str]] = {}
    rates: Points = {}
    for kinds, targets in PLACES.items():
        with ExitStack() as stack:
            duo, baseline = stack.enter_context(Duo(*kinds)), stack.enter_context(Baseline(*kinds))
            shorten_time_wait(duo.lab)
            shorten_time_wait(baseline.lab)
            for concurrency in (100,) if quick else (1, 10, 100, 1000):
                many = concurrency >= 100
                wanted = count if many else count // 10
                label = f"plain through {kinds[0]}" if kinds[0] == kinds[1] else f"plain, {' x '.join(kinds)}"
                measures: dict[str, Callable[[], float]] = {
                    f"uvloop, {label}": partial(baseline.rate, "uvloop", wanted, concurrency=concurrency),
                    f"C, {label}": partial(baseline.rate, "C", wanted, concurrency=concurrency),
                }
                plain, c = measures
                for technique in targets:
                    measures[technique] = partial(_punch, duo, technique, wanted, concurrency, tally)
                found = interleaved(rounds if many else 1, measures, _at(concurrency, progress))
                for name, values in found.items():
                    rates.setdefault(name, []).append((concurrency, Figure.of(name, values, "").value or 0.0))
                if not many:
                    continue
                where = f"at {concurrency}"
                figures.append(Figure.of(f"{plain} {where}", found[plain], "1/s"))
                figures.append(Figure.of(f"{c} {where}", found[c], "1/s"))
                of_c = ratios(found[plain], found[c])
                figures.append(Figure.of(f"uvloop of C, {label} {where}", of_c, "x", at_least(BASELINE_OF_C)))
                for technique, share in targets.items():
                    of_plain = ratios(found[technique], found[plain])
                    figures.append(Figure.of(f"{technique} {where}", found[technique], "1/s", note=" ".join(BUDGET)))
                    figures.append(Figure.of(f"{technique} of uvloop {where}", of_plain, "x", at_least(share)))
    for technique, codes in tally.items():
        wrong = {code: times for code, times in codes.items() if code != technique}
        part = codes[technique] / codes.total()
        note = f"of {codes.total()}" + (f": {wrong}" if wrong else "")
        figures.append(Figure(f"{technique} success", part, "x", None, at_least(1.0), note))
    plots = [
        Plot(
            name="throughput", title="Through two kernel NATs, everything on two cores", x="in flight",
            y="connections a second", lines=rates, log_x=True,
        )
    ]  # fmt: skip
    return Report(figures, plots, {"rounds": rounds, "count": count, "daemons": BUDGET})


def _punch(duo: Duo, technique: str, count: int, concurrency: int, tally: dict[str, Counter[str]]) -> float:
    outcome = duo.punch(technique, count, concurrency=concurrency)
    tally.setdefault(technique, Counter()).update(outcome.worse)
    return outcome.rate


def _at(concurrency: int, progress: Progress) -> Progress:
    return lambda text: progress(f"{number(concurrency)} in flight, {text}")
