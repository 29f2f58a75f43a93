"""The demo: two hosts, their daemons and two people at examples/chat.py, each technique in turn, and a table.
It refuses to flatter: the story comes from a sniffer between the NATs, the bytes from the two applications.

Each act has a lab of its own, on the pair of networks where its technique shows what it is for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .namespace import Namespace
from .pair import DAEMON, Pair
from .topology import Lab
from .wire import Sight, Wire, steps


@dataclass(frozen=True, slots=True)
class Act:
    """A technique (or auto), the networks it is shown on, and why these."""

    technique: str
    a: str
    b: str
    why: str


ACTS = (
    Act("tcp-direct", "open", "linux", "no hole at all: A listens, so A's network must let strangers in"),
    Act("tcp-simopen", "linux", "linux-reject", "both send a SYN; A's dies young, or NAT b would answer it with RST"),
    Act("tcp-nutss", "linux-liberal", "linux", "a SYN, forgotten, then a listener: NAT a must not check numbers"),
    Act("tcp-syni", "linux-synfilter", "untracked", "no SYN ever gets in at A, so B injects A's own SYN into itself"),
    Act("tcp-midstream", "linux-synfilter", "linux-synfilter", "no SYN gets in anywhere, so there is no handshake"),
    Act("udp", "linux", "linux", "the classic, with datagrams"),
    Act("tcp-birthday", "random", "linux", "NAT a draws its ports: of 256 holes and 1024 probes two meet by chance"),
    Act("udp-birthday", "random", "linux", "the same with datagrams"),
    Act("auto", "linux", "linux", "what an application asks for that has no wishes; spares stand by"),
)

_EXAMPLES = Path(__file__).parents[2] / "examples"
_DELAY_MS = 25.0
_LINES, _LINE_LEN = 64, 1024
_SIZE = _LINES * _LINE_LEN
_TYPING_S = 0.001  # between two lines: a datagram that overruns a buffer is nobody's fault
_PATIENCE_S = 20.0
_WIDE = 110  # columns from which on each thing has a column of its own
_COLOURS = {"A": "cyan", "B": "magenta"}
_MAP = """\
host a --- NAT a --- r1 --- r2 --- r3 --- NAT b --- host b
                             |
                             s  (rendezvous server)"""


@dataclass(slots=True)
class Side:
    """What one application said and heard. Empty strings: it never got that far."""

    role: str
    local: str = ""
    remote: str = ""
    elapsed_ms: str = ""
    technique: str = ""
    complaint: str = ""
    typed: bytes = b""
    heard: bytes = b""


@dataclass(slots=True)
class Outcome:
    """One act: both sides, and the steps on the wire, each with its time in ms since the first one."""

    a: Side = field(default_factory=lambda: Side("A"))
    b: Side = field(default_factory=lambda: Side("B"))
    story: list[tuple[float, str]] = field(default_factory=list)
    spares: int = 0

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.a, self.b

    @property
    def ok(self) -> bool:
        """Whether each of the two read exactly what the other one typed."""
        return bool(self.a.typed) and (self.a.typed, self.b.typed) == (self.b.heard, self.a.heard)


def demo(names: Sequence[str] = (), *, daemon: Sequence[str] = DAEMON, logs: Path | None = None) -> int:
    """Play the acts of these techniques, or all; print the table. The exit status: 0, 1 for a failure, 130."""
    console = Console(highlight=False, soft_wrap=True)
    acts = [act for act in ACTS if not names or act.technique in names]
    console.print(
        f"{_MAP}\n\n{_DELAY_MS:g} ms from host to host; A and B are the hosts, each with a punchd of its own."
    )
    played: list[tuple[Act, Outcome]] = []
    # the folder is made before Ctrl-C means anything, so that none comes between making it and knowing of it
    with tempfile.TemporaryDirectory(prefix="punchd-demo-") as folder, _Interrupt():
        try:
            for number, act in enumerate(acts, 1):
                console.print(
                    f"\n[bold]{number} of {len(acts)}  {act.technique}[/bold]  A {act.a}, B {act.b}\n  {act.why}"
                )
                played.append((act, _play(act, console.print, Path(folder), daemon=daemon, logs=logs)))
        except KeyboardInterrupt:
            console.print("\ninterrupted; every namespace and process of the demo is gone")
            return 130
    # a pipe has no width of its own
    width = None if console.is_terminal or "COLUMNS" in os.environ else _WIDE
    printer = Console(highlight=False, width=width)
    printer.print()
    printer.print(_table(played, wide=printer.width >= _WIDE))
    failed = [act.technique for act, outcome in played if not outcome.ok]
    if failed:
        printer.print(f"[red]{len(failed)} of {len(played)} failed: {', '.join(failed)}[/red]")
        return 1
    printer.print(f"{len(played)} of {len(played)} connected; what each one typed, the other one read, byte by byte.")
    return 0


class _Interrupt:
    """The first Ctrl-C unwinds; the ones after it, impatient or doubled by sudo, don't disturb the clean-up."""

    def __enter__(self) -> None:
        self._old = signal.signal(signal.SIGINT, self._first)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._old)

    def _first(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt


def _play(act: Act, tell: Callable[[str], None], folder: Path, *, daemon: Sequence[str], logs: Path | None) -> Outcome:
    outcome = Outcome()
    with (
        Lab(act.a, act.b, delay_ms=_DELAY_MS, echo=None) as lab,
        Pair(lab, daemon=daemon, logs=logs) as pair,
        Wire(lab) as wire,
    ):
        place = _serve(lab.server)
        wishes = [] if act.technique in ("auto", "udp") else ["--technique", act.technique]
        wishes += ["--udp"] if act.technique.startswith("udp") else []
        # B first: it is to be there when A calls
        callers = [
            _Caller(outcome.b, lab.b, [place, "bob"], pair.socket_path("b"), folder, tell),
            _Caller(outcome.a, lab.a, [place, "anna", "bob", *wishes], pair.socket_path("a"), folder, tell),
        ]
        deadline = time.monotonic() + _PATIENCE_S
        for caller in callers:
            caller.finish(max(0.0, deadline - time.monotonic()))
    _read_wire(outcome, wire, lab)
    return outcome


def _serve(server: Namespace) -> str:
    """Start the rendezvous server; where it is."""
    place = f"{server.address}:7000"
    argv = [sys.executable, str(_EXAMPLES / "rendezvous.py"), "--host", server.address, "--port", "7000"]
    child = server.popen(argv, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    if not child.stdout.readline():
        raise RuntimeError(f"the rendezvous server ended; is {_EXAMPLES} there? the demo needs a checkout")
    return place


class _Caller:
    """One chat.py in one host, with somebody who types as soon as there is a connection."""

    def __init__(
        self, side: Side, host: Namespace, words: list[str], path: Path, folder: Path, tell: Callable[[str], None]
    ) -> None:
        self._side, self._tell = side, tell
        self._heard = folder / side.role
        argv = ["env", f"PUNCHD_SOCKET={path}", sys.executable, str(_EXAMPLES / "chat.py"), *words]
        with self._heard.open("wb") as heard:
            pipe = subprocess.PIPE
            self._child: subprocess.Popen[Any] = host.popen(argv, stdin=pipe, stdout=heard, stderr=pipe)
        self._thread = threading.Thread(target=self._follow, name=f"chat {side.role}", daemon=True)
        self._thread.start()

    def finish(self, patience_s: float) -> None:
        """Wait for its end, or make one; what it heard."""
        try:
            self._child.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._side.complaint = f"no end within {_PATIENCE_S:g} s"
            self._child.kill()
        self._thread.join()
        self._side.heard = self._heard.read_bytes()

    def _follow(self) -> None:
        assert self._child.stderr is not None
        for raw in self._child.stderr:
            line = raw.decode(errors="replace").rstrip()
            self._tell(f"  {self._side.role}  {escape(line)}")
            if line.startswith("punched "):
                _, self._side.technique, self._side.local, _, self._side.remote, self._side.elapsed_ms, _ = line.split()
                self._type()
            elif line.startswith("no connection: "):
                self._side.complaint = line.removeprefix("no connection: ")

    def _type(self) -> None:
        keys: IO[bytes] | None = self._child.stdin
        assert keys is not None
        for number in range(_LINES):
            start = f"line {number} of {self._side.role}: "
            line = start.encode().ljust(_LINE_LEN - 1, b"abcdefghijklmnopqrstuvwxyz"[number % 26 :][:1]) + b"\n"
            try:
                keys.write(line)
                keys.flush()
            except BrokenPipeError:
                return  # it has ended, and its last line says why
            self._side.typed += line
            time.sleep(_TYPING_S)
        keys.close()


def _read_wire(outcome: Outcome, wire: Wire, lab: Lab) -> None:
    """The story of the connection that was handed over, up to the first byte of data; failing that, the longest."""
    flows = wire.stories()
    if not flows:
        return
    # each one's public port is what the other one sees: a NAT may have changed it
    ports = [side.remote.partition(":")[2] for side in outcome.sides]
    won = f"{lab.public_a}:{ports[1]} - {lab.public_b}:{ports[0]}"
    sights = flows.get(won) or max(flows.values(), key=len)
    told = list(steps(filter(_is_sent, takewhile(_before_data, sights))))
    outcome.story = [((time_ns - told[0][0]) / 1e6, words) for time_ns, words in told]
    outcome.spares = len(flows) - 1


def _is_sent(sight: Sight) -> bool:
    """Routers' errors are left out: where a packet dies is already said."""
    return sight.packet.icmp is None


def _before_data(sight: Sight) -> bool:
    return not sight.packet.payload_len or sight.packet.signal is not None


def _table(played: Iterable[tuple[Act, Outcome]], *, wide: bool) -> Table:
    """At 80 columns what is short shares the first column."""
    table = Table(show_lines=True)
    table.add_column("technique", no_wrap=True)
    if wide:
        table.add_column("networks", no_wrap=True)
    table.add_column("on the wire, in ms", ratio=1)
    table.add_column("sockets", no_wrap=True)
    if wide:
        table.add_column("ms", justify="right", no_wrap=True)
        table.add_column("moved", justify="right", no_wrap=True)
    for act, outcome in played:
        sides = outcome.sides
        name = f"[bold]{act.technique}[/bold]"
        if act.technique == "auto" and outcome.a.technique:
            name += f"\n{outcome.a.technique}"
        networks = f"A {act.a}\nB {act.b}"
        times = "\n".join(f"{side.role} {side.elapsed_ms or '-':>5}" for side in sides)
        moved = "\n".join(_moved(side) for side in sides)
        wire, sockets = _wire_cell(act, outcome), "\n".join(map(_sockets, sides))
        if wide:
            table.add_row(name, networks, wire, sockets, times, moved)
        else:
            times = "\n".join(f"{line} ms" for line in times.splitlines())
            table.add_row(f"{name}\n{networks}\n{times}\n{moved}", wire, sockets)
    table.caption = (
        "ms: from each one's own request to its socket. moved: what each one read.\n"
        "prime, fire, answer, commit: said by the daemons, outside of the stream."
    )
    table.caption_justify = "left"
    return table


def _wire_cell(act: Act, outcome: Outcome) -> str:
    lines = [f"{ms:5.1f} [{_COLOURS.get(words[0], 'none')}]{words}[/]" for ms, words in outcome.story] or ["nothing"]
    if outcome.spares:
        others = "other lanes" if act.technique.endswith("birthday") else "spares, closed again"
        lines.append(f"      [dim]and {outcome.spares} {others}[/dim]")
    lines += [f"[red]{side.role}: {escape(side.complaint)}[/red]" for side in outcome.sides if side.complaint]
    return "\n".join(lines)


def _sockets(side: Side) -> str:
    return f"{side.role} {side.local}\n> {side.remote}" if side.local else f"{side.role} none"


def _moved(side: Side) -> str:
    return f"{side.role} {len(side.heard) / 1024:g} KiB"
