"""One caller's connection: its open requests, and what each of them is told.
Knows no packets and no sockets: attempts are the driver's.

What goes well is logged at level debug: two lines for each of thousands of punches a second would cost more than the
punches' segments do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from punchd.core.attempt import Attempt
from punchd.daemon.admission import ENDPOINTS, Admission
from punchd.daemon.blame import Blame
from punchd.daemon.driver import Driver
from punchd.daemon.endpoint import Search
from punchd.daemon.run import Run
from punchd.edge.connection import Connection
from punchd.wire import replies
from punchd.wire.descriptor import encode_descriptor
from punchd.wire.peer import decode_second, encode_notification, encode_second
from punchd.words.addresses import Endpoint
from punchd.words.errors import Bug, Code, PeerError, PunchdError, RequestError
from punchd.words.events import CallHeard, Cancelled
from punchd.words.hops import Reach, Way
from punchd.words.nat import Descriptor
from punchd.words.notification import Notification, SecondMessage
from punchd.words.outcomes import Failed, Progress, Punched
from punchd.words.probing import Finding, KeptPort, Observation
from punchd.words.requests import Cancel, FindEndpoint, Initiate, Notify, Ping, Request, Respond, Status

log: Any = structlog.get_logger()

_ADVICE = {str(code): code.advice for code in Code}


class Service(Protocol):
    """What a session has its requests done by; daemon/service.py is it."""

    loop: asyncio.AbstractEventLoop
    admission: Admission
    blame: Blame
    driver: Driver
    kept: set[KeptPort]
    pong: bytes

    def launch(self, attempt: Attempt, call: Call) -> Run: ...
    def ended(self, call: Call) -> None: ...
    def find(self, name: str, uid: int) -> Call | EndpointCall | None: ...
    def status(self) -> dict[str, Any]: ...


class Session:
    """The requests of one connection. Ids are the caller's, and free again after the final reply."""

    __slots__ = ("_open", "_service", "connection", "log")

    def __init__(self, service: Service, connection: Connection) -> None:
        self._service, self.connection = service, connection
        self.log: Any = log.bind(uid=connection.credentials.uid)
        self._open: dict[str, Call | EndpointCall] = {}

    def handle(self, request: Request) -> None:
        """Act on one request; every failure becomes its final line."""
        if request.id in self._open:
            self._refuse(request.id, RequestError(Code.ID_IN_USE, f"request {request.id!r} is still open"))
            return
        try:
            _CALLS[type(request)](self, request)
        except PunchdError as error:
            self._refuse(request.id, error)
        except Exception as error:  # a Bug of ours ends this request, and no other
            log.exception("bug", id=request.id)
            self._refuse(request.id, Bug(Code.INTERNAL, f"punchd failed: {error!r}"))

    def half_closed(self) -> None:
        """No more requests will come: the connection goes when the last open one has ended."""
        if not self._open:
            self.connection.finish()

    def closed(self) -> None:
        """The caller is gone: all its attempts are cancelled."""
        for call in list(self._open.values()):
            call.cancel(Code.CANCELLED)

    def ended(self, id_: str) -> None:
        """A request had its final line."""
        self._open.pop(id_, None)
        if self.connection.half_closed and not self._open:
            self.connection.finish()

    def calls(self) -> list[Call | EndpointCall]:
        """All that is open."""
        return list(self._open.values())

    def runs(self) -> list[tuple[Call, Run]]:
        """The open attempts."""
        return [(call, call.run) for call in self._open.values() if isinstance(call, Call) and call.run is not None]

    def endpoints(self) -> list[EndpointCall]:
        """The open `endpoint` requests."""
        return [call for call in self._open.values() if isinstance(call, EndpointCall)]

    def _initiate(self, request: Initiate) -> None:
        self._start(
            request.id,
            request.secret,
            lambda: self._service.admission.initiating(request, self.connection.credentials.uid),
        )

    def _respond(self, request: Respond) -> None:
        self._start(
            request.id,
            request.secret,
            lambda: self._service.admission.responding(request, self.connection.credentials.uid),
        )

    def _start(self, id_: str, secret: bytes | None, make: Callable[[], Attempt]) -> None:
        service, uid = self._service, self.connection.credentials.uid
        service.admission.enter(uid)
        try:
            attempt = make()
        except Exception:
            service.admission.leave(uid)
            raise
        call = Call(self, id_, uid, secret)
        self._open[id_] = call
        call.run = service.launch(attempt, call)
        self.log.debug("attempt began", attempt=call.name, role=type(attempt).__name__, remote=attempt.remote)
        if self.connection.closed:  # the attempt's first words found nobody to hear them
            service.driver.feed(call.run, Cancelled(Code.CANCELLED))

    def _endpoint(self, request: FindEndpoint) -> None:
        service, uid = self._service, self.connection.credentials.uid
        service.admission.enter(uid, ENDPOINTS)
        try:
            probes = service.admission.probing(request)
            peer = service.admission.sounding(request)
        except PunchdError:
            service.admission.leave(uid, ENDPOINTS)
            raise
        call = EndpointCall(self, request.id, uid)
        self._open[request.id] = call
        call.begin(Search(service.loop, probes, service.admission.ports, call, kept=service.kept, peer=peer))

    def _notify(self, request: Notify) -> None:
        attempt = self._attempt(request.attempt)
        attempt.hear(decode_second(request.notification, attempt.secret))
        self._answer(request.id)

    def _cancel(self, request: Cancel) -> None:
        call = self._open.get(request.attempt)
        if call is None and "/" in request.attempt:
            call = self._service.find(request.attempt, self.connection.credentials.uid)
        if call is None or not call.cancel(Code.CANCELLED):
            self._answer(request.id, ended=True)
            return
        self._answer(request.id)

    def _status(self, request: Status) -> None:
        self._answer(request.id, **self._service.status())

    def _ping(self, request: Ping) -> None:
        self.connection.send(replies.ok_ready(request.id, self._service.pong))

    def _attempt(self, id_: str) -> Call:
        call = self._open.get(id_)
        if not isinstance(call, Call):
            raise RequestError(Code.NO_SUCH_ATTEMPT, f"this connection has no open attempt {id_!r}")
        return call

    def _answer(self, id_: str, **more: Any) -> None:
        self.connection.send(replies.ok(id_, **more))

    def _refuse(self, id_: str, error: PunchdError) -> None:
        self.log.info("refused", id=id_, code=error.code, message=error.message)
        self.connection.send(replies.error(id_, error))


