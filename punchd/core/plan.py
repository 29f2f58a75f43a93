"""Which techniques to try, how they open and in which order, given both NATs' classes and what this host can do.
Opens nothing and measures nothing: classes come from descriptors, and what they leave open is tried, not guessed.

Theory. A row is one technique in one opening (words/notification.py). All rows of an attempt go out in one
notification, and what they send must not spoil each other's chances:

  1. PRIMED rows come first. Nothing of the initiator's gets as far as the peer's NAT, so no NAT is given a reason to
     refuse or to punish anything; the responder's first packet finds the hole. Most pairs of NATs need no more.
  2. What begins with a full-range packet of the initiator's comes late: REFIRED, where the responder opens its own
     NAT and waits, then CROSSED, where it fires as well. The initiator bides its time until the responder calls it
     (the second message), and fires unasked only when half of its patience is over: a stray at a NAT that blocks its
     sender would end what the PRIMED rows might still have won.
     Where a PRIMED row is the only one, there is nothing to spoil: it is timed if the peer's NAT takes no harm.
  3. A NAT that keeps ports needs no more than drawn ports. One that has made an endpoint-independent mapping is
     aimed at there. One that counts is predicted (core/predict.py), one that draws is met by chance, with a fan.

A class orders: first what it says will pass, then what it leaves open, then what it says can't, since a class was
measured at another time. What would harm the others is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from punchd.core import predict
from punchd.core.lanes import MEETS_MAX
from punchd.core.prospects import OPENINGS, Prospect, prospect
from punchd.core.tally import AHEAD_MAX
from punchd.core.techniques import TECHNIQUES
from punchd.words.nat import Allocation, Dependence, NatClass
from punchd.words.notification import OFFERS_MAX, Opening, Spread
from punchd.words.plan import Lanes, Row, View

# simopen first: least privilege, and the most NATs in the field let a SYN in after a SYN out. midstream second:
# where every inbound SYN is dropped it is what passes. The rest serve the NATs that neither of them passes, direct
# last: its SYN knocks at a closed door, and a NAT may punish that.
AUTO = {
    "tcp": ("tcp-simopen", "tcp-midstream", "tcp-syni", "tcp-nutss", "tcp-direct"),
    "udp": ("udp",),
}

FIRES_UNASKED = 0.5
"""Share of the initiator's patience after which it fires though nobody has called it."""

LATE_AFTER_S = 1.5
"""How long after the notification's arrival the responder has begun the last row; core/responding.py."""

EARLY_S = 0.2
"""How long before the notification's arrival a packet leaves that is to come just after it: half a long round trip."""

_TIMELY = {"tcp-midstream", "udp"}
"""What signals on the path; a SYN that is timed would meet the peer's, and leave it open who answered whom."""

LATE_FAN_MS = 500.0
"""How long after the notification's arrival the responder begins a fan that waits; core/responding.py."""

SIDE_DELAY_S, SIDE_SPREAD_S = 0.3, 0.3  # of a side channel that nobody has measured
HOLES, PROBES = 256, 1024
GUESSES = 256
OWN_LATER, MEET_LATER = 64, 320
"""Mappings that other attempts and probes of ours make until the peer calls, and where they are fans that meet."""

WIDER = 20
"""By so many, or twice, a window is wider: by what it leaves out all fans at work would miss."""

SPARE = 3
"""Holes of a fan whose local port somebody else on this host may have."""

NEXT, NEXT_MAX = 64, 128
"""As many, before it comes from where we meet to where we meet next: more than others may have taken unseen."""

MARGIN = 32
"""Mappings that a peer may have made without our knowledge before it comes to the port where we meet."""

_LATE = {"tcp-simopen": (Opening.REFIRED,), "tcp-midstream": (Opening.REFIRED, Opening.CROSSED),
         "udp": (Opening.REFIRED, Opening.CROSSED)}  # fmt: skip
