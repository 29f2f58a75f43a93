"""Runs attempts: feeds each its events, performs its effects by table, arms its one timer.
Decides nothing: what to do next is the core's, who may ask is admission's.

One driver serves all attempts. The path of news: ring, queue or socket -> token -> (run, pair) -> Attempt.step ->
effects -> the table below -> edges. A failed effect comes back as an EffectFailed event before the next one is
performed for that pair.
"""

from __future__ import annotations

import asyncio
import errno
import math
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import structlog

from punchd.core.attempt import Attempt
from punchd.core.budget import Budget
from punchd.daemon.clockwork import EARLY_S, Clockwork
from punchd.daemon.fans import Fans, is_of_use
from punchd.daemon.held import Held
from punchd.daemon.host import FLOWS, Host
from punchd.daemon.recent import Recent
from punchd.daemon.run import Caller, Journal, Run, effect_failed, event_of, packet_refused
from punchd.daemon.saying import FULL_TTL, Said, Saying
from punchd.daemon.tuples import Tuples
from punchd.edge import native, sockets
from punchd.edge.records import Seen, SeenIcmp
from punchd.words import effects as do
from punchd.words import events as seen
from punchd.words.errors import Code
from punchd.words.outcomes import Failed, Punched
from punchd.words.probing import KeptPort

log: Any = structlog.get_logger()

ASK_AGAIN_S = 0.002
QUIET_S = 0.0001  # after so long without an event, the next attempt to have one is taken to be alone in the loop's turn
FAR_S = 1.0  # by which an alarm may be too early; to be rung for nothing costs more than to be set anew
PAIRS_MAX = FLOWS * 3 // 8  # two flows each; beyond that the table's chains grow long