class Call:
    """One open attempt as its caller hears of it; the driver's `Caller`."""

    __slots__ = ("_asking", "_ended", "_told", "alone", "id", "log", "name", "run", "secret", "session", "uid")

    def __init__(self, session: Session, id_: str, uid: int, secret: bytes | None) -> None:
        self.session, self.id, self.uid, self.secret = session, id_, uid, secret
        self.run: Run | None = None
        """None until the attempt has taken its first step, and once all is said: it knows us, and such a circle waits
        for the collector, which hundreds of attempts do not wake."""
        self._told = self._asking = self._ended = self.alone = False
        self.log = session.log
        self.name = f"{session.connection.number}/{id_}"
        """What the log and `status` call it: the connection's number and the caller's id."""

    def hear(self, message: SecondMessage) -> None:
        """The peer's second message. PeerError: it is not of this attempt."""
        if self.run is None or self.run.attempt.terms.nonce != message.nonce:
            raise PeerError(
                Code.NOTIFICATION_BROKEN, f"the second message is not of attempt {self.id!r}",
                advice="hand each second message to the attempt whose notification the peer responded to",
            )  # fmt: skip
        if not self.run.attempt.terms.initiating:
            raise RequestError(Code.BAD_VALUE, f"attempt: {self.id!r} responds; second messages are for initiators")
        self.session._service.driver.feed(self.run, CallHeard(message))

    def cancel(self, code: Code) -> bool:
        """End it; its final line says `code`. False: it has not begun."""
        if self.run is None:
            return False
        self.session._service.driver.feed(self.run, Cancelled(code))
        return True

    def notification(self, notification: Notification) -> None:
        text = encode_notification(notification, self.secret)
        self.session.connection.send(replies.progress(self.id, "notify", notification=text), at_once=self.alone)

    def call_back(self, message: SecondMessage) -> None:
        text = encode_second(message, self.secret)
        self.session.connection.send(replies.progress(self.id, "notify", notification=text), at_once=self.alone)

    def progress(self, progress: Progress) -> None:
        failed = None
        if progress.code is not None:
            failed = Failed(progress.code, progress.message or "", "")
            self.log.debug("technique failed", attempt=self.name, technique=progress.technique, code=progress.code)
        line = replies.progress(self.id, progress.stage, technique=progress.technique, failed=failed)
        self.session.connection.send(line, droppable=True)

    def early(self, fd: int, technique: str, local: str, remote: str) -> None:
        line = replies.progress(self.id, "early", technique=technique, fds=1, local=local, remote=remote)
        self.session.connection.send(line, fd, at_once=self.alone)
        self.log.debug("handed over early", attempt=self.name, technique=technique)

    def punched(self, outcome: Punched, fd: int | None) -> None:
        remote = str(outcome.remote)
        line = replies.punched(
            self.id, technique=outcome.technique, local=str(outcome.local), remote=remote,
            rtt_ms=outcome.rtt_ms, elapsed_ms=outcome.elapsed_ms, tries=outcome.tries,
            fds=0 if fd is None else 1,
        )  # fmt: skip
        self.session.connection.send(line, fd, at_once=self.alone)
        self.log.debug("punched", attempt=self.name, technique=outcome.technique, remote=remote)
        self._final()
        self._remember(ok=True)

    def failed(self, outcome: Failed) -> None:
        blame = self.session._service.blame
        if self.run is not None and blame.concerns(outcome):
            self._asking = True
            blame.find(self.run.attempt, outcome, self._say_failed)
        else:
            self._say_failed(outcome)

    def _say_failed(self, outcome: Failed) -> None:
        self._asking = False
        self.log.info("failed", attempt=self.name, code=outcome.code, cause=outcome.cause)
        advice = outcome.advice or _ADVICE.get(outcome.code, "")
        failed = Failed(outcome.code, outcome.message, advice, outcome.cause)
        self.session.connection.send(replies.error(self.id, failed))
        self._final()
        if outcome.code not in (Code.CANCELLED, Code.SHUTTING_DOWN):
            self._remember(ok=False)
        if self._ended:
            self.run = None

    def _remember(self, *, ok: bool) -> None:
        if self.run is not None:
            self.session._service.admission.ended(self.uid, self.run.attempt, ok=ok)

    def ended(self) -> None:
        self._ended = True
        self._final()
        self.session._service.ended(self)
        if not self._asking:
            self.run = None

    def _final(self) -> None:
        if not self._told and not self._asking:
            self._told = True
            self.session.ended(self.id)


