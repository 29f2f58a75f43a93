"""The acceptance table as data: what each pair of kinds must reach, and whether it does.

It refuses leniency: a cell that must connect connects in every run, a time holds in the worst run, and a
failure counts as explained only when both sides give the code that was expected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from .pair import Pair, Result
from .topology import Lab

# Codes that say only that time passed: in a cell that may fail they are a miss.
_EMPTY_CODES = frozenset({
    "timeout", "time-up", "daemon-hangs", "endpoint-hangs", "peer-silent", "side-channel-lost", "connection-lost",
    "internal", "no-data",
})  # fmt: skip

_PATH_MS = 50.0
_SLACK_MS = 10.0
_FALL_BACK_MS = 300.0
_SLOW_SIDE_MS = 3000.0
_FAIL_PATIENCE_MS = 4000

# What a host with a public address must reach; NATs that hide the port are the matrix's matter.
_TO_SERVERS = (
    "firewall",
    "linux",
    "linux-liberal",
    "linux-reject",
    "linux-synfilter",
    "open",
    "untracked",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """One cell and what it must reach."""

    a: str
    b: str
    technique: str
    must: bool = True
    code_a: str | None = None  # of a failure, where the table names it
    code_b: str | None = None
    winner: str | None = None
    named: tuple[str, ...] = ()  # techniques whose failure progress must name, on either side, in every run
    time_a_ms: float | None = None
    time_b_ms: float | None = None
    delay_ms: float = 0.0
    side_delay_ms: float = 0.0
    early: bool = False
    hosts_conntrack: bool = False

    @property
    def network(self) -> tuple[str, str, float, bool]:
        """Cells that agree in this share one lab and its daemons."""
        return self.a, self.b, self.delay_ms, self.hosts_conntrack

    def say(self) -> str:
        """What is wanted, in a table's cell."""
        if not self.must:
            codes = f"{self.code_a} / {self.code_b}" if self.code_a else "names its cause"
            return f"may fail: {codes}"
        limits = [
            f"{side} {limit:g} ms"
            for side, limit in (("B", self.time_b_ms), ("A", self.time_a_ms))
            if limit is not None
        ]
        return ", ".join(["all", *limits, *([f"by {self.winner}"] if self.winner else [])])

    def place(self) -> str:
        """The network, in a table's cell."""
        notes = [
            *([f"{self.delay_ms:g} ms"] if self.delay_ms else []),
            *([f"side {self.side_delay_ms / 1000:g} s"] if self.side_delay_ms else []),
            *(["hosts track"] if self.hosts_conntrack else []),
            *(["early"] if self.early else []),
        ]
        return f"{self.a} x {self.b}" + (f" ({', '.join(notes)})" if notes else "")


def table() -> Iterator[Want]:
    """Issue by issue the cells grow; the order is the one they run in."""
    yield from _success(hosts_conntrack=False)
    yield from _linux(hosts_conntrack=True)
    yield from _times()
    yield from _slow_side()


def _success(*, hosts_conntrack: bool) -> Iterator[Want]:
    yield from _linux(hosts_conntrack=hosts_conntrack)
    kind = "linux-reject"
    yield from _row(kind, kind, must="tcp-simopen tcp-midstream udp auto", may="tcp-syni tcp-nutss")
    kind = "linux-synfilter"
    yield from _row(kind, kind, must="tcp-midstream udp auto", may="tcp-simopen tcp-nutss tcp-syni")
    kind = "untracked"
    every = "tcp-simopen tcp-nutss tcp-syni tcp-midstream udp auto"
    yield from _row(kind, kind, must=every, may="tcp-direct")
    yield from _row("linux-synfilter", kind, must="tcp-syni tcp-midstream udp auto", may="tcp-nutss tcp-simopen")
    yield from _row("linux-liberal", "linux", must="tcp-nutss tcp-simopen tcp-midstream udp auto", may="tcp-syni")
    yield from _row("linux", "open", must="tcp-direct", may="")
    yield from _row("open", "linux", must="tcp-direct", may="")
    for a in ("open", "firewall"):
        for b in _TO_SERVERS:
            yield from _row(a, b, must="auto udp", may="")


def _linux(*, hosts_conntrack: bool) -> Iterator[Want]:
    row = _row("linux", "linux", must="tcp-simopen tcp-midstream udp auto", may="")
    falling = Want(
        a="linux",
        b="linux",
        technique="tcp-syni,tcp-nutss,tcp-simopen",
        winner="tcp-simopen",
        named=("tcp-syni", "tcp-nutss"),
    )
    syni = Want(
        a="linux",
        b="linux",
        technique="tcp-syni",
        must=False,
        code_a="nothing-heard",
        code_b="answer-unacknowledged",
    )
    # the listener's SYN-ACK is INVALID to whoever tracks first: the host itself, or NAT A
    code_a = "blocked-incoming" if hosts_conntrack else "answer-unacknowledged"
    nutss = replace(syni, technique="tcp-nutss", code_a=code_a, code_b="nothing-heard")
    for want in (*row, falling, syni, nutss):
        yield replace(want, hosts_conntrack=hosts_conntrack)


