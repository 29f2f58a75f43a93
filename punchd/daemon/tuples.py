"""The 4-tuples of all attempts: which may be taken, which are, and that the ring and the verdicts know them.
Opens no socket and knows no attempt."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from functools import partial

from punchd.daemon.clockwork import Clockwork
from punchd.daemon.held import Held
from punchd.daemon.host import Host
from punchd.edge import sockets
from punchd.words.effects import OpenPair
from punchd.words.events import IcmpSeen
from punchd.words.probing import KeptPort

GUARD_S = 1.0  # how long a handed-over socket's 4-tuple stays known to the ICMP queue


class Tuples:
    """`kept`: the ports that mappings are kept on meanwhile (edge/stun.py); they are ours, too."""

    __slots__ = ("_clock", "_clockwork", "_host", "_kept", "_ports", "_taken")

    def __init__(
        self, host: Host, kept: Collection[KeptPort], clockwork: Clockwork, *, clock: Callable[[], float]
    ) -> None:
        self._host, self._kept, self._clockwork, self._clock = host, kept, clockwork, clock
        self._taken: set[tuple[int, str, int, bool]] = set()
        self._ports: dict[int, int] = {}

    def check(self, local: str, effect: OpenPair, *, stream: bool) -> None:
        """OSError: EACCES, EADDRINUSE, or EEXIST where another attempt works on it.

        A punch must not open a local service to anybody; nor may a peer name a port of its choice.
        """
        port = effect.local_port
        if not effect.ours and port not in self._host.ports:
            raise OSError(errno.EACCES, f"port {port} is outside of the punch range {self._host.ports}")
        if stream and self._is_held(local, effect):  # a UDP socket's own bind tells
            raise OSError(errno.EADDRINUSE, f"port {port} is in use on this host")
        if (port, effect.remote_address, effect.remote_port, stream) in self._taken:
            raise OSError(errno.EEXIST, "another attempt works on this 4-tuple")

    def take(self, held: Held) -> None:
        """The ring tells of it from here on. Of several pairs on one port the last is told of segments from another
        port of the peer's: they are for the verdict alone."""
        self._host.flows.watch(held.aim(), held.token)
        self._taken.add((held.local[1], *held.remote, held.stream))
        self._ports[held.local[1]] = self._ports.get(held.local[1], 0) + 1

    def let_go(self, held: Held) -> None:
        """We hold nothing of it any more. It may be taken again now, or once its socket has been guarded."""
        guarded_until = 0.0 if held.given_at is None else held.given_at + GUARD_S
        if guarded_until > self._clock():
            # a primer's time-exceeded that comes late must not become the application's SO_ERROR
            self._clockwork.set(guarded_until, partial(self._forget, held))
        else:
            self._forget(held)
        left = self._ports.get(held.local[1], 1) - 1
        if left:
            self._ports[held.local[1]] = left
        else:
            self._ports.pop(held.local[1], None)

    def _forget(self, held: Held) -> None:
        if held.flow is not None:
            self._host.flows.unwatch(held.flow, held.token)
        self._taken.discard((held.local[1], *held.remote, held.stream))

    def noted(self, held: Held) -> IcmpSeen | None:
        """Who first let a packet of this pair die since we were last asked. A fan has too many to ask."""
        note = None if held.flow is None else self._host.flows.take_note(held.flow)
        return None if note is None else IcmpSeen(held.pair, *note)

    def _is_held(self, local: str, effect: OpenPair) -> bool:
        port = effect.local_port
        if self._host.diag is not None:
            return self._host.diag.holds((local, port), (effect.remote_address, effect.remote_port))
        ours = port in self._ports or KeptPort("tcp", local, port) in self._kept
        return not ours and not sockets.is_free(port)
