"""Performs the effects on fans: sprays many 4-tuples at once, keeps the one that is adopted, clears the others.
Decides neither when nor where; the core's scripts do (core/fan.py). It asks the budget, and reports a refusal.

A TCP fan holds no socket: its segments are crafted, its lanes are watched in the ring, and the own kernel's answers to
what comes back are held back by rule (edge/rules.py). A UDP fan holds one socket per local port, unconnected: its lane
is found by reading. Farewells, a RST at hole range on each lane, leave in the same bursts as the spray did, after the
attempt has gone on or ended; what is left of them when the daemon ends is not sent, and the NAT's timers do it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence

from punchd.core.budget import Budget
from punchd.core.fan import PACE_S
from punchd.core.lanes import BURST, Lane
from punchd.daemon.held import Fan, Held, Report
from punchd.daemon.host import Host
from punchd.daemon.recent import Recent
from punchd.daemon.saying import FULL_TTL
from punchd.edge import native, sockets
from punchd.words import effects as do
from punchd.words import events as seen

FLOWS_MAX_SHARE = 0.75  # beyond that the flow table's chains grow long


def is_of_use(record: native.Seen | native.SeenIcmp) -> bool:
    """To a fan that has not found its lane: not its own primers, nor what the path and strangers' NATs say of them."""
    return isinstance(record, native.Seen) and not record.outgoing and not record.flags & native.FLAG_RST


