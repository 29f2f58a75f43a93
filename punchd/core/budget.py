"""How many packets may leave: towards one address, for one caller, and from this host as a whole.
Sends and counts nothing by itself; the driver asks before a burst and tells what else has left.

Token buckets. A burst of a fan (core/fan.py) leaves only if all buckets hold it: `take` says how long to wait. What the
other techniques send is told afterwards by `charge`, for it is a handful per attempt and must not wait; it may overdraw
the target's bucket by OVERDRAFT times its burst, and beyond that nothing is sent there at all. So in any t seconds one
address is sent at most

    rate * t + burst                    packets by fans,
    rate * t + (1 + OVERDRAFT) * burst  packets in all,

but for one step of an attempt and what the kernel repeats of a SYN by itself. Packets that are meant to die on
their way count for the caller and the host, not for the target.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

import msgspec

OVERDRAFT = 10
REMEMBERED = 65_536  # buckets: those that have stood still longest are full again, so nothing is lost with them

K = TypeVar("K")

_INSTANT_S = 1e-6  # what rounding may leave of a wait


class Limit(msgspec.Struct, frozen=True, gc=False):
    """`rate` packets a second, and `burst` at once after a rest."""

    rate: float
    burst: int


class Limits(msgspec.Struct, frozen=True, gc=False):
    """The defaults stay below what home routers are made for: a thousand new connections at once, as a browser with
    many tabs opens after a restart, and two thousand a second after that, in tables of 16 384 entries and more."""

    target: Limit = Limit(2000.0, 1200)
    caller: Limit = Limit(8000.0, 4800)
    host: Limit = Limit(16_000.0, 9600)


class Budget:
    """All buckets of one daemon."""

    __slots__ = ("_callers", "_host", "_limits", "_targets", "overdrawn_until")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._host = _Bucket(limits.host)
        self._targets: OrderedDict[str, _Bucket] = OrderedDict()
        self._callers: OrderedDict[int, _Bucket] = OrderedDict()
        self.overdrawn_until = 0.0
        """From then on every target may be sent to, if nothing else leaves."""

    def take(self, target: str, caller: int, count: int, now: float, *, dies: bool) -> float:
        """Seconds until so many packets may leave; 0: they may now, and are paid for."""
        buckets = [self._host, _find(self._callers, caller, self._limits.caller)]
        if not dies:
            buckets.append(_find(self._targets, target, self._limits.target))
        wait_s = max(bucket.wait_s(count, now) for bucket in buckets)
        if wait_s < _INSTANT_S:
            for bucket in buckets:
                bucket.level -= count
            return 0.0
        return wait_s

    def charge(self, target: str, caller: int, arriving: int, dying: int, now: float) -> bool:
        """So many packets have left. Whether more may."""
        bucket = _find(self._targets, target, self._limits.target)
        bucket.spend(arriving, now)
        if arriving or dying:
            for other in (self._host, _find(self._callers, caller, self._limits.caller)):
                other.spend(arriving + dying, now)
                if other.level < other.floor:
                    other.level = other.floor
        if bucket.level > bucket.floor:
            return True
        self.overdrawn_until = max(self.overdrawn_until, now + (bucket.floor - bucket.level) / bucket.rate + _INSTANT_S)
        return False


class _Bucket:
    __slots__ = ("at", "burst", "floor", "level", "rate")

    def __init__(self, limit: Limit) -> None:
        self.rate, self.burst, self.level, self.at = limit.rate, limit.burst, float(limit.burst), 0.0
        self.floor = -OVERDRAFT * limit.burst

    def spend(self, count: int, now: float) -> None:
        level = self.level + (now - self.at) * self.rate
        self.level, self.at = (level if level < self.burst else self.burst) - count, now

    def wait_s(self, count: int, now: float) -> float:
        """A burst larger than the bucket leaves when that is full."""
        self.spend(0, now)
        return (min(count, self.burst) - self.level) / self.rate


def _find(buckets: OrderedDict[K, _Bucket], key: K, limit: Limit) -> _Bucket:
    bucket = buckets.get(key)
    if bucket is None:
        bucket = buckets[key] = _Bucket(limit)
        if len(buckets) > REMEMBERED:
            buckets.popitem(last=False)
    else:
        buckets.move_to_end(key)
    return bucket
