"""What `endpoint` would tell of a modelled side: its class and samples of its ports, taken through its own boxes.
It refuses to know what no packet shows, unless the kind is named as a class as well (core/nicknames.py)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from punchd.core import classify, nicknames
from punchd.lab.model_kinds import By, Ending, Kind
from punchd.lab.model_net import Box, Carried, Datagram, Segment
from punchd.words.addresses import Endpoint
from punchd.words.events import SYN
from punchd.words.nat import Allocation, Dependence, Face, NatClass, Sample
from punchd.words.plan import View

SAMPLES = 10
GAP_S = 0.04
_SERVER = "192.0.2.1"
_FIRST_PORT, _SERVER_PORT = 21_000, 3478
_DEPENDENCES = {By.NOTHING: Dependence.INDEPENDENT, By.ADDRESS: Dependence.ADDRESS,
                By.ADDRESS_AND_PORT: Dependence.ADDRESS_AND_PORT}  # fmt: skip


def look(boxes: Sequence[Box], kinds: Sequence[Kind], nickname: str | None, transport: str, *, now: float) -> View:
    """The side as its endpoint probe found it just now. With a nickname, all that this says of the class."""
    samples = []
    for turn in range(SAMPLES):
        at, port = now - (SAMPLES - turn) * GAP_S, _FIRST_PORT + turn
        samples.append(Sample(int(at * 1000), port, _through(boxes, port, transport, at)))
    allocation, step = classify.allocation(samples)
    axes = [kind.tcp if transport == "tcp" else kind.udp for kind in kinds]
    widest = max((each.mapping for each in axes), key=lambda by: by.value)
    mapping = Dependence.INDEPENDENT if allocation is Allocation.PRESERVING else _DEPENDENCES[widest]
    known = NatClass(outlives_icmp=_outlives(kinds)) if nickname is None else nicknames.parse(nickname)
    nat = replace(known, mapping=mapping, allocation=allocation, step=step)
    face = Face(_FIRST_PORT, Endpoint(boxes[-1].public, samples[0].public_port), nat, tuple(samples))
    return View(nat, face=face)


def _outlives(kinds: Sequence[Kind]) -> bool | None:
    """As core/mortality.py finds it, which hears of no error that a box swallows."""
    endings = {kind.icmp for kind in kinds}
    return None if Ending.SWALLOWED in endings else Ending.KILLS not in endings


def _through(boxes: Sequence[Box], port: int, transport: str, at: float) -> int:
    packet: Carried = Datagram(port, _SERVER_PORT, b"", 64)
    if transport == "tcp":
        packet = Segment(port, _SERVER_PORT, SYN, 1, 0, 64240, 64)
    for box in boxes:
        passed = box.outbound(packet, at, _SERVER)
        assert isinstance(passed, Segment | Datagram), "every kind lets a first SYN and a datagram out"
        packet = passed
    return packet.src
