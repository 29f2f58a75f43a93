"""The kinds of modelled NATs, described by the axes of RFC 4787 and 5382.
It refuses to behave: model_nat.py has boxes that do as the axes say.

The kinds bear the names of the kernel lab's pages and are held to them by tests/lab/test_model_kinds.py. They are
nicknames: every axis is free, and layers are boxes in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum, auto
from functools import cache

from punchd.lab import pages
from punchd.lab.model_track import State, Track


class Tracking(Enum):
    """What a box knows of TCP. NOTHING: everything passes. HOLES: who spoke to whom. CONNTRACK: states, as Linux."""

    NOTHING = auto()
    HOLES = auto()
    CONNTRACK = auto()


class By(IntEnum):
    """How many parts of the remote endpoint count (RFC 4787, sections 4.1 and 5)."""

    NOTHING = 0  # endpoint-independent
    ADDRESS = 1
    ADDRESS_AND_PORT = 2


class Ports(Enum):
    """Which public port a new mapping gets."""

    PRESERVED = auto()
    SEQUENTIAL = auto()
    RANDOM = auto()


class Stray(Enum):
    """What a packet meets that nobody inside asked for.

    REFUSED: RST or port unreachable at once. HELD: a SYN is answered with port unreachable after 6 s, unless one
    from inside comes meanwhile. BLOCKS: its sender is not heard for a time, which each arrival begins anew.
    """

    DROPPED = auto()
    REFUSED = auto()
    HELD = auto()
    BLOCKS = auto()


class Pickup(Enum):
    """Which first packet from inside begins a TCP session."""

    SYN = auto()
    SYN_OR_ACK = auto()
    ANYTHING = auto()


class Ending(Enum):
    """What a RST, either way, or an ICMP error from outside does to the mapping. TRACKED: what the tracker says."""

    TRACKED = auto()
    KEEPS = auto()
    KILLS = auto()
    SWALLOWED = auto()


class Hairpin(Enum):
    """What becomes of a packet from inside to the box's own public address (RFC 4787, section 6).

    ANSWERED: the box's own stack refuses it, as Linux's does. INTERNAL and EXTERNAL: it comes back in, from the
    sender's private address or from its public one.
    """

    DROPPED = auto()
    ANSWERED = auto()
    INTERNAL = auto()
    EXTERNAL = auto()


class Say(Enum):
    """A box's word on one sort of packet. TRACKED: the tracker's. PASSES: it passes, and the tracker is not asked."""

    TRACKED = auto()
    PASSES = auto()
    DROPPED = auto()


@dataclass(frozen=True, slots=True)
class Axes:
    """What may differ between TCP and UDP (RFC 7857, section 5).

    occupies  a stray takes its 4-tuple for a time: a flow from inside that wants it gets another port
    """

    mapping: By = By.ADDRESS_AND_PORT
    filtering: By = By.ADDRESS_AND_PORT
    ports: Ports = Ports.PRESERVED
    occupies: bool = False


@dataclass(frozen=True, slots=True)
class Odd:
    """The packets of a TCP session on which NATs disagree; all but the first of a session that a SYN from inside began.

    syn_in       any bare SYN from outside
    syn_ack_out  a SYN-ACK from inside before anything has come in
    ack_out      an ACK from inside before anything has come in
    syn_ack_in   a SYN-ACK that acknowledges something else than the SYN
    new_number   a SYN or SYN-ACK from inside with another number than the SYN; SYN-ACKs once something has come in
    """

    syn_in: Say = Say.TRACKED
    syn_ack_out: Say = Say.TRACKED
    ack_out: Say = Say.TRACKED
    syn_ack_in: Say = Say.TRACKED
    new_number: Say = Say.TRACKED


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds without a packet that refreshes; Linux's where nothing else is said. Inbound ones refresh or don't."""

    hole_tcp: float = 120.0
    hole_udp: float = 120.0
    udp_unreplied: float = 30.0
    udp_stream: float = 120.0
    picked_up: float = 300.0  # nf_conntrack_tcp_timeout_unacknowledged
    syn: float = 120.0
    syn_recv: float = 60.0
    established: float = 432_000.0
    closing: float = 120.0
    closed: float = 10.0
    block: float = 30.0
    occupied: float = 30.0
    refreshed_from_outside: bool = False  # holes; conntrack's sessions always are

    def of(self, track: Track) -> float:
        """How long this connection lives from now."""
        match track.state:
            case State.ESTABLISHED:
                return self.established if track.replied else self.picked_up
            case State.SYN_SENT | State.SYN_SENT2:
                return self.syn
            case State.SYN_RECV:
                return self.syn_recv
            case State.CLOSING:
                return self.closing
            case State.CLOSE:
                return self.closed


