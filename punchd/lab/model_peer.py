"""The modelled daemon: performs one attempt's effects on a modelled kernel and feeds it what comes of them.
It refuses to decide anything; it does what daemon/driver.py does, in the same order, and counts what it holds.

News waits in two places, as in the real daemon: what the ring saw, and what sockets say. With `wake_s` 0 both are
read as soon as the kernel is idle, else after a random time; the ring first, as core/attempt.py wants it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from punchd.core.attempt import Attempt
from punchd.core.budget import Budget, Limits
from punchd.core.lanes import Lane
from punchd.core.tally import Tally
from punchd.lab.model_host import FULL_TTL, Kernel, Listener, Sighting, Tcp, Udp, from_headers, headers
from punchd.lab.model_net import Clock, Datagram, IcmpError, Segment
from punchd.words import effects as do
from punchd.words import events as seen
from punchd.words.errors import Code
from punchd.words.notification import Notification, SecondMessage
from punchd.words.outcomes import Failed, Progress, Punched

_Options = tuple[int | None, int | None, bool, int | None]
SYN_OPTIONS: _Options = (1460, 7, True, None)  # MSS, window scale, SACK permitted, timestamp of every modelled SYN
_SYN = seen.SYN
ASK_AGAIN_S = 0.002
_NO_OPTIONS: _Options = (None, None, False, None)


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A socket that an application has been given."""

    at: float
    technique: str
    local_port: int
    remote_port: int
    early: bool
    sock: Tcp | Udp


class Holding:
    """What the daemon holds for one pair: daemon/held.py's twin."""

    __slots__ = ("connected", "key", "lanes", "listener", "pair", "sock", "tag")

    def __init__(self, pair: int, stream: bool, local: int, remote: int) -> None:
        self.pair, self.key = pair, (stream, local, remote)
        self.sock: Tcp | Udp | None = None
        self.listener: Listener | None = None
        self.tag = b""
        self.connected = False
        self.lanes: dict[Lane, Udp | None] | None = None
        """A fan's, until one of them is adopted."""


Watcher = Callable[[seen.Event | None, float, list[do.Effect]], None]  # no event: the attempt's beginning


