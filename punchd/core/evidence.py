"""What the packets of one pair did, for the verdict.
Concludes nothing: core/verdict.py does."""

from __future__ import annotations

import msgspec

from punchd.words.events import Signal


class Evidence(msgspec.Struct, gc=False):
    """What the packets of one pair did, for the verdict; nothing else is remembered of them."""

    own_syn: bool = False
    own_syn_ack: bool = False
    peer_syn: bool = False
    peer_syn_ack: bool = False
    signals: int = 0
    rst_ttl: int | None = None
    icmp: tuple[int, int, str] | None = None
    errno: int | None = None
    failed_effect: str | None = None
    connects: bool = False
    """A connect() was asked for, so a SYN of ours must leave."""
    acknowledged: bool = False
    """The peer's SYN-ACK acknowledged our SYN, so our kernel must react."""
    peer_ttl: int | None = None
    """The highest TTL of the peer's own segments: a RST with another one is some box's on the path."""
    other_port: int | None = None
    """The port of the peer's address from which a SYN came, if that is not the one it named."""
    other_syn_ack: bool = False
    """It was a SYN-ACK."""
    send_errno: int | None = None
    deaf: bool = False
    """The peer's word came, and our made socket did not hear it (yet)."""

    def told(self, signal: Signal) -> bool:
        """Whether the peer's punchd signalled this."""
        return bool(self.signals & 1 << signal)

    def heard(self) -> bool:
        """Whether the peer itself was heard at all."""
        return self.peer_syn or self.peer_syn_ack or self.signals > 0