@dataclass(frozen=True, slots=True)
class Kind:
    """A NAT by its axes.

    translates  the host behind it has a private address
    step        of sequential ports, from one mapping to the next; may be negative
    foreign     mappings a second that neighbours take
    rst, rst_out, icmp  what a RST from outside, one from inside, and an ICMP error from outside do
    liberal     nf_conntrack_tcp_be_liberal: no window check
    rewrites    sequence numbers from inside are moved by an offset that each session draws
    hairpin     matters where two hosts stand behind it (model_shared.py)
    """

    name: str
    tracking: Tracking = Tracking.CONNTRACK
    translates: bool = True
    tcp: Axes = Axes()
    udp: Axes = Axes()
    step: int = 1
    foreign: float = 0.0
    stray: Stray = Stray.DROPPED
    pickup: Pickup = Pickup.SYN_OR_ACK
    rst: Ending = Ending.TRACKED
    rst_out: Ending = Ending.TRACKED
    icmp: Ending = Ending.KEEPS
    odd: Odd = Odd()
    liberal: bool = False
    rewrites: bool = False
    hairpin: Hairpin = Hairpin.ANSWERED
    timers: Timers = Timers()


_CONE = Axes(mapping=By.NOTHING, filtering=By.NOTHING)
_RANDOM = Axes(ports=Ports.RANDOM)
_SEQUENTIAL = Axes(ports=Ports.SEQUENTIAL)

KINDS = {
    kind.name: kind
    for kind in (
        Kind("open", Tracking.NOTHING, translates=False),
        Kind("firewall", translates=False),
        Kind("linux"),
        Kind("linux-reject", stray=Stray.REFUSED),
        Kind("linux-synfilter", odd=Odd(syn_in=Say.DROPPED)),
        Kind("linux-liberal", liberal=True),
        Kind("linux-noloose", pickup=Pickup.SYN),
        Kind("untracked", Tracking.HOLES, pickup=Pickup.ANYTHING, icmp=Ending.SWALLOWED),
        Kind(
            "cone",
            Tracking.HOLES,
            tcp=_CONE,
            udp=_CONE,
            pickup=Pickup.ANYTHING,
            timers=Timers(hole_tcp=7440.0, hole_udp=300.0),
        ),
        Kind("random", tcp=_RANDOM, udp=_RANDOM),
        Kind("sequential", tcp=_SEQUENTIAL, udp=_SEQUENTIAL),
        Kind("cgn"),
        Kind("icmp-kills", icmp=Ending.KILLS),
        Kind("rst-kills", rst=Ending.KILLS),
        Kind("blacklist", stray=Stray.BLOCKS),
    )
}


Side = str | Kind | Sequence[Kind]


def layers(kind: Side) -> tuple[Kind, ...]:
    """The boxes from the host outwards: of a name as the kernel lab takes it, or of the axes themselves."""
    if isinstance(kind, str):
        return _named(kind)
    return (kind,) if isinstance(kind, Kind) else tuple(kind)


def is_shared(kind_a: Side, kind_b: Side) -> bool:
    """Whether the outermost box is the same one for both sides, as only names can say."""
    return isinstance(kind_a, str) and isinstance(kind_b, str) and _named_alike(kind_a, kind_b)


@cache
def _named_alike(kind_a: str, kind_b: str) -> bool:
    pages.check_pair(kind_a, kind_b)
    return pages.boxes(kind_a)[-1].shared


@cache
def _named(kind: str) -> tuple[Kind, ...]:
    """A page is read once: thousands of attempts a second ask."""
    return tuple(_kind(box) for box in pages.boxes(kind))


def _kind(box: pages.Box) -> Kind:
    kind, given = KINDS[box.kind], box.parameters
    hairpin = Hairpin.EXTERNAL if given.get("hairpin") else kind.hairpin
    return replace(
        kind, step=given.get("step", kind.step), foreign=given.get("foreign", kind.foreign), hairpin=hairpin
    )  # fmt: skip
