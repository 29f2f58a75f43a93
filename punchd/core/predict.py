"""Which public ports a NAT that counts will give to its next mappings, from a few that it gave, and how sure that is.
Knows no clock and sends nothing: times come with the samples and with the question.

Theory. Such a NAT gives each new mapping the port one step after the last one's. What is not known is how many
mappings other hosts take in between. Those come as a Poisson process over about a second (Klinec and Matyas 2014), so
between two samples of ours the number of foreign ones is the gap in steps, less one. From a few gaps the rate is known
badly: its uncertainty (Gamma, Jeffreys' prior) grows with the time since the last sample, and soon outweighs the
scatter of the process itself. How many foreign ones come until a given time is then distributed as a negative binomial.

Positions are counted in turns: turn 0 is the port after the last sample's. Turns wrap where the NAT's range ends. That
is known only if the samples themselves have wrapped; else it is taken to be 1024 to 65535.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, sqrt

import msgspec
from msgspec.structs import replace

from punchd.words.nat import Allocation, Face, Sample
from punchd.words.notification import Spread

SURE = 0.99
"""With which probability a window holds the next mapping's turn, if the NAT counts as we think."""

_FEWEST_SD = 4.0
_SURE_SD = 2.33  # the same in standard deviations, where the distribution is a bell
_NEAR = 2048  # turns; what we open in a minute
_WIDE_STEP = 64  # from here on the end of the range is always near
_LOWEST, _HIGHEST = 1024, 65535
_PRIOR_COUNT, _PRIOR_S = 0.5, 0.05  # Jeffreys; and nobody has an infinite rate
_BOUNDS = (1024, 16384, 32768, 49152, 61000, 65536)  # where ranges begin and end in the field


class Course(msgspec.Struct, frozen=True, gc=False):
    """How a NAT counts: its last known port, and how fast others make it advance.

    foreign    mappings that others took between the first sample and the last
    past_s     how long that was
    low, high  the range of its ports, both included
    """

    at_ms: float
    port: int
    step: int
    foreign: int
    past_s: float
    low: int = _LOWEST
    high: int = _HIGHEST
    wrapped: bool = False

    @property
    def rate(self) -> float:
        """Foreign mappings a second, to be expected."""
        return (self.foreign + _PRIOR_COUNT) / (self.past_s + _PRIOR_S)

    @property
    def rate_sd(self) -> float:
        """How sure the rate is."""
        return sqrt(self.foreign + _PRIOR_COUNT) / (self.past_s + _PRIOR_S)

    def port_of(self, turn: int) -> int:
        """The public port of the mapping that comes so many turns after the next one.

        A step that leaves ports out meets others after each round: a counter with its bytes swapped, as most steps of
        256 are, carries one over.
        """
        width, rising = self.high - self.low + 1, self.step > 0
        begun = self.port - self.low if rising else self.high - self.port
        rounds, offset = divmod(begun + (turn + 1) * abs(self.step), width)
        offset = (offset + (rounds if abs(self.step) > 1 else 0)) % width
        return self.low + offset if rising else self.high - offset


class Window(msgspec.Struct, frozen=True, gc=False):
    """The turns within which the next mapping will lie: from `first`, `count` of them, most likely `centre`."""

    first: int
    count: int
    centre: float
    spread: float

    @property
    def fewest(self) -> int:
        """How many foreign mappings there are for sure: none, unless the rate is known well, or the last sample old."""
        return max(0, int(self.centre - self.first - _FEWEST_SD * self.spread))


