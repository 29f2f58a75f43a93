"""The lanes of a fan, round by round: which pairs of local and remote port a technique of many 4-tuples sends on.
Sends nothing and waits for nothing; core/fan.py does.

A lane is a local port and a remote one. Of the two spreads that a fan is made of, one normally has a single port. A
spread with a `first` of 0 is drawn, and drawn anew for each round, all from one seed: so a journal that holds the seed
holds them all. A spread with a `first` is the same in every round.

Many ports of ours towards one port leave in one burst: where a NAT counts, no other fan may come in between.
"""

from __future__ import annotations

from itertools import islice, product

from punchd.core.ports import RUN_SHIFT
from punchd.words.addresses import CONNECT_PORTS, PortRange
from punchd.words.notification import SPREAD_MAX, Spread

Lane = tuple[int, int]
Burst = tuple[Lane, ...]

ROUNDS = 3  # with fresh ports: 1 - 0.017^3 of all attempts meet
LANES_MAX = SPREAD_MAX  # of one round
BURST = 64
MEETS_MAX = 512
"""Mappings by which a NAT that counts is brought to an appointed port."""
PUBLIC_PORTS = PortRange(1024, 65535)  # where NATs that draw at random put what came from a port above 1023


class Rounds:
    """One fan's lanes, what was sent on them and when, and the one that was chosen."""

    __slots__ = ("_own", "_run", "_sent", "_to", "chosen", "seed")

    def __init__(self, own: Spread, aims: Spread, seed: int) -> None:
        self._own, self._to, self.seed = own, aims, seed
        self._run: list[int] = []
        self._sent: list[tuple[float, int, Burst]] = []
        self.chosen: Lane | None = None

    def bursts(self, number: int) -> list[Burst]:
        """The lanes of this round, in portions; after the last round the first one comes again."""
        turn = number % ROUNDS
        own = self._run or _named(self._own) or _drawn_run(self._own.count, self.seed, turn)
        aims = _named(self._to) or _drawn(self._to.count, self.seed, turn)
        lanes = list(islice(product(own, aims), LANES_MAX))
        size = max(BURST, len(own)) if len(aims) == 1 else BURST
        return [tuple(lanes[at : at + size]) for at in range(0, len(lanes), size)]

    def widen(self, count: int) -> None:
        """So many ports of ours from now on, neighbours, and the same ones in each round."""
        self._run = _drawn_run(count, self.seed, 0)

    def aim(self, port: int) -> None:
        """All at this port from now on."""
        self._to = Spread(port)

    def note(self, burst: Burst, now: float, *, number: int = 0) -> None:
        """This burst of round `number` has left."""
        self._sent.append((now, number, burst))

    def sent_at(self, lane: Lane) -> float | None:
        """When a packet last left on this lane."""
        return next((at for at, _, burst in reversed(self._sent) if lane in burst), None)

    @property
    def number(self) -> int:
        """The round in which the first packet left on the chosen lane; 0 before there is one."""
        return next((number for _, number, burst in self._sent if self.chosen in burst), 0) if self.chosen else 0


def _named(spread: Spread) -> list[int]:
    """The ports that are named; none where they are to be drawn."""
    return [spread.first + spread.step * place for place in range(spread.count)] if spread.first else []


def _drawn_run(count: int, seed: int, turn: int) -> list[int]:
    """Neighbours, from a place that the seed names: the runs of one fan do not overlap."""
    start = (seed >> RUN_SHIFT) + turn * count
    return [CONNECT_PORTS.low + (start + place) % len(CONNECT_PORTS) for place in range(count)]


def _drawn(count: int, seed: int, turn: int) -> list[int]:
    """All over the range, none twice in all rounds. Any set is met alike by ports that a NAT draws at random."""
    start, stride = seed, 1 + _FACTORS * (1 + (seed >> 16) % _STRIDES)
    places = range(start + turn * count * stride, start + (turn + 1) * count * stride, stride)
    return [PUBLIC_PORTS.low + place % len(PUBLIC_PORTS) for place in places]


_FACTORS = 2 * 3 * 7  # of len(PUBLIC_PORTS): a stride that has none of them visits every port before any again
_STRIDES = 1500
