"""What `endpoint` would tell of a modelled side: its class and samples of its ports, taken through its own boxes.
It refuses to know what no packet shows, unless the kind is named as a class as well (core/nicknames.py)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from punchd.core import classify, nicknames
from punchd.lab.model_kinds import By, Ending, Kind
from punchd.lab.model_net import Box, Carried, Datagram, Packet, Refused, Segment
from punchd.words.addresses import Endpoint
from punchd.words.events import ACK, SYN
from punchd.words.nat import Allocation, Dependence, Face, NatClass, Sample
from punchd.words.plan import View

SAMPLES = 10
GAP_S = 0.04
_SERVER, _SECOND = "192.0.2.1", "192.0.2.2"
_FIRST_PORT, _SERVER_PORT, _OTHER_PORT = 21_000, 3478, 3479
_PATIENCE_S = 2.0  # what comes back of a stray later than that is not waited for
_DEPENDENCES = {By.NOTHING: Dependence.INDEPENDENT, By.ADDRESS: Dependence.ADDRESS,
                By.ADDRESS_AND_PORT: Dependence.ADDRESS_AND_PORT}  # fmt: skip


def look(boxes: Sequence[Box], kinds: Sequence[Kind], nickname: str | None, transport: str, *, now: float) -> View:
    """The side as its endpoint probe found it just now. With a nickname, all that this says of the class."""
    drops, forgives = _strays(boxes, transport, now - (SAMPLES + 1) * GAP_S)
    samples = []
    for turn in range(SAMPLES):
        at, port = now - (SAMPLES - turn) * GAP_S, _FIRST_PORT + turn
        samples.append(Sample(int(at * 1000), port, _through(boxes, port, transport, at)))
    allocation, step = classify.allocation(samples)
    axes = [kind.tcp if transport == "tcp" else kind.udp for kind in kinds]
    widest = max((each.mapping for each in axes), key=lambda by: by.value)
    mapping = Dependence.INDEPENDENT if allocation is Allocation.PRESERVING else _DEPENDENCES[widest]
    measured = NatClass(outlives_icmp=_outlives(kinds), drops_strays=drops, forgives=forgives)
    known = measured if nickname is None else nicknames.parse(nickname)
    nat = replace(known, mapping=mapping, allocation=allocation, step=step)
    face = Face(_FIRST_PORT, Endpoint(boxes[-1].public, samples[0].public_port), nat, tuple(samples))
    return View(nat, face=face)


def _outlives(kinds: Sequence[Kind]) -> bool | None:
    """As core/mortality.py finds it, which hears of no error that a box swallows."""
    endings = {kind.icmp for kind in kinds}
    return None if Ending.SWALLOWED in endings else Ending.KILLS not in endings


def _strays(boxes: Sequence[Box], transport: str, at: float) -> tuple[bool | None, bool | None]:
    """As core/probe.py finds it: the second address sends a stray to one port, and answers another one afterwards."""
    far = _through(boxes, _FIRST_PORT + SAMPLES, transport, at)
    near = _through(boxes, _FIRST_PORT + SAMPLES + 1, transport, at, _SECOND)
    came = _into(boxes, _packet(transport, _OTHER_PORT, far), at)
    if came is not None and not isinstance(came, Refused):
        return None, None
    refused = came is not None and came.after_s < _PATIENCE_S
    heard = _into(boxes, _packet(transport, _SERVER_PORT, near, flags=SYN | ACK), at)
    return classify.strays(refused=refused, heard=heard is not None and not isinstance(heard, Refused))


def _packet(transport: str, src: int, dst: int, *, flags: int = SYN) -> Carried:
    if transport == "udp":
        return Datagram(src, dst, b"", 64)
    return Segment(src, dst, flags, 1, 2 if flags & ACK else 0, 64240, 64)


def _into(boxes: Sequence[Box], packet: Packet, at: float) -> Packet | Refused | None:
    """What becomes of a packet from the second address."""
    came: Packet | Refused | None = packet
    for box in reversed(boxes):
        if came is None or isinstance(came, Refused):
            break
        came = box.inbound(came, at, _SECOND)
    return came


def _through(boxes: Sequence[Box], port: int, transport: str, at: float, server: str = _SERVER) -> int:
    packet = _packet(transport, port, _SERVER_PORT)
    for box in boxes:
        passed = box.outbound(packet, at, server)
        assert isinstance(passed, Segment | Datagram), "every kind lets a first SYN and a datagram out"
        packet = passed
    return packet.src
