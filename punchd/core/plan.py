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
  3. A NAT that keeps ports needs no more than drawn ports. One that has made an endpoint-independent mapping is
     aimed at there. One that counts is predicted (core/predict.py), one that draws is met by chance, with a fan.

A class orders: first what it says will pass, then what it leaves open, then what it says can't, since a class was
measured at another time. What would harm the others is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from punchd.core import predict
from punchd.core.ports import Ports
from punchd.core.techniques import TECHNIQUES
from punchd.words.nat import Allocation, Dependence, NatClass
from punchd.words.notification import OFFERS_MAX, Offer, Opening, Spread
from punchd.words.plan import Candidate, Lanes, Row, View

# simopen first: least privilege, and the most NATs in the field let a SYN in after a SYN out. midstream second:
# where every inbound SYN is dropped it is what passes. The rest serve the NATs that neither of them passes.
AUTO = {
    "tcp": ("tcp-simopen", "tcp-midstream", "tcp-direct", "tcp-syni", "tcp-nutss"),
    "udp": ("udp",),
}

FIRES_UNASKED = 0.5
"""Share of the initiator's patience after which it fires though nobody has called it."""

LATE_AFTER_S = 1.5
"""How long after the notification's arrival the responder has begun the last row; core/responding.py."""

SIDE_DELAY_S, SIDE_SPREAD_S = 0.3, 0.3  # of a side channel that nobody has measured
HOLES, PROBES = 256, 1024
GUESSES = 256
SOLE = Spread(0)

_LATE = {"tcp-simopen": (Opening.REFIRED,), "tcp-midstream": (Opening.REFIRED, Opening.CROSSED),
         "udp": (Opening.REFIRED, Opening.CROSSED)}  # fmt: skip
_EITHER_WAY = {"tcp-direct"}
_FANS = {"tcp": "tcp-birthday", "udp": "udp-birthday"}

# What must hold of the initiator's NAT and of the responder's for the row to pass. Rows that are not here pass few
# NATs, for reasons that no class names.
_NEEDS: dict[tuple[str, Opening], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("tcp-simopen", Opening.PRIMED): (("outlives_icmp", "takes_syn"), ()),
    ("tcp-simopen", Opening.REFIRED): ((), ("outlives_icmp", "takes_syn", "forgives")),
    ("tcp-simopen", Opening.CALLED): ((), ("outlives_icmp", "takes_syn")),
    ("tcp-midstream", Opening.PRIMED): (("outlives_icmp", "picks_up"), ("picks_up",)),
    ("tcp-midstream", Opening.REFIRED): (("picks_up",), ("outlives_icmp", "picks_up", "forgives")),
    ("tcp-midstream", Opening.CALLED): (("picks_up",), ("outlives_icmp", "picks_up")),
    ("tcp-midstream", Opening.CROSSED): (("picks_up",), ("picks_up", "drops_strays")),
    ("udp", Opening.PRIMED): (("outlives_icmp",), ()),
    ("udp", Opening.REFIRED): ((), ("outlives_icmp", "forgives")),
    ("udp", Opening.CALLED): ((), ("outlives_icmp",)),
    ("udp", Opening.CROSSED): ((), ("drops_strays",)),
}

_OPENINGS = {
    Opening.PRIMED: "ours dies on its way and opens our NAT, then the peer fires",
    Opening.REFIRED: "the peer opens its own NAT and waits for us",
    Opening.CALLED: "the peer opens its own NAT and calls us",
    Opening.CROSSED: "both fire all the way",
}
_LACKS = {
    "outlives_icmp": "ends a mapping at a time exceeded",
    "takes_syn": "lets no SYN in",
    "picks_up": "wants a SYN first",
    "drops_strays": "answers strays",
    "forgives": "blocks who sends strays",
}


class Prospect(Enum):
    """What the classes say of a row."""

    PASSES = auto()
    OPEN = auto()
    FAILS = auto()
    HARMS = auto()


class Habit(Enum):
    """How one comes to know a side's public port."""

    KEEPS = auto()
    MAPPED = auto()
    COUNTS = auto()
    DRAWS = auto()


@dataclass(frozen=True, slots=True)
class Times:
    """What the rows' times hang on.

    now_ms      milliseconds since 1970
    side_s      one-way delay of the side channel, if the caller knows it
    patience_s  how long the attempt may last
    """

    now_ms: float = 0.0
    side_s: float | None = None
    patience_s: float = 10.0

    @property
    def late_s(self) -> float:
        """When the initiator fires unasked."""
        half = self.patience_s * FIRES_UNASKED
        return half if self.side_s is None else min(half, self.side_s + LATE_AFTER_S)


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