def _times() -> Iterator[Want]:
    side_ms, round_ms = _PATH_MS, 2 * _PATH_MS
    prompt = Want(
        a="linux",
        b="linux",
        technique="tcp-simopen",
        delay_ms=_PATH_MS,
        time_b_ms=side_ms + round_ms + _SLACK_MS,
        time_a_ms=side_ms + 1.5 * round_ms + _SLACK_MS,
    )
    early_ms = side_ms + round_ms / 2 + _SLACK_MS
    yield prompt
    for technique in ("tcp-midstream", "auto"):
        yield replace(prompt, technique=technique)
    yield replace(prompt, technique="tcp-midstream", early=True, time_a_ms=early_ms, time_b_ms=None)
    syni = replace(prompt, a="linux-synfilter", b="untracked", technique="tcp-syni")
    yield syni
    yield replace(syni, early=True, time_a_ms=early_ms, time_b_ms=None)
    assert prompt.time_a_ms is not None
    assert prompt.time_b_ms is not None
    yield replace(
        prompt,
        a="linux-synfilter",
        b="linux-synfilter",
        technique="auto",
        time_a_ms=prompt.time_a_ms + _FALL_BACK_MS,
        time_b_ms=prompt.time_b_ms + _FALL_BACK_MS,
    )


def _slow_side() -> Iterator[Want]:
    for want in _success(hosts_conntrack=False):
        if want.must and want.a not in ("open", "firewall") and not want.named:
            yield replace(want, side_delay_ms=_SLOW_SIDE_MS)


def _row(a: str, b: str, *, must: str, may: str) -> Iterator[Want]:
    for technique in must.split():
        yield Want(a=a, b=b, technique=technique)
    for technique in may.split():
        yield Want(a=a, b=b, technique=technique, must=False)


def judge(want: Want, result: Result) -> list[str]:
    """What the result misses; nothing when it reaches what is wanted."""
    misses = []
    if want.must and result.ok < result.runs:
        misses.append(f"{result.runs - result.ok} did not connect: {_codes(result)}")
    if not want.must and result.ok < result.runs:
        for side, causes, code in (("A", result.causes_a, want.code_a), ("B", result.causes_b, want.code_b)):
            strange = [found for found in causes if (found != code if code else found in _EMPTY_CODES)]
            if strange:
                misses.append(f"{side} says {', '.join(strange)}")
    if want.winner and result.ok != result.winners[want.winner]:
        misses.append(f"won by {dict(result.winners)}")
    misses += [f"progress names {name} too rarely" for name in want.named if not _always_named(name, result)]
    for side, limit, times in (
        ("B", want.time_b_ms, result.times_b_ms),
        ("A", want.time_a_ms, result.times_a_ms),
    ):
        late = [time_ms for time_ms in times if limit is not None and time_ms > limit]
        if late:
            misses.append(f"{side} late {len(late)} of {len(times)}")
    return misses


def _always_named(technique: str, result: Result) -> bool:
    """Whether one side's progress told of this technique's failure in each run."""
    counts: Counter[str] = Counter()
    for text, count in result.failed.items():
        side, name = text.partition(":")[0].split()
        counts[side] += count if name == technique else 0
    return max(counts.values(), default=0) >= result.runs


def measured(want: Want, result: Result) -> str:
    """What came of it, in a table's cell."""
    said = f"{result.ok} of {result.runs}"
    if result.ok < result.runs:
        said += f", {_codes(result)}"
    if result.ok and (want.time_a_ms or want.time_b_ms):
        line = result.summary()
        for side in ("b", "a"):
            time_ms = line[f"time_{side}_ms"]
            said += f", {side.upper()} {time_ms['median']:.1f} ({time_ms['worst']:.1f}) ms"
    return said


def accept(*, runs: int, only: str, daemon: list[str], logs: Path | None, tell: Callable[[str], None] = print) -> int:
    """Run the cells whose description holds `only`; the number of misses."""
    wants = [want for want in table() if all(word in f"{want.place()} {want.technique}" for word in only.split())]
    places = max((len(want.place()) for want in wants), default=0)
    techniques = max((len(want.technique) for want in wants), default=0)
    says = max((len(want.say()) for want in wants), default=0)
    tell(f"{'':4}  {'network':{places}}  {'technique':{techniques}}  {'wanted':{says}}  measured")
    verdicts: Counter[bool] = Counter()
    for want, result in _perform(wants, runs=runs, daemon=daemon, logs=logs):
        misses = judge(want, result)
        verdicts[not misses] += 1
        mark = "MISS" if misses else "ok"
        tell(
            f"{mark:4}  {want.place():{places}}  {want.technique:{techniques}}  {want.say():{says}}  "
            f"{'; '.join([measured(want, result), *misses])}"
        )
    tell(f"{verdicts[True]} of {len(wants)} cells reach what is wanted, {verdicts[False]} miss it")
    return verdicts[False]


def _perform(
    wants: Iterable[Want], *, runs: int, daemon: list[str], logs: Path | None
) -> Iterator[tuple[Want, Result]]:
    for (a, b, delay_ms, hosts_conntrack), cells in groupby(wants, key=lambda want: want.network):
        with Lab(a, b, delay_ms=delay_ms, hosts_conntrack=hosts_conntrack, echo=None) as lab:
            with Pair(lab, daemon=daemon, logs=logs) as pair:
                for want in cells:
                    # where only the outcome counts, runs may overlap; times are taken one by one
                    alone = want.must and not want.side_delay_ms
                    patience_ms = 10000 if want.must else _FAIL_PATIENCE_MS
                    result = pair.run(
                        want.technique,
                        runs=runs,
                        side_delay_ms=want.side_delay_ms,
                        early=want.early,
                        parallel=1 if alone else runs,
                        timeout_ms=patience_ms,
                    )
                    yield want, result


def _codes(result: Result) -> str:
    """The codes of both sides, the most frequent first: `nothing-heard / answer-unacknowledged`."""
    sides = (", ".join(code for code, _ in causes.most_common()) for causes in (result.causes_a, result.causes_b))
    return " / ".join(side or "ok" for side in sides)
