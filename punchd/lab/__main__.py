"""The lab's command line: ./dev lab COMMAND.

It refuses to compute: pair, accept and demo have their own files.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from punchd.core.techniques import TECHNIQUES

from . import cells, namespace, pages, record
from .accept import accept as run_table
from .demo import ACTS
from .demo import demo as play
from .matrix import Broken, Plan, tasks
from .matrix import matrix as run_matrix
from .pair import DAEMON, ENDPOINT, PRIVILEGES, Pair, Result
from .topology import Lab
from .worker import Effort


def _kind(text: str) -> str:
    try:
        return pages.check(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _network(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that shape the network between the hosts."""
    for option in (
        click.option("--quiet", is_flag=True, help="Don't print the commands that build the lab."),
        click.option("--pcap", "pcap_dir", type=click.Path(path_type=Path), help="Capture each place here."),
        click.option("--hosts-conntrack", is_flag=True, help="The hosts drop INVALID themselves, as with ufw."),
        click.option("--seed", default=1, show_default=True, help="Of the delay line's dice."),
        click.option("--duplicate", default=0.0, metavar="P", help="Chance that a packet comes twice."),
        click.option("--reorder", default=0.0, metavar="P", help="Chance that a packet is overtaken."),
        click.option("--loss", default=0.0, metavar="P", help="Chance that a packet is lost, 0 to 1."),
        click.option("--jitter-ms", default=0.0, help="Up to this much more delay."),
        click.option("--delay-ms", default=0.0, help="From host to host, one way; half of it to the server."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Two hosts behind two NATs in network namespaces."""


@main.command()
def kinds() -> None:
    """What stands between a host and the Internet, by name."""
    width = max(map(len, pages.KINDS))
    for kind in pages.KINDS:
        print(f"{kind:{width}}  {pages.summary(kind)}")
        if known := pages.parameters(kind):
            given = ",".join(f"{name}={value}" for name, value in known.items())
            print(f"{'':{width}}  set with {kind}:{given}")
    print("\nA/B is kind A behind kind B: linux-reject/linux")


@main.command()
@click.argument("kind_a", type=_kind)
@click.argument("kind_b", type=_kind)
@click.option("--technique", default="auto", show_default=True, metavar="NAME", help="auto, a name, or a,b,c.")
@click.option("--transport", type=click.Choice(["tcp", "udp"]), help="Told by the technique; tcp for auto.")
@click.option("--runs", default=20, show_default=True)
@click.option("--parallel", default=1, show_default=True, help="How many runs are open at a time.")
@click.option("--timeout-ms", default=10000, show_default=True, help="What the applications ask for.")
@click.option("--side-delay-ms", default=0.0, help="More one-way delay on the side channel.")
@click.option("--tell-side-delay", is_flag=True, help="A tells its daemon how long the side channel takes.")
@click.option("--early", is_flag=True, help="Take the descriptor before the proof.")
@click.option(
    "--endpoint",
    type=click.Choice(ENDPOINT[1:]),
    is_flag=False,
    flag_value="run",
    help="Ask for endpoints, and punch with descriptors: one per side at the join, or fresh ones for each run [run].",
)
@click.option("--privileges", type=click.Choice(list(PRIVILEGES)), default="root", show_default=True)
@click.option("--unprivileged", "privileges", flag_value="none", help="The same as --privileges none.")
@click.option("--daemon", default="", metavar="COMMAND", help="Another daemon than this checkout's.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the daemons' logs here.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@_network
def pair(
    kind_a: str,
    kind_b: str,
    technique: str,
    transport: str | None,
    runs: int,
    parallel: int,
    timeout_ms: int,
    side_delay_ms: float,
    tell_side_delay: bool,
    early: bool,
    endpoint: str | None,
    privileges: str,
    daemon: str,
    logs: Path | None,
    as_json: bool,
    quiet: bool,
    **network: Any,
) -> None:
    """Punch with one technique, or a list, and count what came of it."""
    with Lab(kind_a, kind_b, echo=None if quiet else namespace.show, **network) as lab:
        command = daemon.split() or None
        with Pair(lab, privileges=privileges, daemon=command, logs=logs) as ready:
            result = ready.run(
                technique,
                transport=transport,
                runs=runs,
                parallel=parallel,
                timeout_ms=timeout_ms,
                side_delay_ms=side_delay_ms,
                early=early,
                tell_side_delay=tell_side_delay,
                endpoint=endpoint or "",
                watch=_watch,
            )
    print(file=sys.stderr)
    if as_json:
        print(json.dumps(result.summary()))
    else:
        _tell(result)


def _list(text: str) -> tuple[str, ...]:
    # not at the commas within sequential:step=2,foreign=20
    return tuple(filter(None, re.split(r",(?!\w+=)", text)))


def _effort(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how each cell of the matrix is run."""
    for option in (
        click.option("--daemon", default="", metavar="COMMAND", help="Another daemon than this checkout's."),
        click.option("--tell-side-delay", is_flag=True, help="A tells its daemon how long the side channel takes."),
        click.option("--endpoint", type=click.Choice(ENDPOINT), default="", help="As with pair; empty: never."),
        click.option("--timeout-ms", default=10000, show_default=True, help="What the applications ask for."),
        click.option("--parallel", default=4, show_default=True, help="How many runs of a cell are open at a time."),
        click.option("--runs", default=20, show_default=True, help="In each cell."),
        click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="How many labs at a time."),
    ):
        command = option(command)
    return command


def _made(*, daemon: str, **more: Any) -> Effort:
    return Effort(daemon=tuple(daemon.split()) or DAEMON, **more)


@main.command()
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


@main.command("record")
@click.option("--resume", is_flag=True, help="Go on with a record that was interrupted.")
@_effort
def record_(jobs: int, resume: bool, **effort: Any) -> None:
    """Make docs/matrix.json and its pictures anew: auto, TCP and UDP, without delay and with."""
    _gently(lambda: record.record(_made(**effort), jobs=jobs, console=_console(), resume=resume))
    _draw(record.RECORD, record.RECORD.with_suffix(""))


@main.command()
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
    """Ctrl-C is no traceback, nor is a network that could not be run."""
    try:
        work()
    except KeyboardInterrupt:
        print("interrupted; what was done is kept, and --resume goes on", file=sys.stderr)
        raise SystemExit(130) from None
    except Broken as error:
        raise click.ClickException(f"{error}; --resume tries again") from None
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.option("--runs", default=20, show_default=True, help="In each cell.")
@click.option("--only", default="", metavar="WORDS", help="Only cells whose line holds all these words.")
@click.option("--daemon", default="", metavar="COMMAND", help="Another daemon than this checkout's.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the daemons' logs here.")
@click.option("--matrix", "whole", is_flag=True, help="The whole matrix instead, against docs/matrix.json.")
@click.option("--endpoint", type=click.Choice(ENDPOINT), default="", help="With --matrix, as with pair.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="With --matrix: keep and resume its cells here.")
def accept(runs: int, only: str, daemon: str, logs: Path | None, whole: bool, endpoint: str, path: Path | None) -> None:
    """Run the acceptance table: wanted beside measured; status 1 on any miss."""
    if whole:
        _accept_matrix(_made(daemon=daemon, runs=runs, endpoint=endpoint), path)
    misses = run_table(runs=runs, only=only, daemon=daemon.split() or list(DAEMON), logs=logs)
    raise SystemExit(1 if misses else 0)


def _accept_matrix(effort: Effort, path: Path | None) -> NoReturn:
    status = 0

    def work() -> None:
        nonlocal status
        with tempfile.TemporaryDirectory(prefix="punchd-matrix-") as folder:
            target = path or Path(folder, "matrix.json")
            status = record.accept(effort, jobs=os.cpu_count() or 1, console=_console(), path=target)

    _gently(work)
    raise SystemExit(1 if status else 0)


@main.command()
@click.argument("techniques", nargs=-1, type=click.Choice([act.technique for act in ACTS]))
@click.option("--daemon", default="", metavar="COMMAND", help="Another daemon than this checkout's.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the daemons' logs here.")
def demo(techniques: tuple[str, ...], daemon: str, logs: Path | None) -> None:
    """Each technique in turn, or those named, and a table of what happened; status 1 if one did not connect."""
    raise SystemExit(play(techniques, daemon=daemon.split() or DAEMON, logs=logs))


@main.command()
@click.argument("kind_a", type=_kind)
@click.argument("kind_b", type=_kind)
@_network
def up(kind_a: str, kind_b: str, quiet: bool, **network: Any) -> None:
    """Build a lab, say how to enter it, and keep it until Ctrl-C."""
    with Lab(kind_a, kind_b, echo=None if quiet else namespace.show, **network) as lab:
        for place in lab.namespaces:
            print(f"{place.address:14}  sudo ip netns exec {place.name} bash")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


@main.command()
def sweep() -> None:
    """Remove what killed lab runs left behind; runs that live are not touched."""
    namespace.remove(namespace.stale(), echo=namespace.show)


def _watch(result: Result) -> None:
    done = result.ok + max(result.causes_a.total(), result.causes_b.total())
    print(f"\r{result.a} x {result.b} {result.technique}: {result.ok} ok of {done}", end="", file=sys.stderr)


def _tell(result: Result) -> None:
    line = result.summary()
    print(f"{result.a} x {result.b}, {result.technique}: {result.ok} of {result.runs} connected")
    for side in ("a", "b"):
        time_ms = line[f"time_{side}_ms"]
        if result.ok:
            print(f"  {side.upper()}'s socket: median {time_ms['median']} ms, worst {time_ms['worst']} ms")
    for text, count in (result.failed + result.messages).most_common():
        print(f"  {count:3} x {text}")


if __name__ == "__main__":
    main()
