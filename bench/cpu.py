"""How much processor time does a punched connection cost, both ends together?
Clients and side channel are counted apart; what other programs of the machine use is taken out and shown."""

from __future__ import annotations

from bench._duo import BUDGET, Duo, shorten_time_wait
from bench._frame import Figure, Progress, Report, at_most, number

TECHNIQUES = {"tcp-midstream": at_most(0.35), "tcp-simopen": None, "udp": None}
CONCURRENCY = 100


def run(*, quick: bool, progress: Progress) -> Report:
    rounds, count = (3, 400) if quick else (5, 3000)
    costs: dict[tuple[str, str], list[float]] = {}
    with Duo("linux", "linux") as duo:
        shorten_time_wait(duo.lab)
        for turn in range(rounds):
            for technique in TECHNIQUES:
                outcome = duo.punch(technique, count, concurrency=CONCURRENCY)
                spent = outcome.cpu_s
                # softirqs that no process is charged with; on a machine with company, the error of the others as well
                rest = spent["machine"] - spent["daemons"] - spent["clients"] - spent["side"] - spent["others"]
                parts = {
                    "daemons and kernel": spent["daemons"] + max(0.0, rest),
                    "daemons": spent["daemons"],
                    "daemons, user": spent["daemons user"],
                    "daemons, system": spent["daemons"] - spent["daemons user"],
                    "kernel, nobody's": max(0.0, rest),
                    "clients": spent["clients"],
                    "side channel": spent["side"],
                    "other programs": spent["others"],
                }
                for part, seconds in parts.items():
                    costs.setdefault((technique, part), []).append(seconds / outcome.ok * 1000)
                progress(f"round {turn + 1} of {rounds}: {technique} {number(costs[technique, 'daemons'][-1])} ms")
    figures = [
        Figure.of(f"{technique}: {part}", values, "ms", TECHNIQUES[technique] if part == "daemons and kernel" else None)
        for (technique, part), values in sorted(costs.items(), key=lambda item: list(TECHNIQUES).index(item[0][0]))
    ]
    return Report(figures, conditions={"rounds": rounds, "count": count, "concurrency": CONCURRENCY, "daemons": BUDGET})