class Fans:
    """All fans of the daemon."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, host: Host, budget: Budget, *, clock: Callable[[], float], recent: Recent
    ) -> None:
        self._loop, self._host, self._budget, self._clock, self._recent = loop, host, budget, clock, recent

    def open(self, held: Held, effect: do.OpenFan, *, caller: int, report: Report) -> None:
        """Take nothing yet."""
        held.fan = Fan(ours=effect.ours, caller=caller, report=report)
        held.tag = effect.tag or None

    def spray(self, held: Held, effect: do.Spray, caller: int, report: Report) -> None:
        """One burst, or Withheld. OSError: EADDRINUSE where not one of its ports is free, EACCES, EMFILE, ENFILE."""
        count = len(effect.lanes)
        wait_s = self._budget.take(held.remote[0], caller, count, self._clock(), dies=effect.ttl is not None)
        if wait_s > 0.0:
            report(seen.Withheld(held.pair, wait_s))
            return
        fan = held.fan  # what is withheld takes no ports yet: by then it may be fewer, and other fans want theirs
        lanes = effect.lanes if fan is None else self._usable(held, fan, effect.lanes)
        if fan is not None:
            self._map(held, fan, [lane for lane in lanes if lane not in fan.mapped])
        if held.stream:
            self._spray_segments(held, fan, lanes, effect)
        elif fan is not None and held.tag is not None:
            data = held.tag + bytes([effect.signal])
            for local_port, remote_port in lanes:
                sockets.send_datagram_to(fan.socks[local_port], (held.remote[0], remote_port), data, effect.ttl)

    def _map(self, held: Held, fan: Fan, lanes: Sequence[Lane]) -> None:
        last = self._recent.maps(held.transport, held.local[0], len(lanes), self._clock())
        before = last.ours - len(lanes)
        fan.mapped.update((lane, last._replace(ours=before + place)) for place, lane in enumerate(lanes, 1))

    def locate(self, held: Held, effect: do.Locate, report: Report) -> None:
        """As far as is known here; nobody is asked."""
        ahead = self._recent.ahead(held.transport, held.local[0], effect.port, self._clock())
        report(seen.Located(held.pair, False) if ahead is None else seen.Located(held.pair, True, *ahead))

    def maps(self, held: Held) -> None:
        """A packet leaves on a 4-tuple that is no fan's: the first one makes a mapping, which predictions must know."""
        if not held.mapped:
            held.mapped = True
            self._recent.maps(held.transport, held.local[0], 1, self._clock())

    def adopt(self, held: Held, effect: do.Adopt) -> None:
        """This lane is the pair's 4-tuple; its socket, on UDP, is connected. The other lanes are let go."""
        fan, address = held.fan, held.remote[0]
        assert fan is not None
        others = [lane for lane in fan.lanes() if lane != (effect.local_port, effect.remote_port)]
        sock = fan.socks.pop(effect.local_port, None)
        self.close(held)
        if effect.public and (made := fan.mapped.get((effect.local_port, effect.remote_port))) is not None:
            self._recent.tally(held.transport, held.local[0]).saw(effect.public, made)
        held.local, held.remote = (held.local[0], effect.local_port), (address, effect.remote_port)
        held.fan, held.mapped = None, True
        if sock is not None:
            self._loop.remove_reader(sock)
            held.sock = sock
            sockets.aim_datagram(sock, held.remote)
        self._farewell(others, held.local[0], address, effect.ttl, effect.seq, fan.caller)

    def clear(self, held: Held, effect: do.Clear) -> None:
        """A RST at hole range on every lane."""
        fan = held.fan
        assert fan is not None
        self._farewell(list(fan.lanes()), held.local[0], held.remote[0], effect.ttl, effect.seq, fan.caller)

    def close(self, held: Held) -> None:
        """Forget all lanes, close all sockets."""
        fan = held.fan
        assert fan is not None
        for shots, _ in fan.shots.values():
            self._host.flows.drop_shots(held.local[0], held.remote[0], shots, held.token)
        fan.shots.clear()
        for sock in fan.socks.values():
            self._loop.remove_reader(sock)
            sock.close()
        fan.socks.clear()

    # -- local ports -----------------------------------------------------------------------------------------------

    def _usable(self, held: Held, fan: Fan, lanes: tuple[Lane, ...]) -> tuple[Lane, ...]:
        for port, remote_port in lanes:
            if port not in fan.ports:
                fan.ports[port] = self._take_port(held, fan, port, remote_port)
        usable = tuple(lane for lane in lanes if fan.ports[lane[0]])
        if not usable:
            raise OSError(errno.EADDRINUSE, f"port {lanes[0][0]} is in use on this host")
        return usable

    def _take_port(self, held: Held, fan: Fan, port: int, remote_port: int) -> bool:
        """A punch must not open a local service to anybody; nor may a peer name a port of its choice."""
        if not fan.ours and port not in self._host.ports:
            raise OSError(errno.EACCES, f"port {port} is outside of the punch range {self._host.ports}")
        if not held.stream:
            return self._open_port(held, fan, port)
        if self._host.diag is not None:
            return not self._host.diag.holds((held.local[0], port), (held.remote[0], remote_port))
        return sockets.is_free(port)

    def _open_port(self, held: Held, fan: Fan, port: int) -> bool:
        try:
            sock = sockets.unaimed_datagram((held.local[0], port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        fan.socks[port] = sock
        self._loop.add_reader(sock, self._on_datagram, held, fan, sock)
        return True

    def _on_datagram(self, held: Held, fan: Fan, sock: socket.socket) -> None:
        assert held.tag is not None
        local_port = sock.getsockname()[1]
        while held.fan is fan and sock.fileno() >= 0:
            heard = sockets.read_tagged_from(sock, held.tag, held.remote[0])
            if heard is None:
                return
            signal, remote_port = heard
            if signal in _SIGNALS:
                fan.report(seen.SignalSeen(held.pair, seen.Signal(signal), local_port, remote_port))

    # -- segments --------------------------------------------------------------------------------------------------

    def _spray_segments(self, held: Held, fan: Fan | None, lanes: Sequence[Lane], effect: do.Spray) -> None:
        assert self._host.raw is not None
        shots = native.Shots([(effect.seq, effect.ack, *lane) for lane in lanes])
        count = len(lanes)
        if fan is not None:
            if len(self._host.flows) > FLOWS_MAX_SHARE * self._host.flows.capacity:
                raise OSError(errno.ENFILE, "too many 4-tuples are watched already")
            count = self._host.flows.put_shots(held.local[0], held.remote[0], shots, held.token)
            fan.shots[effect.lanes] = shots, count
        opens = bool(effect.flags & native.FLAG_SYN)  # with the options that the socket will have (repair.c)
        segment = native.Segment(
            src=held.local[0], dst=held.remote[0], src_port=0, dst_port=0, seq=0, flags=effect.flags,
            window=native.WINDOW_FIRE if opens else seen.WINDOWS[effect.signal], ttl=effect.ttl or FULL_TTL,
            mss=1360 if opens else None, window_scale=7 if opens else None, sack_permitted=opens,
        )  # fmt: skip
        self._host.raw.spray(segment, shots, count)

    def _farewell(self, lanes: Sequence[Lane], local: str, remote: str, ttl: int, seq: int, caller: int) -> None:
        """Nobody waits for it, so it waits for the budget by itself."""
        if not lanes or self._host.raw is None or self._host.raw.closed:
            return
        burst = lanes[:BURST]
        wait_s = self._budget.take(remote, caller, len(burst), self._clock(), dies=True)
        if wait_s <= 0.0:
            shots = native.Shots([(seq, 0, *lane) for lane in burst])
            reset = native.Segment(
                src=local, dst=remote, src_port=0, dst_port=0, seq=0, window=0, flags=native.FLAG_RST, ttl=ttl
            )
            try:
                self._host.raw.spray(reset, shots, len(burst))
            except OSError:
                return  # no route any more: no mapping either
            lanes = lanes[BURST:]
        self._loop.call_later(max(wait_s, PACE_S), self._farewell, lanes, local, remote, ttl, seq, caller)


_SIGNALS = frozenset(int(signal) for signal in seen.Signal)
