"""The daemon: puts host, driver, admission and the control socket together, and takes them apart in order.
Holds no state of an attempt. The only place that starts the event loop."""

from __future__ import annotations

import asyncio
import gc
import grp
import os
import resource
import secrets
import signal
import time
from typing import Any

import structlog
import uvloop

from punchd import __version__
from punchd.core.attempt import Attempt
from punchd.core.budget import Budget, Limits
from punchd.core.techniques import TECHNIQUES
from punchd.daemon.admission import Admission
from punchd.daemon.blame import Blame
from punchd.daemon.config import Config
from punchd.daemon.driver import Driver
from punchd.daemon.host import Host, open_host
from punchd.daemon.journal import Journals
from punchd.daemon.run import Run
from punchd.daemon.session import Call, EndpointCall, Session
from punchd.edge.connection import Callbacks, Connection, Credentials
from punchd.edge.control import ControlServer
from punchd.edge.sockpath import Listener, inherited, listen
from punchd.wire import api, replies
from punchd.words.errors import Code, RequestError
from punchd.words.probing import KeptPort

log: Any = structlog.get_logger()

FAREWELL_S = 0.5  # how long the last lines may take to leave at the end
FAREWELL_TURNS = 50


class Service:
    """One running daemon."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config, host: Host, listener: Listener) -> None:
        self.loop, self.config, self.host = loop, config, host
        self.started = time.monotonic()
        self.admission = Admission(config, host, secrets.SystemRandom())
        limits = Limits(config.target_budget, config.caller_budget, config.host_budget)
        self.kept: set[KeptPort] = set()
        self.driver = Driver(loop, host, Budget(limits), recent=self.admission.recent, kept=self.kept)
        self.blame = Blame(loop)
        self.pong = _pong(host)
        """What can work here, for `ping`: the same as long as the daemon runs."""
        self._journals = Journals(config.journal)
        self._admitted = _admitted_users(config)
        self._sessions: dict[int, Session] = {}
        self._punched = self._failed = 0
        self._server = ControlServer(
            loop,
            listener,
            admit=self._admit,
            callbacks=Callbacks(
                on_line=self._on_line,
                on_overlong=lambda c: c.send(replies.error(None, api.line_too_long())),
                on_descriptor=lambda c: c.send(replies.error(None, api.descriptor_refused())),
                on_half_closed=lambda c: self._session(c).half_closed(),
                on_closed=self._on_closed,
                with_dropped=replies.with_dropped,
            ),
        )

    def launch(self, attempt: Attempt, call: Call) -> Run:
        """Hand an admitted attempt to the driver."""
        return self.driver.launch(attempt, call, self._journals.open(attempt))

    def ended(self, call: Call) -> None:
        """An attempt is over, its descriptors are closed."""
        self.admission.leave(call.uid)

    def find(self, name: str, uid: int) -> Call | EndpointCall | None:
        """What `status` calls by this name, if this user may end it: its owner or root."""
        for session in self._sessions.values():
            for call in session.calls():
                if call.name == name and uid in (0, call.uid):
                    return call
        return None

    def status(self) -> dict[str, Any]:
        """What runs, for `status`."""
        attempts = []
        for session in self._sessions.values():
            for call, run in session.runs():
                attempt = run.attempt
                attempts.append(
                    {
                        "attempt": call.name,
                        "uid": call.uid,
                        "role": type(attempt).__name__.lower(),
                        "state": attempt.state.name.lower(),
                        "remote": attempt.remote,
                        "techniques": [pair.offer.technique for pair in attempt.pairs],
                        "age_ms": round((time.monotonic() - attempt.started) * 1000),
                    }
                )
        return {
            "uptime_s": round(time.monotonic() - self.started, 1),
            "callers": len(self._sessions),
            "open": len(attempts),
            "attempts": attempts[:STATUS_ATTEMPTS_MAX],
            "endpoints": [
                {"endpoint": call.name, "uid": call.uid}
                for session in self._sessions.values()
                for call in session.endpoints()
            ][:STATUS_ATTEMPTS_MAX],
            "ring_drops": 0 if self.host.ring is None else self.host.ring.drops(),
        }

    async def stop(self) -> None:
        """End all attempts, deliver the last lines, close the door."""
        self._server.stop_accepting()
        self.driver.close(Code.SHUTTING_DOWN)
        for session in list(self._sessions.values()):
            for call in session.endpoints():
                call.cancel(Code.SHUTTING_DOWN)
        for connection in list(self._server.connections.values()):
            connection.finish()
        for _ in range(FAREWELL_TURNS):
            if not self._server.connections:
                break
            await asyncio.sleep(FAREWELL_S / FAREWELL_TURNS)
        self._server.close()

    def _on_line(self, connection: Connection, line: bytes) -> None:
        request = api.decode_request(line)
        if isinstance(request, api.Refusal):
            connection.send(replies.error(request.id, request.error))
        else:
            self._session(connection).handle(request)

    def _session(self, connection: Connection) -> Session:
        session = self._sessions.get(connection.number)
        if session is None:
            session = self._sessions[connection.number] = Session(self, connection)
        return session

    def _on_closed(self, connection: Connection) -> None:
        session = self._sessions.pop(connection.number, None)
        if session is not None:
            session.closed()

    def _admit(self, credentials: Credentials) -> bytes | None:
        users, groups = self._admitted
        if credentials.uid in users or groups & {credentials.gid, *credentials.groups}:
            return None
        log.info("caller refused", uid=credentials.uid, pid=credentials.pid)
        return replies.error(
            None,
            RequestError(
                Code.NOT_PERMITTED,
                f"user {credentials.uid} may not use this punchd",
                advice="start punchd with --group GROUP and let this user join that group",
            ),
        )


STATUS_ATTEMPTS_MAX = 200
GC_YOUNG = 20_000  # objects; an attempt leaves few cycles, and the default of 700 would collect several times a punch


def _pong(host: Host) -> bytes:
    return replies.ready(
        protocol=replies.PROTOCOL,
        version=__version__,
        techniques=[name for name, technique in TECHNIQUES.items() if technique.needs <= host.able],
        descriptors_max=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        missing=[{"capability": lack.capability, "reason": lack.reason, "grant": lack.grant} for lack in host.lacks],
    )


def _admitted_users(config: Config) -> tuple[set[int], set[int]]:
    """Root, the daemon's own user and, under sudo, whoever called it; and the members of --group."""
    users = {0, os.geteuid()}
    sudo = os.environ.get("SUDO_UID", "")
    if sudo.isdigit():
        users.add(int(sudo))
    groups = set() if config.group is None else {grp.getgrnam(config.group).gr_gid}
    return users, groups


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. Raises HostError when the socket's path can't be had."""
    listener = inherited(os.environ, os.getpid()) or _listen(config)
    host = open_host(ports=config.ports)
    for lack in host.lacks:
        log.warning("capability missing", capability=lack.capability, reason=lack.reason, grant=lack.grant)
    try:
        uvloop.run(_serve(config, host, listener))
    finally:
        host.close()
        listener.close()


async def _serve(config: Config, host: Host, listener: Listener) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    service = Service(loop, config, host, listener)
    gc.freeze()  # what was loaded stays; collections need not walk it in the middle of a punch
    gc.set_threshold(GC_YOUNG, 20, 20)
    log.info("serving", socket=config.socket, version=__version__, able=sorted(host.able))
    await ended.wait()
    await service.stop()
    log.info("ended")


def _listen(config: Config) -> Listener:
    sudo = os.environ.get("SUDO_UID", "")
    owner = int(sudo) if sudo.isdigit() and os.geteuid() == 0 else None
    group = None if config.group is None else grp.getgrnam(config.group).gr_gid
    return listen(config.socket, owner=owner, group=group)
