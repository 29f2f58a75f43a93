"""What the initiator's punchd tells the responder's in one message over the applications' side channel.
Knows no encoding: wire/peer.py turns it into bytes and back."""

from __future__ import annotations

from dataclasses import dataclass

NONCE_LEN = 16
OFFERS_MAX = 16


@dataclass(frozen=True, slots=True)
class Syn:
    """The initiator's SYN as captured, for tcp-syni: what a forged copy must repeat."""

    seq: int
    window: int
    mss: int | None
    window_scale: int | None
    sack_permitted: bool
    timestamp: int | None


@dataclass(frozen=True, slots=True)
class Offer:
    """One candidate pair that the initiator has primed."""

    technique: str
    initiator_port: int
    responder_port: int
    syn: Syn | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """Everything the responder needs to finish without another word.

    nonce      names the attempt and seeds its secrets (sequence numbers, UDP tag); unpredictable to outsiders
    initiator  the initiator's public address, where the responder fires
    responder  the responder's public address, as the initiator aims at it
    offers     in the order to try them
    in_turn    the caller gave a list: each offer gets its full turn before the next starts
    blind      the initiator sees no segments (no CAP_NET_RAW): one connection at a time, please
    patience_ms  how long the initiator waits, counted from its own start
    """

    nonce: bytes
    initiator: str
    responder: str
    transport: str
    offers: tuple[Offer, ...]
    in_turn: bool = False
    blind: bool = False
    patience_ms: int = 10_000
