"""What the finding of a mapping's end asks of its two sockets, and what they report.
Holds no behaviour: core/mortality.py knows the order."""

from __future__ import annotations

import msgspec

from .events import DeadlinePassed
from .hops import Hop
from .probing import Answer


class AskFor(msgspec.Struct, frozen=True, gc=False):
    """Send a Binding request; `port`: from the second socket, to be answered there (RFC 5780, section 7.5)."""

    transaction: bytes
    port: int | None = None


class Provoke(msgspec.Struct, frozen=True, gc=False):
    """Send from the first socket what nobody answers, and what dies after so many hops; told by Died, or by nobody."""

    ttl: int


MortalityEffect = AskFor | Provoke


class Heard(msgspec.Struct, frozen=True, gc=False):
    """The server's answer; `second`: at the second socket."""

    answer: Answer
    second: bool


class Died(msgspec.Struct, frozen=True, gc=False):
    """A time exceeded has come back to the first socket: it has crossed the NAT."""


class Sounded(msgspec.Struct, frozen=True, gc=False):
    """Who answers on the way to the server; told once."""

    hops: tuple[Hop, ...]


MortalityEvent = Heard | Died | Sounded | DeadlinePassed
