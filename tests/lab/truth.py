"""What every technique comes to in every ordered pair of kinds: the kernel's truth, recorded, and the model's word.

It refuses to compare times, and to judge; test_model_agrees.py does.

    ./dev run python tests/lab/truth.py                    # record it anew, as root; 14 minutes on two busy cores
    ./dev run python tests/lab/truth.py --again            # only cells in which model and record differ
    ./dev run python tests/lab/truth.py linux cgn          # only pairs that have one of these kinds
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from duo import Duo, duo

from punchd.lab.model import World
from punchd.lab.pages import KINDS

RECORD = Path(__file__).with_name("kernel_truth.json")
TECHNIQUES = ("tcp-simopen", "tcp-midstream", "tcp-syni", "tcp-nutss", "tcp-direct", "udp")
DELAY_MS = 10
TIMEOUT_MS = 1000  # what connects does so in a tenth of it, the rest waits for nothing
JOBS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One technique between two kinds: the fields of `lab matrix --json` that the model can have, too."""

    a: str
    b: str
    technique: str
    runs: int
    ok: int
    causes: dict[str, int]
    said: tuple[str, ...] = field(default=(), compare=False)
    """Of the kernel's: what each side that failed had to say."""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.a, self.b, self.technique


def of_kernel(a: str, b: str, techniques: Iterable[str] = TECHNIQUES, *, hole_ttl: int = 2) -> list[Cell]:
    """What the kernel's NATs make of each technique, all at once, as each has ports of its own.

    Behind a blacklist one by one, each forgiven what the last one did.
    """
    with duo(a, b, delay_ms=DELAY_MS, options=["--hole-ttl", str(hole_ttl)]) as both:
        if "blacklist" not in (a, b):
            return list(asyncio.run(_all(both, techniques)))
        cells = []
        for technique in techniques:
            for nat, kind in ((both.lab.nat_a, a), (both.lab.nat_b, b)):
                if kind == "blacklist":
                    nat.nft("flush set ip lab blocked")
            cells += asyncio.run(_all(both, [technique]))
        return cells


async def _all(both: Duo, techniques: Iterable[str]) -> list[Cell]:
    return await asyncio.gather(*(_one(both, technique) for technique in techniques))


async def _one(both: Duo, technique: str) -> Cell:
    said = await both.run(
        [technique], transport="udp" if technique == "udp" else "tcp", timeout_ms=TIMEOUT_MS,
        side_delay_s=2 * DELAY_MS / 1000,
    )  # fmt: skip
    failed = [(name, side["code"], side["message"]) for name, side in zip("AB", said, strict=True) if not side["ok"]]
    cell = _cell(both.lab.kind_a, both.lab.kind_b, technique, [code for _, code, _ in failed])
    return replace(cell, said=tuple(": ".join(words) for words in failed))


def _cell(a: str, b: str, technique: str, codes: list[str]) -> Cell:
    causes = {code: codes.count(code) for code in sorted(codes)}
    return Cell(a=a, b=b, technique=technique, runs=1, ok=int(not codes), causes=causes)


def differences(a: str, b: str, techniques: Iterable[str] = TECHNIQUES) -> list[tuple[Cell, list[Cell]]]:
    """Where the kernel, as it is now, does not do what the model says: the model's cell, and the kernel's two.

    A real difference is there each time; a busy machine's is not. So a cell that differs is asked once more, by itself,
    and one that agrees then is a warning: it failed once, and somebody should know.
    """
    found = []
    for cell in of_kernel(a, b, techniques):
        model = of_model(*cell.key)
        if cell == model:
            continue
        again = of_kernel(a, b, [cell.technique])
        if [model] == again:
            warnings.warn(f"only once the kernel did not do as {model}: {cell}", stacklevel=2)
        else:
            found.append((model, [cell, *again]))
    return found


def of_model(a: str, b: str, technique: str, *, hole_ttl: int = 2) -> Cell:
    """What the modelled NATs make of it."""
    result = World(
        a, b, techniques=[technique], transport="udp" if technique == "udp" else "tcp",
        delay_ms=DELAY_MS, side_delay_ms=2 * DELAY_MS, timeout_s=TIMEOUT_MS / 1000, hole_ttl=hole_ttl,
    ).run()  # fmt: skip
    codes = [half.code for half in (result.a, result.b) if not half.ok]
    return _cell(a, b, technique, codes if codes or result.exchanged else ["no-data"])


def read(path: Path = RECORD) -> list[Cell]:
    """The recorded cells; fields that are not compared may be there."""
    wanted = set(Cell.__slots__) - {"said"}
    return [Cell(**{name: line[name] for name in wanted}) for line in json.loads(path.read_text(encoding="utf-8"))]


def write(cells: Iterable[Cell], path: Path = RECORD) -> None:
    """A cell a line, so that a change of one is a change of one line."""
    lines = ",\n".join(
        json.dumps({key: value for key, value in asdict(cell).items() if key != "said"})
        for cell in sorted(cells, key=lambda cell: cell.key)
    )
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def record(words: list[str]) -> None:
    """Measure what the words ask for, and keep each pair as soon as it is done."""
    known = {cell.key: cell for cell in read()} if RECORD.exists() else {}
    wanted: dict[tuple[str, str], list[str]] = {}
    for a in KINDS:
        for b in KINDS:
            for technique in TECHNIQUES:
                was = known.get((a, b, technique))
                if "--again" in words:
                    chosen = was is None or was != of_model(a, b, technique)
                else:
                    chosen = not words or bool({a, b} & set(words))
                if chosen:
                    wanted.setdefault((a, b), []).append(technique)
    with ProcessPoolExecutor(JOBS) as pool:
        futures = [pool.submit(of_kernel, a, b, techniques) for (a, b), techniques in wanted.items()]
        for done, future in enumerate(as_completed(futures), 1):
            for cell in future.result():
                known[cell.key] = cell
                if cell != of_model(*cell.key):
                    print(f"\ndiffers: {cell}\n  model: {of_model(*cell.key)}")
            write(known.values())
            print(f"\r{done} of {len(futures)} pairs", end="", flush=True)
    print()


if __name__ == "__main__":
    record(sys.argv[1:])
