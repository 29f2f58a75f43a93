"""What the finding of hops asks of its sockets, what they report, and what it comes to.
Holds no behaviour; a datagram that is to die on the way is named by its TTL."""

from __future__ import annotations

import msgspec

from .events import DeadlinePassed


class Launch(msgspec.Struct, frozen=True, gc=False):
    """Send one datagram of this TTL towards the target; what becomes of it is told by HopHeard, or by nobody."""

    ttl: int


class HopHeard(msgspec.Struct, frozen=True, gc=False):
    """`sender` says that the datagram of this TTL died there, or the target itself that it has arrived."""

    ttl: int
    sender: str
    arrived: bool


HopEvent = HopHeard | DeadlinePassed


class Hop(msgspec.Struct, frozen=True, gc=False):
    """Who spoke up at one TTL."""

    ttl: int
    sender: str
    arrived: bool
    rtt_ms: float | None
    """None where the datagram had to be repeated: nobody knows which one was answered."""


class Way(msgspec.Struct, frozen=True, gc=False):
    """What the hops say of the own NATs.

    ttl       the smallest TTL that is sure to clear all of them; None where no hop outside of them spoke up
    least     no smaller TTL clears them
    distance  the smallest TTL that reached the target; None where none of those tried did
    """

    ttl: int | None
    least: int
    distance: int | None
    hops: tuple[Hop, ...] = ()


class Reach(msgspec.Struct, frozen=True, gc=False):
    """What the hops say of a peer's NATs.

    short    the largest TTL that is sure to stay short of all of them; None where nobody on the way spoke up
    arrived  the smallest TTL that was answered from the peer's own address; None where none was
    """

    peer: str
    short: int | None
    arrived: int | None
    hops: tuple[Hop, ...] = ()