_EITHER_WAY = {"tcp-direct"}
_UNKNOWN = View()
_FANS = {"tcp": "tcp-birthday", "udp": "udp-birthday"}


class Habit(Enum):
    """How one comes to know a side's public port."""

    KEEPS = auto()
    MAPPED = auto()
    COUNTS = auto()
    DRAWS = auto()


class Times(msgspec.Struct, frozen=True, gc=False):
    """What the rows' times hang on.

    now_ms      milliseconds since 1970
    side_s      one-way delay of the side channel, if the caller knows it
    patience_s  how long the attempt may last
    """

    now_ms: float = 0.0
    side_s: float | None = None
    patience_s: float = 10.0

    @property
    def heard_ms(self) -> float:
        """When the responder hears of it."""
        return self.now_ms + 1000 * (SIDE_DELAY_S if self.side_s is None else self.side_s)

    @property
    def called_ms(self) -> float:
        """When the initiator hears that the responder has opened its own holes."""
        return 2 * self.heard_ms - self.now_ms + LATE_FAN_MS

    @property
    def slack_ms(self) -> float:
        """How uncertain that is."""
        return 1000 * SIDE_SPREAD_S if self.side_s is None else 0.0

    @property
    def late_s(self) -> float:
        """When the initiator fires unasked."""
        half = self.patience_s * FIRES_UNASKED
        return half if self.side_s is None else min(half, self.side_s + LATE_AFTER_S)

    @property
    def timed_s(self) -> float:
        """When it fires where that does no harm: so that it comes just after the notification, if one knows when."""
        return 0.0 if self.side_s is None else max(0.0, self.side_s - EARLY_S)


def choose(wanted: Iterable[str] | None, transport: str, able: frozenset[str]) -> tuple[list[str], dict[str, str]]:
    """The techniques that can run here, in order, and for each that can't the capabilities it lacks."""
    runnable: list[str] = []
    missing: dict[str, str] = {}
    for name in AUTO[transport] if wanted is None else wanted:
        lacking = TECHNIQUES[name].needs - able
        if lacking:
            missing[name] = ", ".join(sorted(lacking))
        else:
            runnable.append(name)
    return runnable, missing


def fans(transport: str, able: frozenset[str]) -> bool:
    """Whether this host can send many packets of one technique at once."""
    fan = TECHNIQUES.get(_FANS[transport])
    return fan is not None and fan.needs <= able


def rows(
    names: Sequence[str], *, listed: bool, own: View | None = None, peer: View | None = None,
    times: Times | None = None, fans: bool = False, tried: int = 0,
) -> list[Row]:  # fmt: skip
    """The plan for these techniques.

    listed  the caller named them: they are wanted in this order, however they open
    fans    this host can send many packets of one technique at once
    tried   attempts to this peer that failed a short time ago
    """
    own, peer, times = own or _UNKNOWN, peer or _UNKNOWN, times or Times()
    if own == peer == _UNKNOWN:
        return list(_unclassed(tuple(names), listed, times.side_s, times.patience_s, tried))
    return _rows(names, own, peer, times, listed=listed, fans=fans, tried=tried)


@lru_cache(maxsize=256)
def _unclassed(
    names: tuple[str, ...], listed: bool, side_s: float | None, patience_s: float, tried: int
) -> list[Row]:  # fmt: skip
    """The plan for two sides of which nobody knows anything: there are few such, and thousands of attempts a second."""
    return _rows(names, _UNKNOWN, _UNKNOWN, Times(0.0, side_s, patience_s), listed=listed, fans=False, tried=tried)


