"""The command line of the daemon: `punchd`, or `python -m punchd`.
Parses options and sets up the log; daemon/service.py does the rest."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from typing import Any

import click

from punchd import __version__
from punchd.core.budget import Limit
from punchd.daemon.config import DEFAULT_SOCKET, HOLE_TTL, HOLE_TTL_MAX, Config
from punchd.words.addresses import Endpoint
from punchd.words.errors import PunchdError


@click.command(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PUNCHD"})
@click.option("--socket", default=DEFAULT_SOCKET, show_default=True, help="Path of the Unix socket.")
@click.option("--group", default=None, help="Members of this group may call, besides root and the daemon's own user.")
@click.option("--hole-ttl", default=None, show_default=f"as found, else {HOLE_TTL}",
              type=click.IntRange(1, HOLE_TTL_MAX),
              help="Hops after which a primer dies: past the own NATs, short of the peer's.")  # fmt: skip
@click.option("--network-memory", "network_memory_s", default=3600.0, show_default=True, type=click.FloatRange(0),
              metavar="SECONDS", help="How long the TTL that `endpoint` found in a network is believed.")  # fmt: skip
@click.option("--public", default=None, metavar="ADDRESS", help="This host's public address, if it never changes.")
@click.option("--allow-private", is_flag=True, help="Let private addresses be targets (peers in the same network).")
@click.option("--attempts-per-uid", default=20_000, show_default=True, type=click.IntRange(1),
              help="Open attempts that one user may have.")  # fmt: skip
@click.option("--stun", multiple=True, metavar="ADDRESS[:PORT]", callback=lambda _, __, texts: _endpoints(texts),
              help="A STUN server for `endpoint` requests that name none; up to 8.")  # fmt: skip
@click.option("--keepalive", "keepalive_s", default=15.0, show_default=True, type=click.FloatRange(0.2, 3600),
              metavar="SECONDS", help="How often a kept endpoint's mapping is refreshed.")  # fmt: skip
@click.option("--endpoints-per-uid", default=32, show_default=True, type=click.IntRange(1),
              help="Open `endpoint` requests that one user may have.")  # fmt: skip
@click.option("--target-budget", default="2000/1200", show_default=True, metavar="RATE/BURST",
              callback=lambda _, __, text: _limit(text),
              help="Packets per second that may reach one address, and how many at once after a rest.")  # fmt: skip
@click.option("--caller-budget", default="8000/4800", show_default=True, metavar="RATE/BURST",
              callback=lambda _, __, text: _limit(text),
              help="The same of all packets for one user, those included that die on their way.")  # fmt: skip
@click.option("--host-budget", default="16000/9600", show_default=True, metavar="RATE/BURST",
              callback=lambda _, __, text: _limit(text),
              help="The same for all users together.")  # fmt: skip
@click.option("--journal", default=None, metavar="FOLDER", help="Write one journal per attempt into this folder.")
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
@click.version_option(__version__, prog_name="punchd")
def main(log_level: str, **options: Any) -> None:
    """Hole punching as a service: serve applications on a Unix socket."""
    _set_up_log(log_level)
    for package in ("aioice", "pyroute2"):
        _spare_init(package)
    from punchd.daemon import service  # the C module and the libraries load only when they are to be used

    try:
        service.run(Config(**options))
    except PunchdError as error:
        click.echo(f"punchd: {error.message}\n        {error.advice}", err=True)
        sys.exit(1)


def _endpoints(texts: tuple[str, ...]) -> tuple[Endpoint, ...]:
    try:
        return tuple(Endpoint.parse(text) for text in texts)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _limit(text: str) -> Limit:
    rate, slash, burst = text.partition("/")
    if not (slash and rate.isdecimal() and burst.isdecimal() and int(rate) and int(burst)):
        raise click.BadParameter(f"{text!r} is not like 2000/1200")
    return Limit(float(rate), int(burst))


def _spare_init(package: str) -> None:
    """Let its modules be imported without its __init__, which imports all of them: a third of the time to start."""
    spec = importlib.util.find_spec(package)
    if spec is not None and package not in sys.modules:
        sys.modules[package] = importlib.util.module_from_spec(spec)


def _structlog() -> Any:
    """Without rich, which it would load to draw tracebacks: a daemon's log has none, and each start would wait."""
    spared = "rich" not in sys.modules
    if spared:
        sys.modules["rich"] = None  # type: ignore[assignment]  # the way to say that there is none
    import structlog

    if spared:
        del sys.modules["rich"]
    return structlog


def _set_up_log(level: str) -> None:
    structlog = _structlog()
    human = sys.stderr.isatty()
    # a console draws the trace of a bug by itself; without one it must be put into words, or the log has none
    last = [structlog.dev.ConsoleRenderer()] if human else [
        structlog.processors.format_exc_info, structlog.processors.JSONRenderer()
    ]  # fmt: skip
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not human),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    os.umask(0o077)
    main()