def course(samples: Sequence[Sample], step: int) -> Course | None:
    """The course behind samples in the order of time, each a mapping of its own. None: too few, or they fit no step."""
    if len(samples) < 2 or not step:
        return None
    wrapped = _wraps([sample.public_port for sample in samples], step) > 0
    low, high = range_of([sample.public_port for sample in samples], step)
    width = high - low + 1
    foreign = 0
    for earlier, later in pairwise(samples):
        gap = (later.public_port - earlier.public_port) * (1 if step > 0 else -1) % width
        foreign += max(0, gap // abs(step) - 1)
    first, last = samples[0], samples[-1]
    return Course(last.at_ms, last.public_port, step, foreign, (last.at_ms - first.at_ms) / 1000, low, high, wrapped)


def of_face(face: Face, other: Face | None = None) -> Course | None:
    """The course of a face's NAT, with the samples of the other transport where one counter serves both.

    Both transports are probed at the same time, so what is the same counter looks busy to each of them alone.
    """
    if face.nat.allocation is not Allocation.SEQUENTIAL:
        return None
    alone = course(face.samples, face.nat.step)
    if other is None or other.nat.allocation is not Allocation.SEQUENTIAL or other.nat.step != face.nat.step:
        return alone
    merged = sorted((*face.samples, *other.samples), key=lambda sample: sample.at_ms)
    together = course(merged, face.nat.step) if _in_line(merged, face.nat.step) else None
    return together if together is not None and alone is not None and together.rate < alone.rate else alone


def less_ours(
    samples: Sequence[Sample], step: int, ours: Sequence[Sample], sprayed: Callable[[Sample], int]
) -> tuple[Sample, ...]:
    """The samples as if what else we opened meanwhile had come before them: what is left in between is foreign.

    The furthest of ours becomes the last sample.

    ours     other probes' mappings at the same NAT
    sprayed  how many mappings fans of ours have made since a sample, whose ports nobody has seen
    """
    sign, own = (1 if step > 0 else -1), {sample.public_port for sample in samples}
    others = [sample for sample in ours if sample.public_port not in own]
    if not samples or not step:
        return tuple(samples)
    line = list(samples)
    ahead = [one for one in others if 0 < (one.public_port - line[-1].public_port) * sign < _NEAR * abs(step)]
    if ahead:
        newest = max(ahead, key=lambda one: one.public_port * sign)
        line.append(replace(newest, at_ms=max(newest.at_ms, line[-1].at_ms)))
    last, moved = line[-1], [line[-1]]
    for sample in reversed(line[:-1]):
        gap = (last.public_port - sample.public_port) * sign
        between = sum(0 < (one.public_port - sample.public_port) * sign < gap for one in others)
        ports = sample.public_port + step * (between + sprayed(sample) - sprayed(last))
        bound = moved[-1].public_port - step
        if gap > 0:  # else the range has ended in between, and nothing is known of what lies there
            sample = replace(sample, public_port=max(min(ports * sign, bound * sign), sample.public_port * sign) * sign)
        moved.append(sample)
    return tuple(reversed(moved))


_TURNS_MAX = 4096  # a peer's descriptor says how old it is; one from long ago must cost no more than a fresh one


def window(known: Course, *, at_ms: float, own: int = 0, slack_ms: float = 0.0) -> Window:
    """Where the next mapping made at that time lies, after `own` of ours since the last sample.

    It begins with none but ours: a quiet NAT is the commonest, and a short past overrates it.

    slack_ms  how uncertain that time is, as a standard deviation
    """
    later_s = max(0.0, at_ms - known.at_ms) / 1000
    centre = known.rate * later_s
    spread = sqrt(centre + (known.rate_sd * later_s) ** 2 + (known.rate * slack_ms / 1000) ** 2)
    return Window(own, _most(known, later_s + 2 * slack_ms / 1000) + 1, own + centre, spread)


def fan(known: Course, where: Window, *, holes: int, probes: int, sparing: bool = False) -> tuple[int, Spread]:
    """How many holes to open there, and the guesses that meet one of them, with as few packets as will do.

    sparing  with as few holes instead: the other side's NAT takes a packet from each but one of them for a stray

    So many holes in a row meet every so-manieth guess. With one guess alone the holes must fill the window, or
    its middle; so they must where guesses would wrap.
    """
    count = min(holes, max(1, 0 if sparing else ceil(sqrt(where.count)), ceil(where.count / probes)))
    many = ceil(where.count / count)
    last = (count - 1) + (many - 1) * count
    first = known.port_of(where.first + count - 1)
    stride = count * known.step
    straight = first + (many - 1) * stride == known.port_of(where.first + last) and abs(stride) < 1 << 15
    if many <= probes and straight and (known.wrapped or abs(known.step) < _WIDE_STEP):
        return count, Spread(first, many, stride) if many > 1 else Spread(first)
    count = min(holes, where.count)
    begin = min(max(where.first, round(where.centre - count / 2)), where.first + where.count - count)
    guess, narrow = begin + count - 1, replace(known, low=_below(known.port), high=_above(known.port))
    first, other = known.port_of(guess), narrow.port_of(guess)
    if probes > 1 and not known.wrapped and first != other:
        return count, Spread(first, 2, other - first)
    return count, Spread(first)


def turn_of(known: Course, port: int, most: int) -> int | None:
    """The turn in which this port comes or came, whichever is nearer; with larger steps, of so many in either way."""
    if abs(known.step) == 1:
        width = known.high - known.low + 1
        turn = ((port - known.port) * known.step - 1) % width
        return turn if turn < width // 2 else turn - width
    return next((turn for ahead in range(most) for turn in (ahead, -1 - ahead) if known.port_of(turn) == port), None)


def range_of(ports: Sequence[int], step: int) -> tuple[int, int]:
    """The NAT's range: the narrowest usual one around a wrap that was seen, else everything that may be."""
    return (_below(min(ports)), _above(max(ports))) if _wraps(ports, step) else (_LOWEST, _HIGHEST)


def _most(known: Course, later_s: float) -> int:
    """How many foreign mappings there will be at most, as sure as SURE: a quantile of the negative binomial."""
    count, past_s = known.foreign + _PRIOR_COUNT, known.past_s + _PRIOR_S
    stays = past_s / (past_s + later_s)
    chance = stays**count
    mean = known.rate * later_s
    roughly = ceil(mean + _SURE_SD * sqrt(mean + (known.rate_sd * later_s) ** 2))
    if chance < 1e-200:
        return roughly
    total, turns = chance, 0
    while total < SURE:
        if turns == _TURNS_MAX:
            return max(turns, roughly)
        chance *= (turns + count) / (turns + 1) * (1 - stays)
        turns += 1
        total += chance
    return turns


def _below(port: int) -> int:
    return max((bound for bound in _BOUNDS if bound <= port), default=_LOWEST)


def _above(port: int) -> int:
    return min(bound for bound in _BOUNDS if bound > port) - 1


def _in_line(samples: Sequence[Sample], step: int) -> bool:
    """Whether they are of one counter: never back, but for one wrap."""
    ports = [sample.public_port for sample in samples]
    residues = {port % abs(step) for port in ports}
    return len(residues) == 1 and len(set(ports)) == len(ports) and _wraps(ports, step) <= 1


def _wraps(ports: Sequence[int], step: int) -> int:
    return sum((later - earlier) * step < 0 for earlier, later in pairwise(ports))
