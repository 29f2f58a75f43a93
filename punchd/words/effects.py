"""What the core asks of the edges; each is one thing done to one descriptor.
Effects instruct; they carry everything the edge needs and decide nothing."""

from __future__ import annotations

import msgspec

from .events import ACK, Signal
from .notification import Notification, SecondMessage, Syn
from .outcomes import Failed, Progress, Punched


class OpenPair(msgspec.Struct, frozen=True, gc=False):
    """Take the local port and watch the 4-tuple. Undone by ClosePair."""

    pair: int
    technique: str
    local_port: int
    remote_address: str
    remote_port: int
    ours: bool
    """True: the port was drawn here. False: the peer named it, so refuse it if any socket holds it."""


class OpenFan(msgspec.Struct, frozen=True, gc=False):
    """A pair of many 4-tuples to one address, none of them taken yet: Spray takes them. Undone by ClosePair."""

    pair: int
    technique: str
    local_port: int
    remote_address: str
    remote_port: int
    ours: bool
    """As of OpenPair, for all its local ports; both ports are 0 where there are many."""
    tag: bytes
    """Of its datagrams; empty on TCP."""
    seed: int
    """Of the ports that are drawn."""


class Spray(msgspec.Struct, frozen=True, gc=False):
    """One packet on each of these lanes (local port, remote port), which are watched from now on.

    A lane whose local port is in use is left out. On TCP the segment bears `flags` and these numbers: with ACK it is
    the signal, with SYN it only stands for it. Where the budget refuses, none is sent, and Withheld comes.
    """

    pair: int
    signal: Signal
    lanes: tuple[tuple[int, int], ...]
    ttl: int | None = None
    seq: int = 0
    ack: int = 0
    flags: int = ACK


class Locate(msgspec.Struct, frozen=True, gc=False):
    """How far is the counter of our NAT from the mapping that gets this public port? Located comes at once.

    surely  at most, if nobody else has taken any port lately
    """

    pair: int
    port: int
    surely: bool = False


class Adopt(msgspec.Struct, frozen=True, gc=False):
    """This lane is the pair's 4-tuple from now on. The others are forgotten: on TCP by a RST at hole range each."""

    pair: int
    local_port: int
    remote_port: int
    ttl: int
    seq: int


class Connect(msgspec.Struct, frozen=True, gc=False):
    """A non-blocking connect() from the pair's port; `ttl` None is the kernel's default."""

    pair: int
    ttl: int | None
    stubborn: bool = False
    """No reset ends it: the peer may refuse what comes before it is ready."""


class Abort(msgspec.Struct, frozen=True, gc=False):
    """Close the connecting socket: a socket in SYN_SENT sends nothing when it is closed."""

    pair: int


class Listen(msgspec.Struct, frozen=True, gc=False):
    """Listen on the pair's port for this peer's address alone; SYN-ACKs bear the listener's `ttl`."""

    pair: int
    ttl: int | None


class Materialise(msgspec.Struct, frozen=True, gc=False):
    """Make an ESTABLISHED socket out of nothing by TCP_REPAIR."""

    pair: int
    snd_nxt: int
    rcv_nxt: int


class AskKernel(msgspec.Struct, frozen=True, gc=False):
    """Has the made socket taken in a segment? Answered by KernelHeard, as soon as it has."""

    pair: int


class OpenDatagram(msgspec.Struct, frozen=True, gc=False):
    """A UDP socket connected to the peer's endpoint."""

    pair: int
    tag: bytes


class SetTtl(msgspec.Struct, frozen=True, gc=False):
    """Set the socket's TTL; None is the kernel's default."""

    pair: int
    ttl: int | None


class Resend(msgspec.Struct, frozen=True, gc=False):
    """Send captured headers again, with their checksums recomputed; `ttl` None is the default of 64."""

    pair: int
    segment: bytes
    ttl: int | None = None


class Inject(msgspec.Struct, frozen=True, gc=False):
    """Send our own stack a SYN that looks like the peer's."""

    pair: int
    syn: Syn


class Tell(msgspec.Struct, frozen=True, gc=False):
    """Signal the peer's punchd on the path; `seq` and `ack` as on the wire (TCP only)."""

    pair: int
    signal: Signal
    ttl: int | None = None
    seq: int = 0
    ack: int = 0


class Clear(msgspec.Struct, frozen=True, gc=False):
    """A RST at hole range: the own NAT forgets the mapping, the peer never sees it."""

    pair: int
    ttl: int
    seq: int


class ClosePair(msgspec.Struct, frozen=True, gc=False):
    """Close the pair's socket without a word (inside repair mode) and stop watching the 4-tuple."""

    pair: int


class Notify(msgspec.Struct, frozen=True, gc=False):
    """Hand the application the notification for its peer."""

    notification: Notification


class CallBack(msgspec.Struct, frozen=True, gc=False):
    """Hand the application the second message, for the initiator."""

    message: SecondMessage


class Report(msgspec.Struct, frozen=True, gc=False):
    """Tell the application how it goes."""

    progress: Progress


class HandOver(msgspec.Struct, frozen=True, gc=False):
    """Pass the pair's socket to the application, every option back at the kernel's default."""

    pair: int
    technique: str
    early: bool = False
    outcome: Punched | None = None
    """The final word that leaves with the descriptor; None for an early one."""


class Finish(msgspec.Struct, frozen=True, gc=False):
    """The final word without a descriptor: a failure, or the `ok` after an early descriptor."""

    outcome: Punched | Failed


Effect = (
    OpenPair
    | OpenFan
    | Spray
    | Locate
    | Adopt
    | Connect
    | Abort
    | Listen
    | Materialise
    | AskKernel
    | OpenDatagram
    | SetTtl
    | Resend
    | Inject
    | Tell
    | Clear
    | ClosePair
    | Notify
    | CallBack
    | Report
    | HandOver
    | Finish
)
