"""The commands about the matrix: ./dev lab matrix, record, heatmap, and accept --matrix.

It refuses to compute: matrix.py runs, record.py judges, heatmap.py draws.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from rich.console import Console

from punchd.core.techniques import TECHNIQUES

from . import cells, pages, record
from .matrix import JOBS, Broken, Plan, tasks
from .matrix import matrix as run_matrix
from .pair import DAEMON, ENDPOINT
from .worker import Effort

endpoint_option = click.option(
    "--endpoint",
    type=click.Choice(ENDPOINT),
    default=ENDPOINT[0],
    is_flag=False,
    flag_value="run",
    help="Punch with descriptors: one per side, asked for at the join, or fresh ones for each run [run].",
)


def _effort(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how each cell of the matrix is run."""
    for option in (
        click.option("--daemon", default="", metavar="COMMAND", help="Another daemon than this checkout's."),
        click.option("--tell-side-delay", is_flag=True, help="A tells its daemon how long the side channel takes."),
        click.option("--timeout-ms", default=10000, show_default=True, help="What the applications ask for."),
        click.option("--parallel", default=4, show_default=True, help="How many runs of a cell are open at a time."),
        click.option("--runs", default=20, show_default=True, help="In each cell."),
        click.option("--jobs", default=JOBS, show_default=True, help="How many labs at a time."),
    ):
        command = option(command)
    return command


def _made(*, daemon: str, **more: Any) -> Effort:
    return Effort(daemon=tuple(daemon.split()) or DAEMON, **more)


@click.command()
@click.option("--kinds", "kinds_text", default="", metavar="K,K,...", help="Instead of all.")
@click.option("--techniques", default="", metavar="T,T,...", help="Instead of auto and each technique.")
@click.option("--transports", default="tcp,udp", show_default=True, metavar="T,T", help="Of auto, and to choose by.")
@click.option("--json", "path", required=True, type=click.Path(path_type=Path), help="Cells go here as they are done.")
@click.option("--resume", is_flag=True, help="Keep the file's cells, and leave out those that have as many runs.")
@click.option("--draw", metavar="OUT", type=click.Path(path_type=Path), help="Draw the file when all is done.")
@click.option("--delay-ms", default=0.0, help="From host to host, one way.")
@click.option("--loss", default=0.0, metavar="P", help="Chance that a packet is lost, 0 to 1.")
@click.option("--hosts-conntrack", is_flag=True, help="The hosts drop INVALID themselves, as with ufw.")
@click.option("--foreign", default=cells.FOREIGN, show_default=True, help="Ports a second lost at `sequential`.")
@endpoint_option
@_effort
def matrix(
    kinds_text: str,
    techniques: str,
    transports: str,
    path: Path,
    resume: bool,
    draw: Path | None,
    delay_ms: float,
    loss: float,
    hosts_conntrack: bool,
    foreign: int,
    jobs: int,
    **effort: Any,
) -> None:
    """Every ordered pair of kinds: auto over each transport, and each technique; what came of it as JSON."""
    kinds = [_kind(kind) for kind in _list(kinds_text)] or list(pages.KINDS)
    for name, given, known in (
        ("--techniques", techniques, ("auto", *sorted(TECHNIQUES))),
        ("--transports", transports, cells.TRANSPORTS),
    ):
        if strange := set(_list(given)) - set(known):
            raise click.BadParameter(f"no {', '.join(sorted(strange))}; there are: {', '.join(known)}", param_hint=name)
    plan = Plan(
        kinds=tuple(cells.order(kinds)),
        tasks=tasks(_list(techniques) or ("auto", *sorted(TECHNIQUES)), _list(transports)),
        conditions=cells.Conditions(delay_ms=delay_ms, loss=loss, hosts_conntrack=hosts_conntrack, foreign=foreign),
        effort=_made(**effort),
    )
    _gently(lambda: run_matrix(plan, path=path, jobs=jobs, console=_console(), resume=resume))
    if draw:
        _draw(path, draw)


@click.command("record")
@click.option("--resume", is_flag=True, help="Go on with what was interrupted, or add what the record lacks.")
@_effort
def record_(jobs: int, resume: bool, **effort: Any) -> None:
    """Make docs/matrix.json, its pictures and its rows in the README anew: auto, TCP and UDP, under all conditions."""
    _gently(lambda: record.record(_made(**effort), jobs=jobs, console=_console(), resume=resume))
    record.tell()
    _draw(record.RECORD, record.RECORD.with_suffix(""))


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def heatmap(path: Path, out: Path) -> None:
    """Draw a matrix: OUT.svg or OUT.png, or both where OUT ends in neither."""
    _draw(path, out)


def _draw(path: Path, out: Path) -> None:
    from . import heatmap  # matplotlib takes its time, and only who draws needs it

    found = cells.read(path)
    kinds = [out.suffix[1:]] if out.suffix[1:] in heatmap.FORMATS else heatmap.FORMATS
    for kind in kinds:
        target = out.with_suffix(f".{kind}")
        target.write_bytes(heatmap.draw(found, kind))
        print(target, file=sys.stderr)


def _console() -> Console:
    # a pipe has no width of its own
    console = Console(stderr=True)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(stderr=True, width=200)


def _gently(work: Callable[[], object]) -> None:
    """Ctrl-C, which SIGTERM is like here, is no traceback; nor is a network that could not be run."""
    heard = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        # the ones after the first, of impatience, must not disturb the clean-up
        heard.append(number)
        if len(heard) == 1:
            raise KeyboardInterrupt

    old = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        work()
    except KeyboardInterrupt:
        print("interrupted; what was done is kept, and --resume goes on", file=sys.stderr)
        raise SystemExit(130) from None
    except Broken as error:
        raise click.ClickException(f"{error}; --resume tries again") from None
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def accept(path: Path | None, **effort: Any) -> NoReturn:
    """For `lab accept --matrix`: the whole matrix, judged; it ends with status 1 on any miss."""
    misses = 0

    def work() -> None:
        nonlocal misses
        with tempfile.TemporaryDirectory(prefix="punchd-matrix-") as folder:
            target = path or Path(folder, "matrix.json")
            misses = record.accept(_made(**effort), jobs=JOBS, console=_console(), path=target)

    _gently(work)
    raise SystemExit(1 if misses else 0)


def _kind(text: str) -> str:
    try:
        return pages.check(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--kinds") from error


def _list(text: str) -> tuple[str, ...]:
    # not at the commas within sequential:step=2,foreign=20
    return tuple(filter(None, re.split(r",(?!\w+=)", text)))


COMMANDS = (matrix, record_, heatmap)