def rows(
    names: Sequence[str], *, listed: bool, own: View | None = None, peer: View | None = None,
    times: Times | None = None, fans: bool = False, tried: int = 0,
) -> list[Row]:  # fmt: skip
    """The plan for these techniques.

    listed  the caller named them: they are wanted in this order, however they open
    fans    this host can send many packets of one technique at once
    tried   attempts to this peer that failed a short time ago
    """
    own, peer, times = own or View(), peer or View(), times or Times()
    if listed:
        plain = [Row(name, opening) for name in names for opening in _listed_openings(name)]
    else:
        plain = again(_ordered(names, own.nat, peer.nat, late_s=times.late_s), tried)
    if not plain:
        return []
    transport = TECHNIQUES[names[0]].transport
    habits = habit(own), habit(peer)
    if Habit.DRAWS not in habits:
        plain = _aimed(plain, own, peer, times)
    if listed or not fans or not {Habit.COUNTS, Habit.DRAWS} & set(habits):
        return plain[:OFFERS_MAX]
    if Habit.DRAWS not in habits:
        return (_counted(transport, own, peer, times) + plain)[:OFFERS_MAX]
    met = _drawn(transport, own, peer, times)
    return met + (plain if _reachable(own, peer) else [])


def again(planned: Sequence[Row], tried: int) -> list[Row]:
    """The same rows for another try after `tried` failed ones: what came last is worth a try before the rest is.

    What waits for the initiator comes to the front, since it fires at nobody; the others go on where they began.
    """
    if not tried:
        return list(planned)
    first = [row for row in planned if row.opening in (Opening.REFIRED, Opening.CALLED)]
    last = [row for row in planned if row.opening is Opening.CROSSED]
    primed = [row for row in planned if row.opening is Opening.PRIMED]
    turn = tried % len(primed) if primed else 0
    return first + primed[turn:] + primed[:turn] + last


def habit(side: View) -> Habit:
    """How its public ports are to be known."""
    nat = side.nat
    if side.public_port:
        return Habit.MAPPED
    if nat.allocation is Allocation.SEQUENTIAL:
        return Habit.COUNTS
    return Habit.DRAWS if nat.allocation is Allocation.RANDOM else Habit.KEEPS


def prospect(row: Row, own: NatClass, peer: NatClass) -> tuple[Prospect, str]:
    """What the classes say of it, and why."""
    needs = _NEEDS.get((row.technique, row.opening))
    if needs is None:
        if row.technique == "tcp-direct" and own.filtering is Dependence.INDEPENDENT:
            return Prospect.PASSES, "our NAT lets strangers in"
        return Prospect.OPEN, "passes where the others fail, on few NATs"
    holds = [
        (getattr(nat, axis), whose, axis)
        for nat, axes, whose in ((own, needs[0], "our"), (peer, needs[1], "the peer's"))
        for axis in axes
    ]
    for held, whose, axis in holds:
        if held is False:
            harms = row.opening in (Opening.REFIRED, Opening.CROSSED) and axis in ("forgives", "drops_strays")
            dies = row.opening is Opening.PRIMED and axis == "outlives_icmp"
            return Prospect.HARMS if harms or dies else Prospect.FAILS, f"{whose} NAT {_LACKS[axis]}"
    known = all(held for held, _, _ in holds)
    return Prospect.PASSES if known else Prospect.OPEN, _OPENINGS[row.opening]


def draw(row: Row, ports: Ports) -> Candidate:
    """A candidate pair for the row, on ports never used before where the row leaves them open."""
    technique = TECHNIQUES[row.technique]
    reverse = row.opening is not Opening.PRIMED
    own, peer = ports.draw(own_listens=technique.listens and not reverse, peer_listens=technique.listens and reverse)
    own, peer = row.own_port or own, row.peer_port or peer
    offer = Offer(row.technique, row.seen_port or own, peer, opening=row.opening)
    return Candidate(offer, own, row.aim_port or peer, row.after_s)


def _listed_openings(name: str) -> tuple[Opening, ...]:
    return (Opening.PRIMED, Opening.REFIRED) if name in _EITHER_WAY else (Opening.PRIMED,)


def _ordered(names: Sequence[str], own: NatClass, peer: NatClass, *, late_s: float) -> list[Row]:
    """Every technique in every opening that may help, the likeliest first."""
    calls = peer.forgives is False
    primed = [Row(name) for name in names]
    late = [
        Row(name, Opening.CALLED if calls and opening is Opening.REFIRED else opening, after_s=late_s)
        for turn in (Opening.REFIRED, Opening.CROSSED)
        for name in names
        for opening in _LATE.get(name, ())
        if opening is turn
    ]
    told = [(row, *prospect(row, own, peer)) for row in primed + late]
    return [
        replace(row, reason=reason, after_s=_patience(row, told_of, own, peer))
        for wanted in (Prospect.PASSES, Prospect.OPEN, Prospect.FAILS)
        for row, told_of, reason in told
        if told_of is wanted
    ]


def _patience(row: Row, told: Prospect, own: NatClass, peer: NatClass) -> float:
    """A full-range packet that is known to do no harm, and to be needed, goes out at once."""
    harmless = peer.drops_strays and peer.forgives
    return 0.0 if told is Prospect.PASSES and harmless and own.outlives_icmp is False else row.after_s