class Daemon:
    """One side's punchd with one attempt.

    `faults` maps the index of an effect to the error code with which the host refuses it.
    """

    __slots__ = (
        "_busy", "_clock", "_dice", "_drain_at", "_faults", "_inbox", "_keys", "_on_call", "_on_notify", "_on_socket",
        "_timer_at", "_wake_s", "attempt", "budget", "closed", "ended_at", "final_at", "finals", "handed", "held",
        "kernel", "opened", "performed", "progress", "step", "tally", "watcher",
    )  # fmt: skip

    def __init__(
        self, clock: Clock, kernel: Kernel, dice: random.Random, *,
        wake_s: float, faults: Mapping[int, str], on_notify: Callable[[Notification], None],
        on_call: Callable[[SecondMessage], None],
        on_socket: Callable[[Daemon, HandedOver], None],
    ) -> None:  # fmt: skip
        self._clock, self.kernel, self._dice = clock, kernel, dice
        self._wake_s, self._faults = wake_s, faults
        self._on_notify, self._on_call, self._on_socket = on_notify, on_call, on_socket
        self.attempt: Attempt | None = None
        self.budget = Budget(Limits())
        self.held: dict[int, Holding] = {}
        self._keys: dict[tuple[bool, int, int], int] = {}
        self._inbox: deque[seen.Event] = deque()
        self._busy = False
        self._drain_at = self._timer_at = -1.0
        self.watcher: Watcher | None = None
        self.progress: list[Progress] = []
        self.finals: list[Punched | Failed] = []
        self.handed: list[HandedOver] = []
        self.final_at = self.ended_at = -1.0
        self.performed = self.opened = self.closed = 0
        self.tally, self.step = Tally(), 0  # what it knows of its NAT, where that counts
        kernel.on_idle = self._wake

    @property
    def done(self) -> bool:
        """Whether the attempt is over (or never began)."""
        return self.attempt is None or self.attempt.done

    def launch(self, attempt: Attempt) -> None:
        """Begin the attempt."""
        self.attempt = attempt
        effects = attempt.begin()
        if self.watcher is not None:
            self.watcher(None, self._clock.now, effects)
        self._busy = True
        self._perform(effects)
        self._busy = False
        self.feed(seen.Settled())

    def feed(self, event: seen.Event) -> None:
        """Step the attempt with this event and all that wait behind it."""
        self._inbox.append(event)
        if not self._busy:
            self._run()

    def leaks(self) -> list[str]:
        """What is still held; nothing, once the attempt is over."""
        left = [f"pair {index} on {holding.key}" for index, holding in self.held.items()]
        given = {handed.sock for handed in self.handed}
        left += [f"{sock.state.name} {key}" for key, sock in self.kernel.streams.items()
                 if sock not in given and sock.on_news is not None]  # fmt: skip
        left += [f"listener {port}" for port in self.kernel.listeners]
        left += [f"udp {key}" for key, udp in self.kernel.datagrams.items() if udp not in given]
        if self.opened != self.closed:
            left.append(f"{self.opened} pairs opened, {self.closed} closed")
        return left

    # -- the loop ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        attempt = self.attempt
        if attempt is None:
            return
        self._busy = True
        while self._inbox and not attempt.done:
            event, now = self._inbox.popleft(), self._clock.now
            effects = attempt.step(event, now)
            if self.watcher is not None:
                self.watcher(event, now, effects)
            self._perform(effects)
            self._drain_ring()
        self._busy = False
        if attempt.done:
            self._inbox.clear()
            if self.ended_at < 0:
                self.ended_at = self._clock.now
        else:
            self._arm()

    def _wake(self) -> None:
        """The kernel has been at work."""
        if self._wake_s == 0.0:
            self._drain_ring()
            if self._inbox and not self._busy:
                self._run()
        elif self._drain_at < self._clock.now and (self._inbox or self.kernel.sights):
            self._drain_at = self._clock.now + self._wake_s * self._dice.random()
            self._clock.at(self._drain_at, self._drain)

    def _drain(self) -> None:
        """The ring before the sockets: core/attempt.py relies on it."""
        waiting, self._inbox = self._inbox, deque()
        self._drain_ring()
        self._inbox += waiting
        if not self._busy:
            self._run()

    def _drain_ring(self) -> None:
        sights = self.kernel.sights
        if not sights:
            return
        self.kernel.sights = []
        for sighting in sights:
            event = self._event(sighting)
            if event is not None:
                self._inbox.append(event)

    def _stray(self, packet: Segment, ttl: int) -> seen.Event | None:
        """csrc/frame.c, token_of_segment: from a port of the peer's that no pair knows, to one that a pair has."""
        pairs = (pair for (stream, local, _), pair in self._keys.items() if stream and local == packet.dst)
        pair = next(pairs, None)
        return None if pair is None else seen.StraySeen(pair, packet.src, packet.flags, ttl)

    def _event(self, sighting: Sighting) -> seen.Event | None:
        packet, outgoing, ttl = sighting
        if isinstance(packet, Segment):
            key = (True, packet.src, packet.dst) if outgoing else (True, packet.dst, packet.src)
            pair = self._keys.get(key)
            if pair is None:
                return None if outgoing else self._stray(packet, ttl)
            if self.held[pair].lanes is not None and (outgoing or packet.flags & seen.RST):
                return None
            options = SYN_OPTIONS if packet.flags & _SYN else _NO_OPTIONS
            return seen.SegmentSeen(
                pair, outgoing, packet.flags, packet.seq, packet.ack, packet.window, ttl, headers(packet), *options,
                *key[1:],
            )  # fmt: skip
        assert isinstance(packet, IcmpError)
        quoted = packet.quoted
        pair = self._keys.get((not isinstance(quoted, Datagram), quoted.src, quoted.dst))
        if pair is not None and self.held[pair].lanes is not None:
            return None
        return None if pair is None else seen.IcmpSeen(pair, packet.type, packet.code, packet.sender)

    def _arm(self) -> None:
        assert self.attempt is not None
        deadline = self.attempt.deadline
        if deadline is not None and not self._clock.now <= self._timer_at <= deadline:
            self._timer_at = deadline
            self._clock.at(deadline, self._on_timer, deadline)

    def _on_timer(self, at: float) -> None:
        if self.attempt is None or self.attempt.done or at != self._timer_at:
            return
        self._timer_at = -1.0
        deadline = self.attempt.deadline
        if deadline is not None and deadline <= self._clock.now:
            self._drain()  # what has happened comes before what has not
            if not self.attempt.done:
                self.feed(seen.DeadlinePassed())
        else:
            self._arm()

    # -- effects -------------------------------------------------------------------------------------------------

    def _perform(self, effects: list[do.Effect]) -> None:
        failed: set[int] = set()
        for effect in effects:
            pair: int | None = getattr(effect, "pair", None)
            if pair in failed and not isinstance(effect, do.ClosePair | do.HandOver):
                continue
            self.performed += 1
            code = self._faults.get(self.performed - 1)
            if isinstance(effect, do.HandOver) and (held := self.held.get(effect.pair)) and held.sock is None:
                code = code or Code.HOST_REFUSED
            if code is None or pair is None or isinstance(effect, do.ClosePair | do.Clear):
                self._do(effect)
            elif isinstance(effect, do.HandOver) and effect.outcome is not None:
                self._final(Failed(code, "the socket could not be handed over", ""))
            else:
                failed.add(pair)
                self._inbox.append(seen.EffectFailed(pair, type(effect).__name__, code, "as this test wants"))

    def _do(self, effect: do.Effect) -> None:
        match effect:
            case do.Tell():
                self._tell(effect)
            case do.OpenPair():
                self._open_pair(effect)
            case do.ClosePair():
                self._close_pair(effect)
            case do.OpenFan():
                self._open_fan(effect)
            case do.Spray():
                self._spray(effect)
            case do.Locate():
                self._locate(effect)
            case do.Adopt():
                self._adopt(effect)
            case do.Connect():
                holding = self.held[effect.pair]
                holding.sock = sock = self.kernel.connect(*holding.key[1:], effect.ttl, stubborn=effect.stubborn)
                sock.on_news = lambda news: self._stream_news(holding, news)
            case do.Resend():
                if self.kernel.sights is not None:
                    self.kernel.emit(from_headers(effect.segment, effect.ttl or FULL_TTL))
            case do.SetTtl():
                stream = self.held[effect.pair].sock
                if isinstance(stream, Tcp):
                    stream.ttl = effect.ttl or FULL_TTL
            case do.Materialise():
                holding = self.held[effect.pair]
                holding.sock = sock = self.kernel.establish(
                    *holding.key[1:], snd_nxt=effect.snd_nxt, rcv_nxt=effect.rcv_nxt
                )
                sock.on_news = lambda news: self._stream_news(holding, news)
            case do.AskKernel():
                self._ask_kernel(effect.pair)
            case do.Inject():
                _, local, remote = self.held[effect.pair].key
                syn = effect.syn
                self.kernel.inject(Segment(remote, local, _SYN, syn.seq, 0, syn.window, FULL_TTL))
            case do.Clear():
                closing = self.held.get(effect.pair)
                if closing is not None and closing.key[0] and self.kernel.sights is not None:
                    for local, remote in [closing.key[1:]] if closing.lanes is None else closing.lanes:
                        self.kernel.emit(Segment(local, remote, seen.RST, effect.seq, 0, 0, effect.ttl))
            case do.Abort():
                self._drop_socket(self.held[effect.pair], silently=False)
            case do.Listen():
                holding = self.held[effect.pair]
                holding.listener = listener = self.kernel.listen(holding.key[1], effect.ttl)
                listener.on_news = lambda _: self._accept(holding)
            case do.OpenDatagram():
                holding = self.held[effect.pair]
                holding.sock, holding.tag = self.kernel.datagram(*holding.key[1:]), effect.tag
                holding.sock.on_news = lambda _: self._datagram_news(holding)
            case do.HandOver():
                self._hand_over(effect)
            case do.Report():
                self.progress.append(effect.progress)
            case do.Notify():
                self._on_notify(effect.notification)
            case do.CallBack():
                self._on_call(effect.message)
            case do.Finish():
                self._final(effect.outcome)
            case _:
                assert_never(effect)

    def _open_pair(self, effect: do.OpenPair) -> None:
        holding = Holding(effect.pair, effect.technique != "udp", effect.local_port, effect.remote_port)
        assert effect.pair not in self.held, "a pair is opened twice"
        if holding.key in self._keys:
            self._inbox.append(seen.EffectFailed(effect.pair, "OpenPair", Code.PORT_TAKEN, "this 4-tuple is in use"))
            return
        self.opened += 1
        self.held[effect.pair] = holding
        self._keys[holding.key] = effect.pair

    def _open_fan(self, effect: do.OpenFan) -> None:
        assert effect.pair not in self.held, "a pair is opened twice"
        holding = self.held[effect.pair] = Holding(effect.pair, not effect.tag, 0, 0)
        holding.lanes, holding.tag = {}, effect.tag
        self.opened += 1

    def _spray(self, effect: do.Spray) -> None:
        holding, now = self.held[effect.pair], self._clock.now
        wait_s = self.budget.take("", 0, len(effect.lanes), now, dies=effect.ttl is not None)
        if wait_s:
            self._inbox.append(seen.Withheld(effect.pair, wait_s))
            return
        stream, ttl = holding.key[0], effect.ttl or FULL_TTL
        self.tally.opened(len(set(effect.lanes) - set(holding.lanes or ())), now)
        for lane in effect.lanes:
            if holding.lanes is not None and self._keys.setdefault((stream, *lane), effect.pair) == effect.pair:
                if not stream and lane not in holding.lanes:
                    sock = self.kernel.datagram(*lane)
                    sock.on_news = lambda _, sock=sock: self._lane_news(holding, sock)
                    holding.lanes[lane] = sock
                holding.lanes.setdefault(lane)
            if stream:
                window = seen.WINDOWS[seen.Signal.FIRE if effect.flags & _SYN else effect.signal]
                self.kernel.emit(Segment(*lane, effect.flags, effect.seq, effect.ack, window, ttl))
            else:
                self.kernel.emit(Datagram(*lane, holding.tag + bytes([effect.signal]), ttl))

    def _locate(self, effect: do.Locate) -> None:
        port = effect.port or (self.tally.beyond(self.step, self._clock.now) if self.step else 0)
        ahead = self.tally.ahead(port, self.step, self._clock.now) if self.step else None
        known = seen.Located(effect.pair, ahead is not None, *((*ahead, port) if ahead else ()))
        self._inbox.append(known)

    def _adopt(self, effect: do.Adopt) -> None:
        holding, lane = self.held[effect.pair], (effect.local_port, effect.remote_port)
        assert holding.lanes is not None
        sock = holding.lanes.pop(lane)
        if holding.key[0]:
            for local, remote in holding.lanes:
                self.kernel.emit(Segment(local, remote, seen.RST, effect.seq, 0, 0, effect.ttl))
        self._forget_lanes(holding)
        holding.key, holding.lanes = (holding.key[0], *lane), None
        if sock is not None:
            holding.sock = sock
            sock.on_news = lambda _: self._datagram_news(holding)

    def _forget_lanes(self, holding: Holding) -> None:
        assert holding.lanes is not None
        for lane, sock in holding.lanes.items():
            del self._keys[(holding.key[0], *lane)]
            if sock is not None:
                sock.close()

    def _lane_news(self, holding: Holding, sock: Udp) -> None:
        while sock.queue and sock.queue[0].startswith(holding.tag):
            signal = seen.Signal(sock.queue.pop(0)[-1])
            self._inbox.append(seen.SignalSeen(holding.pair, signal, sock.port, sock.remote))

    def _close_pair(self, effect: do.ClosePair) -> None:
        holding = self.held.pop(effect.pair, None)
        if holding is None:
            return
        self.closed += 1
        if holding.lanes is None:
            del self._keys[holding.key]
        else:
            self._forget_lanes(holding)
        self._drop_socket(holding, silently=self.kernel.sights is not None)
        if holding.listener is not None:
            holding.listener.close()

    def _ask_kernel(self, pair: int) -> None:
        holding = self.held.get(pair)
        if holding is None:
            return
        if isinstance(holding.sock, Tcp) and not holding.sock.heard:
            self._clock.at(self._clock.now + ASK_AGAIN_S, self._ask_kernel, pair)
        else:  # given early: it is the application's to listen
            self.feed(seen.KernelHeard(pair))

    def _drop_socket(self, holding: Holding, *, silently: bool) -> None:
        sock, holding.sock = holding.sock, None
        if isinstance(sock, Tcp) and silently:
            sock.vanish()
        elif sock is not None:
            sock.close()

    def _tell(self, effect: do.Tell) -> None:
        holding = self.held[effect.pair]
        stream, local, remote = holding.key
        if not stream:
            if isinstance(holding.sock, Udp):  # else it is the application's already
                holding.sock.send(holding.tag + bytes([effect.signal]), effect.ttl or FULL_TTL)
        elif self.kernel.sights is not None:
            window = seen.WINDOWS[effect.signal]
            ttl = effect.ttl or FULL_TTL
            self.kernel.emit(Segment(local, remote, seen.ACK, effect.seq, effect.ack, window, ttl))

    def _hand_over(self, effect: do.HandOver) -> None:
        holding = self.held[effect.pair]
        sock, holding.sock = holding.sock, None
        assert sock is not None, "there is no socket to hand over"
        sock.on_news = None
        if isinstance(sock, Tcp):
            sock.ttl = FULL_TTL
        handed = HandedOver(
            self._clock.now, effect.technique, holding.key[1], holding.key[2], effect.outcome is None, sock
        )
        self.handed.append(handed)
        if effect.outcome is not None:
            self._final(effect.outcome)
        self._on_socket(self, handed)

    def _final(self, outcome: Punched | Failed) -> None:
        self.finals.append(outcome)
        if self.final_at < 0:
            self.final_at = self._clock.now

    # -- sockets -------------------------------------------------------------------------------------------------

    def _stream_news(self, holding: Holding, news: str) -> None:
        sock = holding.sock
        assert isinstance(sock, Tcp)
        if news == "connected":
            holding.connected = True
            self._inbox.append(seen.Connected(holding.pair))
        elif news == "failed":
            if holding.connected and self.attempt is not None and not self.attempt.terms.initiating:
                return  # the driver watches a responder's connection no more; the ring tells of its RST
            self._inbox.append(seen.SocketFailed(holding.pair, sock.errno))
        elif self.attempt is not None and self.attempt.heeds_data:
            self._inbox.append(seen.Readable(holding.pair))

    def _accept(self, holding: Holding) -> None:
        listener = holding.listener
        if listener is None:
            return
        sock = listener.accepted.pop()
        if sock.remote != holding.key[2]:
            self.kernel.reset(sock)
            return
        listener.close()
        holding.listener, holding.sock = None, sock
        sock.on_news = lambda news: self._stream_news(holding, news)
        self._inbox.append(seen.Connected(holding.pair))

    def _datagram_news(self, holding: Holding) -> None:
        sock = holding.sock
        if not isinstance(sock, Udp):
            return
        while sock.queue:
            data = sock.queue[0]
            if not data.startswith(holding.tag):
                sock.on_news = None
                self._inbox.append(seen.Readable(holding.pair))
                return
            del sock.queue[0]
            self._inbox.append(seen.SignalSeen(holding.pair, seen.Signal(data[-1]), *holding.key[1:]))
