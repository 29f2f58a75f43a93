"""punchctl: the command-line client of the punchd on this host.
It refuses to know anything that punchd did not say; what it prints is what the socket answers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from punchd.client import Attempt, NoDaemon, Punched, PunchFailed, connect, connect_blocking
from punchd.doctor import doctor
from punchd.meeting import Meeting, MeetingError, address_of
from punchd.netcheck import netcheck

_CHUNK_LEN = 65_536

_socket_option = click.option("--socket", "path", metavar="PATH", help="punchd's socket [PUNCHD_SOCKET]")
_json_option = click.option("--json", "as_json", is_flag=True, help="print the answer as JSON")


@click.command()
@_socket_option
@_json_option
def ping(path: str | None, as_json: bool) -> None:
    """What can work on this host, and what is missing."""
    with connect_blocking(path) as daemon:
        _show(daemon.ping(), as_json=as_json)


@click.command()
@_socket_option
@_json_option
def status(path: str | None, as_json: bool) -> None:
    """What runs."""
    with connect_blocking(path) as daemon:
        _show(daemon.status(), as_json=as_json)


@click.command()
@_socket_option
@_json_option
@click.argument("attempt")
def cancel(path: str | None, as_json: bool, attempt: str) -> None:
    """End an attempt, named as `punchctl status` lists it."""
    with connect_blocking(path) as daemon:
        _show({"attempt": attempt} | daemon.cancel(attempt), as_json=as_json)


@click.command()
@_socket_option
@click.option("--rendezvous", metavar="HOST:PORT", required=True, help="a server like examples/rendezvous.py")
@click.option("--name", required=True, help="our name there")
@click.option("--peer", help="the peer's name there; with --listen: accept nobody else")
@click.option("--listen", is_flag=True, help="wait to be called")
@click.option("--technique", "techniques", multiple=True, help="instead of auto; may be repeated, in order")
@click.option("--timeout-ms", type=int, help="for the attempt, once it has begun")
@click.option("--verbose", "-v", is_flag=True, help="tell on stderr how it goes")
def cat(
    path: str | None,
    rendezvous: str,
    name: str,
    peer: str | None,
    listen: bool,
    techniques: tuple[str, ...],
    timeout_ms: int | None,
    verbose: bool,
) -> None:
    """Netcat through a punched connection; also for ssh -o ProxyCommand."""
    host, _, port = rendezvous.rpartition(":")
    if not host or not port.isdecimal():
        raise click.BadParameter("it is HOST:PORT", param_hint="--rendezvous")
    if listen and techniques:
        raise click.UsageError("the one who calls names the techniques: no --technique with --listen")
    if not listen and peer is None:
        raise click.UsageError("name the --peer, or --listen")

    async def punch() -> Punched:
        async with Meeting(host, int(port), name) as meeting, connect(path) as daemon:
            if listen or peer is None:
                told = await meeting.hear()
                while peer not in (None, told.sender):
                    told = await meeting.hear()
                partner = told.sender
                attempt = await daemon.respond(told.notification, from_=[address_of(told.seen)], timeout_ms=timeout_ms)
            else:
                partner = peer
                attempt = await daemon.initiate(
                    peer=address_of(await meeting.find(peer)),
                    self_=address_of(meeting.you),
                    techniques=techniques or None,
                    timeout_ms=timeout_ms,
                )
            return await _result(attempt, meeting, partner, verbose=verbose)

    punched = asyncio.run(punch())
    if verbose:
        click.echo(f"{punched.technique}: {punched.local} to {punched.remote}", err=True)
    _pump(punched.socket)


@click.command()
@click.argument("journal", type=click.Path(exists=True, dir_okay=False))
def replay(journal: str) -> None:
    """Play a journal of `punchd --journal FOLDER` again, packet by packet."""
    # a program of its own: it needs the core, and what asks a daemon does without
    os.execv(sys.executable, [sys.executable, "-m", "punchd.replay", journal])


COMMANDS: tuple[click.Command, ...] = (ping, status, doctor, netcheck, cancel, cat, replay)


@click.group(commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="punchd")
def cli() -> None:
    """Ask the punchd on this host."""


def main() -> None:
    """The console script: failures in a line each, with what would help."""
    try:
        cli()
    except PunchFailed as failed:
        click.echo(f"punchctl: {failed.code}: {failed.message}", err=True)
        if failed.advice:
            click.echo(f"          {failed.advice}", err=True)
        sys.exit(1)
    except (NoDaemon, MeetingError, BrokenPipeError, ConnectionResetError) as error:
        click.echo(f"punchctl: {error}", err=True)
        sys.exit(2)


async def _result(attempt: Attempt, meeting: Meeting, partner: str, *, verbose: bool) -> Punched:
    """Carry messages both ways until the attempt ends."""
    carrying = asyncio.create_task(_carry_in(attempt, meeting, partner), name="carry in")
    try:
        async for progress in attempt:
            if verbose:
                click.echo(" ".join(filter(None, (progress.stage, progress.technique, progress.code))), err=True)
            if progress.notification:
                await meeting.tell(partner, progress.notification)
        return await attempt.result()
    finally:
        carrying.cancel()


async def _carry_in(attempt: Attempt, meeting: Meeting, partner: str) -> None:
    """The peer may answer with a notification of its own."""
    while True:
        told = await meeting.hear()
        if told.sender == partner:
            await attempt.notify(told.notification)


def _pump(sock: socket.socket) -> None:
    """stdin to the socket in a thread, the socket to stdout here.

    When the peer has said all, our reader is told so, and what stdin still holds goes out; only a person at a
    terminal is not waited for.
    """
    sock.setblocking(True)
    inward = threading.Thread(target=_pump_in, args=(sock,), name="stdin", daemon=True)
    inward.start()
    while chunk := sock.recv(_CHUNK_LEN):
        view = memoryview(chunk)
        while view:
            view = view[os.write(sys.stdout.fileno(), view) :]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    if not sys.stdin.isatty():
        inward.join()


def _pump_in(sock: socket.socket) -> None:
    try:
        while chunk := os.read(sys.stdin.fileno(), _CHUNK_LEN):
            sock.sendall(chunk)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the peer takes no more; the reading side says the rest


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    """Plain values aligned first, then each list of records as a table."""
    if as_json:
        click.echo(json.dumps(answer))
        return
    console = Console(highlight=False, soft_wrap=True)
    plain = Table.grid(padding=(0, 2))
    for key, value in answer.items():
        if not _is_records(value):
            plain.add_row(key, _spell(value))
    console.print(plain)
    for key, value in answer.items():
        if _is_records(value):
            console.print(_records(key, value))


def _is_records(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(record, dict) for record in value)


def _records(title: str, records: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for record in records for key in record))
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for record in records:
        table.add_row(*(_spell(record.get(column, "")) for column in columns))
    return table


def _spell(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(_spell(item) for item in value) or "none"
        case dict():
            return ", ".join(f"{key} {_spell(item)}" for key, item in value.items()) or "none"
        case _:
            return str(value)