def _aimed(planned: Sequence[Row], own: View, peer: View, times: Times) -> list[Row]:
    """The rows with the ports that are known or guessed; mapped on both sides there is but one 4-tuple to try."""
    if own.public_port and peer.public_port:
        planned = planned[:1]
    courses = _course(own), _course(peer)
    opened_ms = times.now_ms, times.now_ms + 1000 * (SIDE_DELAY_S if times.side_s is None else times.side_s)
    found = []
    listening = 0
    for ahead, row in enumerate(planned):
        seen, aim = own.public_port, peer.public_port
        if courses[0] is not None:
            seen = courses[0].port_of(courses[0].likely(at_ms=opened_ms[0], own=own.taken + ahead - listening))
        if courses[1] is not None:
            aim = courses[1].port_of(courses[1].likely(at_ms=opened_ms[1], own=peer.taken + ahead))
        if row.technique == "tcp-direct" and row.opening is Opening.PRIMED:
            listening += 1  # it sends nothing until it is spoken to
        found.append(replace(row, own_port=own.own_port, seen_port=seen, peer_port=peer.own_port, aim_port=aim))
    return found


def _counted(transport: str, own: View, peer: View, times: Times) -> list[Row]:
    """A row with a fan of holes at each NAT that counts: where one guess may miss, many neighbours won't."""
    mine, theirs = _course(own), _course(peer)
    both = mine is not None and theirs is not None
    probes = 1 if both else GUESSES
    lanes = Lanes(_sole(own.own_port), _sole(own.public_port), _sole(peer.own_port), _sole(peer.public_port))
    if mine is not None:
        where = predict.window(mine, at_ms=times.now_ms, own=own.taken)
        count, guesses = predict.fan(mine, where, holes=HOLES, probes=probes)
        lanes = replace(lanes, own=Spread(0, count), seen=guesses)
    if theirs is not None:
        side_s, slack_s = (SIDE_DELAY_S, SIDE_SPREAD_S) if times.side_s is None else (times.side_s, 0.0)
        at_ms = times.now_ms + 1000 * side_s
        where = predict.window(theirs, at_ms=at_ms, own=peer.taken, slack_ms=1000 * slack_s)
        count, guesses = predict.fan(theirs, where, holes=HOLES, probes=probes)
        lanes = replace(lanes, peers=Spread(0, count), aims=guesses)
    return _fanned(transport, lanes, own, peer, times, "the next ports are predicted")


def _drawn(transport: str, own: View, peer: View, times: Times) -> list[Row]:
    """Rows for a NAT that draws its ports: holes on its side, probes from the other, until two meet by chance."""
    holes, probes, one = Spread(0, HOLES), Spread(0, PROBES), SOLE
    if habit(own) is Habit.DRAWS:
        lanes = Lanes(holes, probes, _sole(peer.own_port), _sole(peer.public_port))
        if habit(peer) in (Habit.DRAWS, Habit.COUNTS):
            lanes = Lanes(holes, one, holes, one)
        return _fanned(transport, lanes, own, peer, times, "our ports are drawn: the peer meets them by chance")
    lanes = Lanes(_sole(own.own_port), _sole(own.public_port), holes, probes)
    return _fanned(transport, lanes, own, peer, times, "the peer's ports are drawn: we meet them by chance")


def _fanned(transport: str, lanes: Lanes, own: View, peer: View, times: Times, reason: str) -> list[Row]:
    """The fan primed and called, and for TCP with an ACK first and with a SYN, unless a class tells which one."""
    name = _FANS[transport]
    shakes: tuple[bool, ...] = (False,)
    if transport == "tcp":
        wants = [nat.picks_up for nat in (own.nat, peer.nat)]
        shakes = (True,) if False in wants else (False,) if all(wants) else (False, True)
    sprays = lanes.aims.count > 1 and lanes.aims.first == 0
    openings = [Opening.PRIMED, Opening.CALLED]
    if own.nat.outlives_icmp is False or (sprays and own.nat.forgives is False):
        openings.remove(Opening.PRIMED)
    return [
        Row(name, opening, lanes=replace(lanes, handshake=shake), reason=f"{reason}; {_OPENINGS[opening]}",
            after_s=0.0 if opening is Opening.PRIMED else times.late_s)
        for opening in openings
        for shake in shakes
    ]  # fmt: skip


def _sole(port: int) -> Spread:
    return Spread(port)


def _course(side: View) -> predict.Course | None:
    if side.face is None or habit(side) is not Habit.COUNTS:
        return None
    return predict.of_face(side.face, side.other)


def _reachable(own: View, peer: View) -> bool:
    """Whether a side lets strangers in, so that their ports need not be known."""
    return Dependence.INDEPENDENT in (own.nat.filtering, peer.nat.filtering)
