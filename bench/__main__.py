"""./dev bench [NAME ...] [--json FILE] [--quick] [--check] [--record]: runs the named measurements, or all.
Measures nothing itself: one file per question lies beside it, and _frame.py says what such a file looks like."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from bench import _frame, _page, soak

FOLDER = Path(__file__).parent
QUICK_S = 300.0
"""What `--quick` may take for all of them, on a machine that does nothing else."""
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def main() -> int:
    options = _options()
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        print(f"bench: there is no {', '.join(map(repr, unknown))}; ./dev bench --list", file=sys.stderr)
        return 2
    if options.list:
        for name in NAMES:
            first = (FOLDER / f"{name}.py").read_text(encoding="utf-8").split("\n", 1)[0]
            print(f"{name:<12} {first.strip(chr(34))}")
        return 0
    if options.minutes is not None:
        soak.MINUTES = options.minutes
    said: list[dict[str, Any]] = []
    broken = []
    for name in options.names or NAMES:
        try:
            said.append(_frame.perform(name, importlib.import_module(f"bench.{name}").run, quick=options.quick))
        except Exception:  # the others are still worth their time
            traceback.print_exc()
            broken.append(name)
    if options.json:
        Path(options.json).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    if options.record and not broken:
        _page.rewrite(said)
    for line in _frame.summary(said):
        print(f"bench: {line}", file=sys.stderr)
    for name in broken:
        print(f"bench: {name} broke, see above", file=sys.stderr)
    missed = [f"{one['bench']}: {f['figure']}" for one in said for f in one["figures"] if f["met"] is False]
    if options.quick and (took_s := sum(one["seconds"] for one in said)) > QUICK_S:
        missed.append(f"--quick took {took_s:.0f} s of {QUICK_S:.0f}")
    if options.check:
        for name in missed:
            print(f"bench: missed: {name}", file=sys.stderr)
    return 1 if broken or (options.check and missed) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description="Measurements, one per question.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; without one, all")
    parser.add_argument("--json", metavar="FILE", help="write what the last lines say to this file as well")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, no plots; minutes for all")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--minutes", type=float, metavar="M", help="how long soak lasts, when it is not quick")
    parser.add_argument("--list", action="store_true", help="which measurements there are")
    parser.add_argument("--record", action="store_true", help="all of them, into docs/bench.json and the README")
    options = parser.parse_args()
    if options.record and (options.names or options.quick):
        parser.error("what is recorded is a full run of all")
    return options


if __name__ == "__main__":
    sys.exit(main())
