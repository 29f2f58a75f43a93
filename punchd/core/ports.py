"""Draws the ports of both sides so that no 4-tuple is used twice.
Binds nothing: whether a port is free is the edge's to find out."""

from __future__ import annotations

from typing import Protocol

from punchd.words.addresses import CONNECT_PORTS, LISTEN_PORTS, PortRange

RUN_SHIFT = 32
"""Of a seed: above are the place of the first port of ours, below is chance."""


class Dice(Protocol):
    """Chance, given from outside; random.Random and secrets.SystemRandom fit."""

    def randrange(self, stop: int, /) -> int: ...


class Ports:
    """Walks all pairs (own port, peer's port) of two ranges before any comes again.

    State that an attempt leaves in a NAT blocks its 4-tuple (a tracked SYN stays 120 s), hence the walk; it
    starts at a random place so that a restarted daemon does not meet the tuples of its former life. It strides:
    neighbours may all be a fan's, and who draws again because a port is taken must get out of those.
    """

    __slots__ = ("_connect", "_counters", "_dice", "_listen", "_offsets", "_run")

    def __init__(self, dice: Dice, connect: PortRange = CONNECT_PORTS, listen: PortRange = LISTEN_PORTS) -> None:
        self._connect, self._listen, self._dice = connect, listen, dice
        self._counters = [dice.randrange(len(connect)), dice.randrange(len(listen))]
        self._offsets = [dice.randrange(len(connect)), dice.randrange(len(connect))]
        self._run = dice.randrange(len(connect))

    def draw(self, *, own_listens: bool = False, peer_listens: bool = False) -> tuple[int, int]:
        """The next (own, peer's) ports; the port of the one who listens comes from the listeners' range."""
        if peer_listens:
            listener, other = self.draw(own_listens=True)
            return other, listener
        own, kind = (self._listen, 1) if own_listens else (self._connect, 0)
        size = len(own)
        turn, place = divmod(self._counters[kind], size)
        self._counters[kind] += 1
        peer = (self._offsets[kind] + turn + place * 7919) % len(self._connect)
        return own.low + place * _STRIDE % size, self._connect.low + peer

    def seed(self, count: int) -> int:
        """What the ports of a fan are drawn from (core/lanes.py): `count` of ours in all, behind the last fan's.

        Where a NAT counts, a hole that is missing moves all later ones; so fans that are open together share no port.
        """
        begin, self._run = self._run, (self._run + count) % len(self._connect)
        return begin << RUN_SHIFT | self._dice.randrange(1 << RUN_SHIFT)


_STRIDE = 3571  # a prime that divides no range of ours: the walk visits every port before any again