class EndpointCall:
    """One open `endpoint` request as its caller hears of it; the search's `Seeker`."""

    __slots__ = ("_search", "_told", "id", "log", "session", "uid")

    _search: Search

    def __init__(self, session: Session, id_: str, uid: int) -> None:
        self.session, self.id, self.uid = session, id_, uid
        self._told = False
        self.log: Any = log.bind(endpoint=self.name, uid=uid)

    @property
    def name(self) -> str:
        return f"{self.session.connection.number}/{self.id}"

    def begin(self, search: Search) -> None:
        self._search = search
        search.begin()

    def cancel(self, code: Code) -> bool:
        """End it; its final line says `code`."""
        self._search.stop()
        self._final(replies.error(self.id, RequestError(code, "the endpoint is no longer looked for or kept")))
        return True

    def asks(self, transport: str, local: Endpoint, server: Endpoint, now: float) -> None:
        self.session._service.admission.recent.asks(transport, local, server, now)

    def sounds(self, local: str, now: float) -> None:
        self.session._service.admission.recent.sounds(local, now)

    def observed(self, observation: Observation) -> None:
        self.session._service.admission.observed(observation)
        self.session.connection.send(replies.observed(self.id, observation), droppable=True)

    def lost(self, transport: str) -> None:
        self.log.info("mapping lost", transport=transport)
        self.session.connection.send(replies.lost(self.id, transport), droppable=True)

    def found(
        self, descriptor: Descriptor | None, findings: list[Finding], way: Way, reach: Reach | None, *, kept: bool
    ) -> None:
        if descriptor is None:
            servers = len(findings[0].silences)
            message = f"no STUN server answered; {servers} {'was' if servers == 1 else 'were'} asked"
            self._final(replies.error(self.id, PeerError(Code.NO_ANSWER, message, cause=replies.verdicts(findings))))
            return
        publics = {finding.transport: str(finding.face.public) for finding in findings if finding.face is not None}
        self.log.info("endpoint found", kept=kept, ttl=descriptor.ttl, **publics)
        admission = self.session._service.admission
        admission.networks.learn(descriptor.host, descriptor.ttl)
        descriptor = admission.describing(descriptor)
        report = replies.report(findings, host=descriptor.host, way=way, reach=reach)
        line = replies.found(self.id, encode_descriptor(descriptor), report, kept=kept)
        if kept:
            self.session.connection.send(line)
        else:
            self._final(line)

    def broke(self, error: Exception) -> None:
        self._final(replies.error(self.id, Bug(Code.INTERNAL, f"punchd failed: {error!r}")))

    def _final(self, line: bytes) -> None:
        if not self._told:
            self._told = True
            self.session.connection.send(line)
            self.session._service.admission.leave(self.uid, ENDPOINTS)
            self.session.ended(self.id)


# of the class, not of each session: a session that knew its own methods would wait for the collector
_CALLS: dict[type[Request], Callable[[Session, Any], None]] = {
    Initiate: Session._initiate, Respond: Session._respond, Notify: Session._notify, Cancel: Session._cancel,
    FindEndpoint: Session._endpoint, Status: Session._status, Ping: Session._ping,
}  # fmt: skip