class Driver:
    """Performs effects for all attempts of the daemon on the host's shared descriptors."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, host: Host, budget: Budget, *, recent: Recent,
        kept: Collection[KeptPort] = (), clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._loop, self._host, self._budget, self._kept, self._clock = loop, host, budget, kept, clock
        self._clockwork = Clockwork(loop, clock)
        self._fans = Fans(loop, host, budget, clock=clock, recent=recent)
        self._saying = Saying(host.raw, self._refused)
        self._tokens: dict[int, tuple[Run, Held]] = {}
        self._tuples = Tuples(host, kept, self._clockwork, clock=clock)
        self._next_token = 1
        self._busy_until = 0.0
        self._sole: Run | None = None
        self.runs: set[Run] = set()
        self._table: dict[type[Any], Callable[[Run, Any], None]] = {
            do.OpenPair: self._open_pair, do.OpenFan: self._open_fan, do.Adopt: self._adopt, do.Connect: self._connect,
            do.Abort: self._abort, do.Listen: self._listen, do.Materialise: self._materialise,
            do.AskKernel: self._ask_kernel, do.OpenDatagram: self._open_datagram, do.SetTtl: self._set_ttl,
            do.Resend: self._resend, do.Inject: self._inject, do.Tell: self._tell, do.Clear: self._clear,
            do.ClosePair: self._close_pair, do.HandOver: self._hand_over, do.Finish: self._finish,
            do.Notify: lambda run, effect: run.caller.notification(effect.notification),
            do.CallBack: lambda run, effect: run.caller.call_back(effect.message),
            do.Report: lambda run, effect: run.caller.progress(effect.progress),
            do.Spray: lambda run, new: self._fans.spray(run.held[new.pair], new, run.caller.uid, run.inbox.append),
            do.Locate: lambda run, new: self._fans.locate(run.held[new.pair], new, run.inbox.append),
        }  # fmt: skip
        if host.ring is not None:
            loop.add_reader(host.ring.fileno(), self._drain_ring)
        if host.queue is not None:
            loop.add_reader(host.queue.fileno(), host.queue.read)

    # -- what admission and the edges call -----------------------------------------------------------------------

    def launch(self, attempt: Attempt, caller: Caller, journal: Journal | None = None) -> Run:
        """Begin an attempt; its caller hears everything else."""
        run = Run(attempt, caller, journal)
        self.runs.add(run)
        self._guarded(run, self._begin)
        return run

    def feed(self, run: Run, event: seen.Event) -> None:
        """Step the attempt with this event and with all that its effects bring about."""
        run.inbox.append(event)
        if not (run.busy or run.broken):  # else called from within a step of the same run, which goes on with it
            self._guarded(run, self._work_off)

    def close(self, code: Code) -> None:
        """End every attempt and let go of the shared descriptors' readers."""
        for run in list(self.runs):
            self.feed(run, seen.Cancelled(code))
        for edge in (self._host.ring, self._host.queue):
            if edge is not None:
                self._loop.remove_reader(edge.fileno())

    def _guarded(self, run: Run, work: Callable[[Run], None]) -> None:
        now = self._clock()
        self._sole = run if now > self._busy_until + QUIET_S or self._sole is run else None
        run.busy, run.caller.alone = True, self._sole is run
        run.muted = self._budget.overdrawn_until > now and not self._pays(run)
        try:
            work(run)
        except Exception as error:  # a Bug of ours ends this attempt, and no other
            log.exception("bug", attempt=run.caller.name)
            run.broken = True
            run.caller.failed(Failed(Code.INTERNAL, f"punchd failed: {error!r}", Code.INTERNAL.advice))
        run.busy = False
        if run.arriving or run.dying:
            self._pays(run)
        if run.broken or run.attempt.done:
            self._end(run)
            self._sole = None  # what has ended is kept by nobody
        else:
            self._arm(run)
        self._busy_until = self._clock()

    def _pays(self, run: Run) -> bool:
        """For what has been sent since it last paid. Whether it may send more."""
        now, uid, arriving, dying = self._clock(), run.caller.uid, run.arriving, run.dying
        run.arriving = run.dying = 0
        good = True
        for target in run.attempt.targets:
            good = self._budget.charge(target, uid, arriving, dying, now) and good
        return good

    def _begin(self, run: Run) -> None:
        effects = run.attempt.begin()
        if run.journal is not None:
            run.journal.step(None, run.attempt.now, run.attempt.state.name, effects)
        self._perform(run, effects)
        if run.attempt.terms.initiating:  # whoever responds has nothing to say first
            run.inbox.append(seen.Settled())
        self._work_off(run)

    def _work_off(self, run: Run) -> None:
        while run.inbox and not run.attempt.done:
            event = run.inbox.popleft()
            if isinstance(event, _MAY_END):
                self._tell_notes(run)
            self._step(run, event)

    def _step(self, run: Run, event: seen.Event) -> None:
        now = self._clock()
        if isinstance(event, seen.DeadlinePassed):  # told too early, it would be told again until it is not
            deadline = run.attempt.deadline
            now = deadline if deadline is not None and now < deadline <= now + EARLY_S else now
        effects = run.attempt.step(event, now)
        if run.journal is not None:
            run.journal.step(event, now, run.attempt.state.name, effects)
        self._perform(run, effects)

    def _tell_notes(self, run: Run) -> None:
        """Who let our packets die: evidence that nobody needs before it may come to a verdict."""
        for held in list(run.held.values()):
            noted = self._tuples.noted(held)
            if noted is not None:
                self._step(run, noted)

    def _perform(self, run: Run, effects: list[do.Effect]) -> None:
        failed: set[int] = set()
        for effect in effects:
            if (failed or run.muted) and self._is_passed_over(run, effect, failed):
                continue
            try:
                self._table[type(effect)](run, effect)
            except OSError as error:
                pair: int | None = getattr(effect, "pair", None)
                if pair is None or isinstance(effect, do.Clear):
                    continue
                if (lost := packet_refused(effect, error)) is not None:
                    run.inbox.append(lost)
                    continue
                failed.add(pair)
                run.inbox.append(effect_failed(pair, effect, error))

    def _is_passed_over(self, run: Run, effect: do.Effect, failed: set[int]) -> bool:
        """Its pair has failed in this step, or it would send and may not."""
        if getattr(effect, "pair", None) in failed:
            return not isinstance(effect, do.ClosePair | do.HandOver)
        if run.muted and isinstance(effect, do.Connect):
            failed.add(effect.pair)
            run.inbox.append(effect_failed(effect.pair, effect, OSError(errno.EDQUOT, _OVERDRAWN)))
            return True
        return run.muted and isinstance(effect, do.Tell | do.Resend)

    def _arm(self, run: Run) -> None:
        deadline, alarm = run.attempt.deadline, run.alarm
        if deadline is None or (alarm is not None and alarm.at <= deadline < alarm.at + FAR_S):
            return  # an earlier alarm finds out by itself that it came too early
        run.alarm = self._clockwork.set(deadline, partial(self._on_alarm, run))
        if alarm is not None:
            alarm.cancel()

    def _on_alarm(self, run: Run) -> None:
        run.alarm = None
        # what has happened comes before what has not
        if self._is_due(run) and (not self._drain_ring() or self._is_due(run)):
            for held in run.held.values():  # made without a handshake: watched once COMMIT is late, for few need it
                if held.stream and held.sock is not None and not held.watched:
                    self._watch_stream(run, held)
            self.feed(run, seen.DeadlinePassed())
        else:
            self._arm(run)

    def _is_due(self, run: Run) -> bool:
        deadline = run.attempt.deadline
        return deadline is not None and deadline <= self._clock() + EARLY_S

    def _end(self, run: Run) -> None:
        if run not in self.runs:
            return
        self.runs.discard(run)
        for held in list(run.held.values()):
            self._let_go(run, held)
        if run.alarm is not None:
            run.alarm.cancel()
        if run.journal is not None:
            run.journal.close()
        run.caller.ended()

    def _drain_ring(self) -> bool:
        """Feed what the ring has seen. Whether there was any."""
        records = self._host.ring.drain() if self._host.ring is not None else []
        if records and records[0].token == records[-1].token:
            self._tell_heard(records)  # whose answer waits for nothing
        elif records:
            self._busy_until, self._sole = math.inf, None
            with self._saying.gathered():
                self._tell_heard(records)
        return bool(records)

    def _refused(self, run: Run, effect: Said, error: OSError) -> None:
        if isinstance(effect, do.Tell):
            self.feed(run, packet_refused(effect, error) or effect_failed(effect.pair, effect, error))

    def _tell_heard(self, records: Sequence[Seen | SeenIcmp]) -> None:
        for record in records:
            if (known := self._tokens.get(record.token)) is None:
                continue
            run, held = known
            if held.fan is not None and not is_of_use(record):
                continue
            self.feed(run, event_of(held.pair, record))

    # -- effects, in the order of words/effects.py ---------------------------------------------------------------

    def _open_pair(self, run: Run, effect: do.OpenPair) -> None:
        stream = effect.technique != "udp"
        self._tuples.check(run.attempt.local, effect, stream=stream)
        if len(self._tokens) >= PAIRS_MAX:
            raise OSError(errno.ENFILE, f"{PAIRS_MAX} pairs are open already")
        held = Held(
            effect.pair, self._next_token, run.attempt.local, effect.local_port, effect.remote_address,
            effect.remote_port, stream=stream,
        )  # fmt: skip
        self._tuples.take(held)
        self._enter(run, held)

    def _enter(self, run: Run, held: Held) -> None:
        self._next_token += 1
        self._tokens[held.token] = (run, held)
        run.held[held.pair] = held

    def _open_fan(self, run: Run, effect: do.OpenFan) -> None:
        if len(self._tokens) >= PAIRS_MAX:
            raise OSError(errno.ENFILE, f"{PAIRS_MAX} pairs are open already")
        held = Held(
            effect.pair, self._next_token, run.attempt.local, 0, effect.remote_address, 0, stream=not effect.tag
        )
        self._fans.open(held, effect, caller=run.caller.uid, report=lambda event: self.feed(run, event))
        self._enter(run, held)

    def _adopt(self, run: Run, effect: do.Adopt) -> None:
        held = run.held[effect.pair]
        self._fans.adopt(held, effect)
        self._tuples.take(held)
        if held.sock is not None:
            self._loop.add_reader(held.sock, self._on_datagram, run, held)
            held.watched = True

    def _connect(self, run: Run, effect: do.Connect) -> None:
        held = run.held[effect.pair]
        able = "repair" in self._host.able
        run.count(effect.ttl)
        self._fans.maps(held)
        held.sock = sockets.connecting(held.local, held.remote, effect.ttl, force_port=able, stubborn=effect.stubborn)
        held.stubborn = effect.stubborn
        self._loop.add_writer(held.sock, self._on_writable, run, held)
        held.watched = True

    def _abort(self, run: Run, effect: do.Abort) -> None:
        held = run.held[effect.pair]
        if held.sock is not None:
            self._loop.remove_writer(held.sock)
            held.sock.close()
            held.sock = None

    def _listen(self, run: Run, effect: do.Listen) -> None:
        held = run.held[effect.pair]
        held.listener = sockets.listening(held.local, held.remote[0], effect.ttl)
        self._loop.add_reader(held.listener, self._on_acceptable, run, held)

    def _materialise(self, run: Run, effect: do.Materialise) -> None:
        held = run.held[effect.pair]
        assert held.flow is not None
        held.sock = sockets.materialised(held.flow, snd_nxt=effect.snd_nxt, rcv_nxt=effect.rcv_nxt)
        held.fresh = True

    def _ask_kernel(self, run: Run, effect: do.AskKernel) -> None:
        held = run.held.get(effect.pair)
        if held is None:
            return
        if held.sock is None or sockets.has_heard(held.sock):  # given early: it is the application's to listen
            self.feed(run, seen.KernelHeard(held.pair))
        else:  # the ring is ahead of the stack by microseconds, or a rule of this host's is in the way for good
            self._loop.call_later(ASK_AGAIN_S, self._ask_kernel, run, effect)

    def _open_datagram(self, run: Run, effect: do.OpenDatagram) -> None:
        held = run.held[effect.pair]
        shared = KeptPort("udp", *held.local) in self._kept
        held.sock, held.tag = sockets.datagram(held.local, held.remote, shared=shared), effect.tag
        self._loop.add_reader(held.sock, self._on_datagram, run, held)
        held.watched = True

    def _set_ttl(self, run: Run, effect: do.SetTtl) -> None:
        held = run.held[effect.pair]
        if held.sock is not None:
            sockets.set_ttl(held.sock, effect.ttl)
            held.fresh = False

    def _resend(self, run: Run, effect: do.Resend) -> None:
        if self._host.raw is not None:
            run.count(effect.ttl)
            self._host.raw.send([native.retouch(effect.segment, effect.ttl or FULL_TTL)])

    def _inject(self, run: Run, effect: do.Inject) -> None:
        assert self._host.raw is not None
        held, syn = run.held[effect.pair], effect.syn
        self._host.raw.send([
            native.Segment(
                src=held.remote[0], dst=held.local[0], src_port=held.remote[1], dst_port=held.local[1],
                seq=syn.seq, window=syn.window, flags=native.FLAG_SYN, mss=syn.mss, window_scale=syn.window_scale,
                sack_permitted=syn.sack_permitted, timestamps=None if syn.timestamp is None else (syn.timestamp, 0),
            )
        ])  # fmt: skip

    def _tell(self, run: Run, effect: do.Tell) -> None:
        held = run.held.get(effect.pair)
        if held is None:
            return
        if not held.stream:
            run.count(effect.ttl)
            if held.sock is not None:
                assert held.tag is not None
                sockets.send_datagram(held.sock, held.tag + bytes([effect.signal]), effect.ttl)
        else:
            self._saying.say(run, held, effect)
        self._fans.maps(held)

    def _clear(self, run: Run, effect: do.Clear) -> None:
        held = run.held.get(effect.pair)
        if held is not None and held.fan is not None and held.stream:
            self._fans.clear(held, effect)
        elif held is not None and held.stream:
            self._saying.say(run, held, effect)

    def _close_pair(self, run: Run, effect: do.ClosePair) -> None:
        if (held := run.held.get(effect.pair)) is not None:
            self._let_go(run, held)

    def _hand_over(self, run: Run, effect: do.HandOver) -> None:
        held = run.held[effect.pair]
        try:
            fd = self._take_socket(held)
        except OSError as error:
            cause = {effect.technique: {"what": str(error)}}
            run.caller.failed(Failed(Code.HOST_REFUSED, "the socket could not be handed over", "", cause))
            return
        if effect.early:
            run.caller.early(fd, effect.technique, held.local_name, held.remote_name)
        else:
            assert effect.outcome is not None
            run.caller.punched(effect.outcome, fd)

    def _finish(self, run: Run, effect: do.Finish) -> None:
        if isinstance(effect.outcome, Punched):
            run.caller.punched(effect.outcome, None)
        else:
            run.caller.failed(effect.outcome)

    # -- sockets ---------------------------------------------------------------------------------------------------

    def _ring_first(self, held: Held) -> bool:
        """What the ring holds came before the socket's news (core/attempt.py). Whether the pair survived reading it."""
        self._drain_ring()
        return held.sock is not None or held.listener is not None

    def _on_writable(self, run: Run, held: Held) -> None:
        if not self._ring_first(held):
            return
        assert held.sock is not None
        self._loop.remove_writer(held.sock)
        failure = sockets.failure(held.sock)
        if failure:
            self.feed(run, seen.SocketFailed(held.pair, failure))
            return
        if held.stubborn:
            sockets.drop_filter(held.sock)
        self._watch_stream(run, held)
        self.feed(run, seen.Connected(held.pair))

    def _on_acceptable(self, run: Run, held: Held) -> None:
        if not self._ring_first(held):
            return
        assert held.listener is not None
        sock = sockets.accept(held.listener, held.remote)
        if sock is None:
            return
        self._loop.remove_reader(held.listener)
        held.listener.close()
        held.listener, held.sock = None, sock
        self._watch_stream(run, held)
        self.feed(run, seen.Connected(held.pair))

    def _watch_stream(self, run: Run, held: Held) -> None:
        """The initiator takes stream data as the responder's choice; the responder needs no such hint, unless timed."""
        if run.attempt.heeds_data:
            assert held.sock is not None
            self._loop.add_reader(held.sock, self._on_stream_readable, run, held)
            held.watched = True

    def _on_stream_readable(self, run: Run, held: Held) -> None:
        if not self._ring_first(held):
            return
        assert held.sock is not None
        self._loop.remove_reader(held.sock)
        failure = sockets.failure(held.sock)
        self.feed(run, seen.SocketFailed(held.pair, failure) if failure else seen.Readable(held.pair))

    def _on_datagram(self, run: Run, held: Held) -> None:
        idle = True
        while held.sock is not None and held.tag is not None:
            signal = sockets.read_tagged(held.sock, held.tag)
            if signal in tuple(seen.Signal):
                self.feed(run, seen.SignalSeen(held.pair, seen.Signal(signal), held.local[1], held.remote[1]))
            elif signal == sockets.STRANGER:
                self._loop.remove_reader(held.sock)
                self.feed(run, seen.Readable(held.pair))
                return
            elif signal == sockets.REFUSED or (idle and signal is None):  # libuv stops at POLLERR, whoever reads it
                self._loop.remove_reader(held.sock)
                self._loop.add_reader(held.sock, self._on_datagram, run, held)
            if signal is None:
                return
            idle = False

    def _take_socket(self, held: Held) -> int:
        assert held.sock is not None
        self._unwatch(held)
        if not held.fresh:
            sockets.restore(held.sock, held.tag)
        sock, held.sock, held.given_at = held.sock, None, self._clock()
        return sock.detach()

    def _unwatch(self, held: Held) -> None:
        if held.sock is not None and held.watched:
            self._loop.remove_writer(held.sock)
            self._loop.remove_reader(held.sock)

    def _let_go(self, run: Run, held: Held) -> None:
        """Close what the pair holds without a packet, forget its 4-tuple."""
        self._unwatch(held)
        if held.sock is not None:
            sock, held.sock = held.sock, None
            if held.stream and "repair" in self._host.able:
                sockets.close_silently(sock)
            else:
                sock.close()
        if held.listener is not None:
            self._loop.remove_reader(held.listener)
            held.listener.close()
            held.listener = None
        self._tokens.pop(held.token, None)
        del run.held[held.pair]
        if held.fan is not None:
            self._fans.close(held)
            return
        self._tuples.let_go(held)


_MAY_END = (seen.DeadlinePassed, seen.SocketFailed, seen.EffectFailed)
_OVERDRAWN = "this address has had more packets than the budget allows"
