"""One modelled NAT that both sides stand behind: a home with two hosts, or a carrier's box with two customers.
It refuses to be two boxes: each side's leg is the same NAT, seen from that side's cable.

A packet to the box's own public address comes back in if the box does hairpinning (RFC 4787, REQ-9), and the box's
axes judge it both ways: out of the one leg, into the other.
"""

from __future__ import annotations

from typing import assert_never

from punchd.lab.model_kinds import Hairpin
from punchd.lab.model_nat import Nat
from punchd.lab.model_net import Carried, Datagram, IcmpError, Packet, Refused, Segment

_PORTS = 1 << 16  # an inside port of leg n is n * _PORTS + port to the NAT, which keeps the lower half


class Leg:
    """What Net asks of a box, for one of the two cables."""

    __slots__ = ("_hairpin", "_nat", "_number", "gateway", "is_end", "passes_errors", "public")

    def __init__(self, nat: Nat, number: int, hairpin: Hairpin) -> None:
        self._nat, self._number, self._hairpin = nat, number, hairpin
        self.gateway, self.public = nat.gateway, nat.public
        self.passes_errors = nat.passes_errors
        self.is_end = hairpin in (Hairpin.DROPPED, Hairpin.ANSWERED)

    def outbound(self, packet: Carried, now: float, remote: str) -> Carried | Refused | None:
        """A packet to the own public address, which is where the other side is."""
        match self._hairpin:
            case Hairpin.DROPPED:
                return None
            case Hairpin.ANSWERED:
                return Refused(0.0)
            case Hairpin.INTERNAL:
                # it arrives from an address that the other host has not spoken to
                self._nat.outbound(_moved(packet, src=self._number * _PORTS), now, remote)
                return None
            case Hairpin.EXTERNAL:
                return self._nat.outbound(_moved(packet, src=self._number * _PORTS), now, remote)
            case _:
                assert_never(self._hairpin)

    def inbound(self, packet: Packet, now: float, remote: str) -> Packet | Refused | None:
        """What came out of the other leg, or an error about what came out of this one."""
        passed = self._nat.inbound(packet, now, remote)
        if passed is None or isinstance(passed, Refused):
            return passed
        if isinstance(passed, IcmpError):
            leg = passed.quoted.src // _PORTS
            quoted = _moved(passed.quoted, src=-leg * _PORTS)
            return IcmpError(passed.type, passed.code, passed.sender, quoted) if leg == self._number else None
        leg = passed.dst // _PORTS
        return _moved(passed, dst=-leg * _PORTS) if leg == self._number else None

    def still_waits(self, packet: Segment, now: float, remote: str) -> bool:
        """Whether a SYN that was held has met none from inside."""
        return self._nat.still_waits(packet, now, remote)


def _moved(packet: Carried, *, src: int = 0, dst: int = 0) -> Carried:
    if not (src or dst):
        return packet
    src, dst = packet.src + src, packet.dst + dst
    if isinstance(packet, Datagram):
        return Datagram(src, dst, packet.data, packet.ttl)
    return Segment(src, dst, packet.flags, packet.seq, packet.ack, packet.window, packet.ttl, packet.length)