def _rows(
    names: Sequence[str], own: View, peer: View, times: Times, *, listed: bool, fans: bool, tried: int
) -> list[Row]:  # fmt: skip
    if listed:
        plain = [row for name in names for row in _listed(name, own, peer, times)]
    else:
        plain = again(_ordered(names, own.nat, peer.nat, times), tried)
    if not plain:
        return []
    transport = names[0].partition("-")[0]
    habits = habit(own), habit(peer)
    met: list[Row] = []
    if fans and not listed and Habit.DRAWS in habits:
        met = _drawn(transport, own, peer, times, again=tried % 2 == 1)
        plain = plain if Dependence.INDEPENDENT in (own.nat.filtering, peer.nat.filtering) else []
    elif fans and not listed and Habit.COUNTS in habits:
        met = _counted(transport, own, peer, times)
        if habits[1] is Habit.COUNTS and not own.nat.forgives and own.nat.filtering is not Dependence.INDEPENDENT:
            plain = []  # over a long round trip they fire before the fan is answered: strays, most of them
        if habits[0] is Habit.COUNTS and not peer.nat.forgives:
            plain = [row for row in plain if _holes(row)]  # the others fire all the way from a port that is guessed
        holes, sources = mappings(met)
        own, peer = replace(own, taken=own.taken + holes), replace(peer, taken=peer.taken + sources * len(met))
    return _timed((met + _aimed(plain, own, peer))[:OFFERS_MAX], peer.nat, times)


def merged(main: Sequence[Row], further: Sequence[Sequence[Row]], *, within: Sequence[Row] = (),
           order: Sequence[str] = ()) -> list[Row]:  # fmt: skip
    """One plan of the rows of several ways to the peer: what harms nobody by any of them before what might.

    The main way's rows are all there; the others' fill the rest by turns, each way's likeliest first.

    within  where no NAT comes between: at once
    order   the caller named these techniques: they come in turn
    """
    if not (within or further):
        return list(main)
    room = OFFERS_MAX - len(main) - len(within)
    places = range(max(map(len, further), default=0))
    extra = [rows[place] for place in places for rows in further if place < len(rows)][: max(0, room)]
    planned = [untimed(row) for row in (*within, *main[: OFFERS_MAX - len(within)], *extra)]
    if order:
        return sorted(planned, key=lambda row: order.index(row.technique))
    return sorted(planned, key=_harm) if extra else planned


def _harm(row: Row) -> int:
    if row.opening is Opening.PRIMED:
        return 2 if TECHNIQUES[row.technique].knocks and not row.public else 0
    return 2 if row.opening is Opening.CROSSED else 1


def again(planned: Sequence[Row], tried: int) -> list[Row]:
    """The same rows for another try after `tried` failed ones: what came last is worth a try before the rest is.

    What waits for the initiator comes to the front, since it fires at nobody; the others go on where they began.
    """
    if not tried:
        return list(planned)
    first = [row for row in planned if row.opening in (Opening.REFIRED, Opening.CALLED)]
    primed = [row for row in planned if _holes(row)]
    last = [row for row in planned if row not in first and row not in primed]
    turn = tried % len(primed) if primed else 0
    return first + primed[turn:] + primed[:turn] + last


def mappings(planned: Sequence[Row]) -> tuple[int, int]:
    """How many mappings an attempt makes at our NAT, and at the peer's if its first row succeeds."""
    own = 0
    for row in planned:
        if _holes(row):
            own += 1 if row.lanes is None else row.lanes.own.count * row.lanes.aims.count
    first = planned[0].lanes if planned else None
    return own, 1 if first is None else first.peers.count * first.seen.count


def habit(side: View) -> Habit:
    """How its public ports are to be known."""
    nat = side.nat
    if side.public_port:
        return Habit.MAPPED
    if nat.allocation is Allocation.SEQUENTIAL:
        return Habit.COUNTS
    return Habit.DRAWS if nat.allocation is Allocation.RANDOM else Habit.KEEPS


def own_random(handshake: bool = False) -> Lanes:
    """Our NAT draws its ports: many of ours aim at one of the peer's, which aims at many of our NAT's."""
    return Lanes(Spread(0, HOLES), Spread(0, PROBES), Spread(0), Spread(0), handshake)


