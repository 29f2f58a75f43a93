"""What the initiator's punchd tells the responder's in one message over the applications' side channel.
Knows no encoding: wire/peer.py turns it into bytes and back."""

from __future__ import annotations

from enum import IntEnum

import msgspec

NONCE_LEN = 16
OFFERS_MAX = 16
SPREAD_MAX = 1024
"""Ports of one fan: by then a random NAT's 256 holes are met with 98 %."""
SOURCES_MAX = 256
"""Of these, a responder's own."""
OTHERS_MAX = 3


class Opening(IntEnum):
    """Whose first packet may go how far. Both NATs must be open before anything passes; what a stray does to a NAT
    decides who may come first.

    PRIMED   the initiator's dies on its way, before the notification leaves; then the responder's goes all the way
    CROSSED  both go all the way: for a NAT at the initiator that does not outlive a time exceeded; techniques that
             begin with a SYN open as if re-fired, since two SYNs that meet leave it open who answered whom
    REFIRED  the responder's dies on its way; the initiator's goes all the way, again and again until it is heard
    CALLED   as REFIRED, but once, on the responder's second message: for a NAT at the responder that punishes strays
    """

    PRIMED = 0
    CROSSED = 1
    REFIRED = 2
    CALLED = 3


class Spread(msgspec.Struct, frozen=True, gc=False):
    """Ports that stand in for one: `count` of them, `step` apart, from `first`. A `first` of 0: anywhere."""

    first: int
    count: int = 1
    step: int = 1


class Fan(msgspec.Struct, frozen=True, gc=False):
    """What a technique of many 4-tuples tells the responder.

    targets    the initiator's public ports, at which the responder aims
    sources    the responder's own ports; with `first` 0 it draws them
    handshake  the first packets are SYNs, for a NAT that lets only these begin a connection; else bare ACKs
    meets      the public port at which all of the initiator's aim: a NAT that counts is to be brought there; 0: none
    """

    targets: Spread
    sources: Spread
    handshake: bool = False
    meets: int = 0


class Syn(msgspec.Struct, frozen=True, gc=False):
    """The initiator's SYN as captured, for tcp-syni: what a forged copy must repeat."""

    seq: int
    window: int
    mss: int | None
    window_scale: int | None
    sack_permitted: bool
    timestamp: int | None


class Offer(msgspec.Struct, frozen=True, gc=False):
    """One candidate pair that the initiator has opened.

    initiator_port  the initiator's public port, where the responder aims
    responder_port  the responder's own port, from which it aims
    at              which of the initiator's addresses that is: 0 the first, n the n-th of the notification's `others`
    timed           PRIMED, and the only offer: the initiator's packets go all the way, too, from before the responder
                    must be ready, which says COMMIT to the first that it hears (core/attempt.py)
    """

    technique: str
    initiator_port: int
    responder_port: int
    syn: Syn | None = None
    opening: Opening = Opening.PRIMED
    fan: Fan | None = None
    at: int = 0
    timed: bool = False


class Ready(msgspec.Struct, frozen=True, gc=False):
    """The responder waits for this offer's initiator, on this port of its own; 0: the one that was named.

    Of a fan that meets it is the public port to which the responder's NAT is brought by now.
    """

    offer: int
    port: int = 0


class SecondMessage(msgspec.Struct, frozen=True, gc=False):
    """The optional second message, from the responder: these offers are ready; the others need no call."""

    nonce: bytes
    ready: tuple[Ready, ...]


class Notification(msgspec.Struct, frozen=True, gc=False):
    """Everything the responder needs to finish without another word.

    nonce      names the attempt and seeds its secrets (sequence numbers, UDP tag); unpredictable to outsiders
    initiator  the initiator's public address, where the responder fires
    responder  the responder's public address, as the initiator aims at it
    offers     in the order to try them
    in_turn    the caller gave a list: each offer gets its full turn before the next starts
    blind      the initiator sees no segments (no CAP_NET_RAW): one connection at a time, please
    patience_ms  how long the initiator waits, counted from its own start
    others     further addresses of the initiator's, where offers say so: its private one, for a peer behind the same
               NAT; "" where the responder's admission has struck one out
    """

    nonce: bytes
    initiator: str
    responder: str
    transport: str
    offers: tuple[Offer, ...]
    in_turn: bool = False
    blind: bool = False
    patience_ms: int = 10_000
    others: tuple[str, ...] = ()

    def address(self, offer: Offer) -> str:
        """Where the responder aims for it."""
        return self.others[offer.at - 1] if offer.at else self.initiator
