"""The lab's command line: ./dev lab COMMAND.

It refuses to compute: pair, accept and demo have their own files. What is about the matrix is matrix_cli.py's.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from . import matrix_cli, namespace, pages
from .accept import accept as run_table
from .demo import ACTS
from .demo import demo as play
from .pair import DAEMON, PRIVILEGES, Pair, Result
from .search import DEPTH, Discipline, ladder, short
from .search import search as search_orders
from .topology import Lab


def _kind(text: str) -> str:
    try:
        return pages.check(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _pair(kind_a: str, kind_b: str) -> None:
    try:
        pages.check_pair(kind_a, kind_b)
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


for command in matrix_cli.COMMANDS:
    main.add_command(command)


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
    print("same:KIND, on both sides, is one box that both stand behind: same:linux, or linux/same:linux:hairpin=1")


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
@matrix_cli.endpoint_option
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
    endpoint: str,
    privileges: str,
    daemon: str,
    logs: Path | None,
    as_json: bool,
    quiet: bool,
    **network: Any,
) -> None:
    """Punch with one technique, or a list, and count what came of it."""
    _pair(kind_a, kind_b)
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
                endpoint=endpoint,
                watch=_watch,
            )
    print(file=sys.stderr)
    if as_json:
        print(json.dumps(result.summary()))
    else:
        _tell(result)


@main.command()
@click.option("--runs", default=20, show_default=True, help="In each cell.")
@click.option("--only", default="", metavar="WORDS", help="Only cells whose line holds all these words.")
@click.option("--daemon", default="", metavar="COMMAND", help="Another daemon than this checkout's.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the daemons' logs here.")
@click.option("--matrix", "whole", is_flag=True, help="The whole matrix instead, against docs/matrix.json.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="With --matrix: keep and resume its cells here.")
def accept(runs: int, only: str, daemon: str, logs: Path | None, whole: bool, path: Path | None) -> None:
    """Run the acceptance table: wanted beside measured; status 1 on any miss."""
    if whole:
        matrix_cli.accept(path, daemon=daemon, runs=runs)
    misses = run_table(runs=runs, only=only, daemon=daemon.split() or list(DAEMON), logs=logs)
    raise SystemExit(1 if misses else 0)


@main.command()
@click.argument("techniques", nargs=-1, type=click.Choice([act.technique for act in ACTS]))
@click.option("--daemon", default="", metavar="COMMAND", help="Another daemon than this checkout's.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the daemons' logs here.")
def demo(techniques: tuple[str, ...], daemon: str, logs: Path | None) -> None:
    """Each technique in turn, or those named, and a table of what happened; status 1 if one did not connect."""
    raise SystemExit(play(techniques, daemon=daemon.split() or DAEMON, logs=logs))


@main.command()
@click.argument("kind_a", type=_kind, required=False)
@click.argument("kind_b", type=_kind, required=False)
@click.option("--transport", type=click.Choice(["tcp", "udp"]), help="Both, if it is not said.")
@click.option("--discipline", type=click.Choice([each.name.lower() for each in Discipline]), help="When A may send.")
@click.option("--depth", default=DEPTH, show_default=True, help="Packets before data flows, at most.")
@click.option("--handshake", is_flag=True, help="Only what sockets can do without TCP_REPAIR.")
def search(
    kind_a: str | None, kind_b: str | None, transport: str | None, discipline: str | None, depth: int, handshake: bool
) -> None:  # fmt: skip
    """The shortest order of packets that lets data pass both modelled NATs; without kinds, a line for each pair."""
    disciplines = (Discipline[discipline.upper()],) if discipline else tuple(Discipline)
    if "same:" in f"{kind_a} {kind_b}":
        raise click.BadParameter("the search knows only NATs that stand apart")
    many = kind_a is None or kind_b is None
    for protocol in (transport,) if transport else ("tcp", "udp"):
        for a in (kind_a,) if kind_a else pages.KINDS:
            for b in (kind_b,) if kind_b else pages.KINDS:
                found = search_orders(a, b, protocol, disciplines=disciplines, depth=depth, handshake=handshake)
                line = f"{protocol}  {a:16} {b:16} {found.discipline.name.lower():8} {short(found)}"
                print(line if many else f"{ladder(found)}\n")


@main.command()
@click.argument("kind_a", type=_kind)
@click.argument("kind_b", type=_kind)
@_network
def up(kind_a: str, kind_b: str, quiet: bool, **network: Any) -> None:
    """Build a lab, say how to enter it, and keep it until Ctrl-C."""
    _pair(kind_a, kind_b)
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