def peers_random(handshake: bool = False) -> Lanes:
    """The peer's NAT does."""
    return Lanes(Spread(0), Spread(0), Spread(0, HOLES), Spread(0, PROBES), handshake)


def _listed(name: str, own: View, peer: View, times: Times) -> list[Row]:
    """The rows of a technique that the caller named, however it opens; of a fan, whichever NAT it is there for."""
    if name not in _FANS.values():
        return [
            Row(name, opening) for opening in (Opening.PRIMED, *((Opening.REFIRED,) if name in _EITHER_WAY else ()))
        ]
    transport = name.partition("-")[0]
    habits = {habit(own), habit(peer)}
    if Habit.DRAWS in habits:
        return _drawn(transport, own, peer, times, again=False)
    if Habit.COUNTS in habits:
        return _counted(transport, own, peer, times)
    shakes = _shakes(transport, own.nat, peer.nat)
    return [Row(name, lanes=lanes) for shake in shakes for lanes in (own_random(shake), peers_random(shake))]


def _ordered(names: Sequence[str], own: NatClass, peer: NatClass, times: Times) -> list[Row]:
    """Every technique in every opening that may help, the likeliest first."""
    calls = peer.forgives is False
    knocks = {name for name in names if TECHNIQUES[name].knocks}
    primed = [Row(name) for name in names if name not in knocks]
    late = [
        Row(name, Opening.CALLED if calls and opening is Opening.REFIRED else opening, after_s=times.late_s)
        for turn in (Opening.REFIRED, Opening.CROSSED)
        for name in names
        for opening in _LATE.get(name, ())
        if opening is turn
    ]
    last = [Row(name) for name in names if name in knocks]
    told = [(row, *prospect(row, own, peer)) for row in primed + late + last]
    return [
        replace(row, reason=reason, after_s=_patience(row, told_of, own, peer, times))
        for row, told_of, reason in sorted(told, key=lambda one: _rank(one[0], one[1]))
        if told_of is not Prospect.HARMS
    ]


def _rank(row: Row, told: Prospect) -> int:
    """What passes, at once before late; what may is tried before one waits for anything; what fails is last."""
    if told is Prospect.PASSES:
        return 2 if row.after_s else 0
    if told is Prospect.OPEN and not row.after_s and not TECHNIQUES[row.technique].knocks:
        return 1
    return 4 if told is Prospect.FAILS else 3


def _patience(row: Row, told: Prospect, own: NatClass, peer: NatClass, times: Times) -> float:
    """A full-range packet that is known to do no harm, and to be needed, waits for nobody."""
    harmless = row.after_s and peer.drops_strays and peer.forgives
    return times.timed_s if told is Prospect.PASSES and harmless and own.outlives_icmp is False else row.after_s


def _timed(planned: list[Row], peer: NatClass, times: Times) -> list[Row]:
    """A row that is the only one, so as to come just after the notification; where what comes before harms nobody.

    A host that is open to strays answers them by a reset.
    """
    harmless = peer.drops_strays and peer.forgives and peer.filtering is not Dependence.INDEPENDENT
    if times.side_s is None or not harmless or len(planned) > 1:
        return planned
    return [
        replace(row, timed=True, after_s=times.timed_s, reason="both fire: ours comes just after the notification")
        if row.technique in _TIMELY and row.opening is Opening.PRIMED
        else row
        for row in planned
    ]


def untimed(row: Row) -> Row:
    """The same row, PRIMED and no more: in company, or when a class has turned out wrong."""
    return replace(row, timed=False, after_s=0.0, reason=OPENINGS[row.opening]) if row.timed else row


