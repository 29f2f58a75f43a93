"""How many two-peer attempts a second the modelled lab runs on one core, by technique.
Opens no socket; the time is this machine's, the runs are virtual."""

from __future__ import annotations

import argparse
import json
import os
import time

from punchd.lab.model import World

TECHNIQUES = ("tcp-simopen", "tcp-midstream", "udp", "auto")


def measure(technique: str, runs: int) -> float:
    """Attempts a second, through two Linux NATs, without the applications' first words."""
    names = None if technique == "auto" else [technique]
    transport = "udp" if technique == "udp" else "tcp"
    begin = time.perf_counter()
    for seed in range(runs):
        result = World("linux", "linux", techniques=names, transport=transport, seed=seed, speaks="").run()
        assert result.a.ok
        assert result.b.ok
    return runs / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    rows = [{"technique": name, "attempts_per_s": round(measure(name, runs))} for name in TECHNIQUES]
    print(f"{'technique':<15} {'attempts/s':>10}")
    for row in rows:
        print(f"{row['technique']:<15} {row['attempts_per_s']:>10}")
    print(json.dumps({"bench": "model", "kernel": os.uname().release, "runs": runs, "rows": rows}))


if __name__ == "__main__":
    main()
