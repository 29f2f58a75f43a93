"""The table of techniques: each is one file, named as on the wire.
Decides nothing: core/plan.py chooses among them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import msgspec

from punchd.core.pair import Pair
from punchd.core.script import Script
from punchd.core.techniques import (
    tcp_birthday,
    tcp_direct,
    tcp_midstream,
    tcp_nutss,
    tcp_simopen,
    tcp_syni,
    udp,
    udp_birthday,
)


class Technique(msgspec.Struct, frozen=True):
    """`needs`: capabilities of the host, as named by `ping`, without which it can't run.

    `knocks`: primed, it opens no hole, so the responder's first packet is a stray at the initiator's NAT.
    """

    name: str
    transport: str
    initiator: Callable[[Pair], Script]
    responder: Callable[[Pair], Script]
    needs: frozenset[str]
    listens: bool
    knocks: bool = False


def _row(module: ModuleType, *, listens: bool = False, knocks: bool = False) -> Technique:
    name: str = module.NAME
    return Technique(name, name.partition("-")[0], module.initiator, module.responder, module.NEEDS, listens, knocks)


TECHNIQUES: dict[str, Technique] = {
    row.name: row
    for row in (
        _row(tcp_direct, listens=True, knocks=True),
        _row(tcp_simopen),
        _row(tcp_midstream),
        _row(tcp_syni),
        _row(tcp_nutss, listens=True),
        _row(tcp_birthday),
        _row(udp),
        _row(udp_birthday),
    )
}