def _aimed(planned: Sequence[Row], own: View, peer: View) -> list[Row]:
    """The rows with the ports that are known or guessed; mapped on both sides there is but one 4-tuple to try.

    A guess takes it that nobody else opens any: a busy NAT is for fans. Our holes are opened in the order of the rows,
    the late ones last; the peer opens its own one row after the other.
    """
    if own.public_port and peer.public_port:
        planned = planned[:1]
    mine, theirs = _course(own), _course(peer)
    found = []
    for place, row in enumerate(planned):
        seen, aim = own.public_port, peer.public_port
        if mine is not None:
            seen = mine.port_of(own.taken + _turn(planned, place))
        if theirs is not None:
            aim = theirs.port_of(peer.taken + place)
        found.append(
            row
            if row.lanes
            else replace(row, own_port=own.own_port, seen_port=seen, peer_port=peer.own_port, aim_port=aim)
        )
    return found


def _turn(planned: Sequence[Row], place: int) -> int:
    """How many rows make a mapping at our NAT before this one does."""
    primed = [at for at, row in enumerate(planned) if _holes(row)]
    if planned[place].opening is Opening.PRIMED:
        return sum(at < place for at in primed)
    late = [at for at, row in enumerate(planned) if row.opening is not Opening.PRIMED]
    return len(primed) + sum(at < place for at in late)


def _counted(transport: str, own: View, peer: View, times: Times) -> list[Row]:
    """Rows with a fan of holes at each NAT that counts: where one guess may miss, many neighbours won't.

    Where both count, ours aim at one port that is surely ahead of the peer's counter, and the peer, who knows better
    where that is, brings its NAT there (core/tally.py). A second fan aims behind the first one's port. Others wait
    until the peer has opened its own holes, and has told at which port of its own; then it is we who bring our NAT to
    the port where these aim. Where ours alone counts, they are there unless our mappings outlive a time exceeded, or
    there is but one sort of first packet: no fan is the only one, for a neighbour may take the very port that counts.

    Where the peer's alone counts, it is we who fire: the peer brings its NAT to a port, at hole range, and says so. Its
    daemon alone knows what others open there, and what it fires from elsewhere than where we aim is a stray to our NAT.
    It opens holes for all ports that ours may be, too, and we fire from one.
    """
    mine, theirs = _course(own), _course(peer)
    both = mine is not None and theirs is not None
    alone = mine is None
    shakes = _shakes(transport, own.nat, peer.nat)
    once = len(shakes) == 1
    twice = shakes * 2 if both and once else shakes
    primed = [] if alone or own.nat.outlives_icmp is False else [(Opening.PRIMED, shake) for shake in twice]
    waiting = Opening.REFIRED if alone and peer.nat.forgives is not False else Opening.CALLED
    called = [(waiting, shake) for shake in shakes if alone or both or once or not own.nat.outlives_icmp]
    if once and len(primed + called) == 1:
        called.append((Opening.CALLED, shakes[0]))
    found = []
    taken = [own.taken, peer.taken]
    beyond = 0
    if theirs is not None and peer.aimed:
        beyond = 1 + (predict.turn_of(theirs, peer.aimed, AHEAD_MAX) or 0)  # what is behind us is no matter
    for opening, shake in primed + called:
        late = opening is not Opening.PRIMED
        lanes = Lanes(
            Spread(own.own_port), Spread(own.public_port), Spread(peer.own_port), Spread(peer.public_port), shake
        )
        if mine is not None:
            at_ms, slack_ms = (times.called_ms, times.slack_ms) if late else (times.now_ms, 0.0)
            where = predict.window(mine, at_ms=at_ms, own=taken[0], slack_ms=slack_ms)
            late_margin = MEET_LATER if both else OWN_LATER
            wider = late_margin if late else min(where.count, WIDER)
            where = replace(where, count=where.count + own.unsure + wider)
            if late and both:
                count, guesses = _meet(mine, where.first, where.first + where.count)
            elif late:  # each of our packets must find a hole
                count, guesses = predict.fan(mine, where, holes=HOLES, probes=PROBES, sparing=True)
            else:
                count, guesses = predict.fan(mine, where, holes=HOLES, probes=1 if both else GUESSES)
                count = min(HOLES, count + SPARE) if both else count
            lanes, taken[0] = replace(lanes, own=Spread(0, count), seen=guesses), taken[0] + count
        if theirs is not None:
            at_ms = times.heard_ms + (LATE_FAN_MS if late and primed else 0.0)
            where = predict.window(theirs, at_ms=at_ms, own=taken[1], slack_ms=times.slack_ms)
            turn = where.first + where.count + MARGIN
            further = beyond + max(NEXT, min(where.count - where.fewest + MARGIN // 2, NEXT_MAX))
            turn = max(turn, further if both else min(beyond + NEXT, turn + MEETS_MAX - HOLES))
            if late and both and primed:
                turn = beyond - 1  # the peer will name another (Ready)
            many, guesses = _meet(theirs, where.first, turn)
            lanes, beyond = replace(lanes, peers=Spread(0, many), aims=guesses), turn + 1
        reason = f"the next ports are predicted; {OPENINGS[opening]}"
        found.append(Row(_FANS[transport], opening, lanes=lanes, after_s=times.late_s if late else 0.0, reason=reason))
    return found


def _meet(known: predict.Course, first: int, turn: int) -> tuple[int, Spread]:
    """As many mappings as bring a NAT that counts to this turn, if nobody there knows better, and its port."""
    return max(2, min(HOLES, turn - first + 1)), Spread(known.port_of(turn))


def _drawn(transport: str, own: View, peer: View, times: Times, *, again: bool) -> list[Row]:
    """Rows for a NAT that draws its ports: holes on its side, probes from the other, until two meet by chance.

    All but one of the peer's packets from many ports are strays to our NAT, and all that they might meet is to be
    opened before. So we are called and probe ourselves; `again`, when this has failed, they come, unless our NAT is
    known to block who sends strays.
    """
    hopeless = habit(own) is not Habit.KEEPS and habit(peer) in (Habit.DRAWS, Habit.COUNTS) and not own.public_port
    if hopeless:
        holes = Spread(0, HOLES)
        whose, lanes = "both sides' ports change: a few in a thousand", Lanes(holes, Spread(0), holes, Spread(0))
    elif habit(own) is Habit.DRAWS:
        whose = "our ports are drawn: the peer meets them by chance"
        lanes = replace(own_random(), peers=Spread(peer.own_port), aims=Spread(peer.public_port))
    else:
        whose = "the peer's ports are drawn: we meet them by chance"
        lanes = replace(peers_random(), own=Spread(own.own_port), seen=Spread(own.public_port))
    forgiven = again and own.nat.forgives is not False
    called = own.nat.outlives_icmp is False or (lanes.peers.count > 1 and not forgiven)
    openings = (Opening.CALLED,) if called else (Opening.PRIMED, Opening.CALLED)
    return [
        Row(_FANS[transport], opening, lanes=replace(lanes, handshake=shakes), reason=f"{whose}; {OPENINGS[opening]}",
            after_s=0.0 if opening is Opening.PRIMED else times.late_s)
        for opening in openings
        for shakes in _shakes(transport, own.nat, peer.nat)
    ]  # fmt: skip


def _shakes(transport: str, own: NatClass, peer: NatClass) -> tuple[bool, ...]:
    """Whether a fan begins with SYNs: both, unless a class tells, or there are none."""
    if transport == "udp" or (own.picks_up and peer.picks_up):
        return (False,)
    return (True,) if False in (own.picks_up, peer.picks_up) else (False, True)


def _holes(row: Row) -> bool:
    """Whether it opens a hole at our NAT before the notification leaves."""
    known = TECHNIQUES.get(row.technique)  # a fan is planned for builds that have none, too
    return row.opening is Opening.PRIMED and not (known is not None and known.knocks)


def _course(side: View) -> predict.Course | None:
    if side.face is None or habit(side) is not Habit.COUNTS:
        return None
    return predict.of_face(side.face, side.other)
