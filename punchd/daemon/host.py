"""What this host lets punchd do: opens the shared descriptors once, and names each capability that is missing.
Runs no attempt and decides no technique."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from punchd.daemon.config import HOLE_TTL_MAX
from punchd.edge import native, sockets
from punchd.edge.diag import SocketDiag
from punchd.edge.nfqueue import IcmpQueue
from punchd.edge.rules import Rules
from punchd.words.addresses import PUNCH_PORTS, PortRange

FLOWS = 1 << 18
_FIND_ERRORS = (OSError, ValueError, MemoryError)

T = TypeVar("T")


class Lack(msgspec.Struct, frozen=True, gc=False):
    """A capability that is missing: what was tried, what came back, the line that grants it."""

    capability: str
    reason: str
    grant: str


class Host(msgspec.Struct):
    """The daemon's shared descriptors; those that could not be had are None and listed in `lacks`.

    able: the capabilities that techniques ask for by name
        ring    own and incoming SYNs are seen (AF_PACKET, CAP_NET_RAW)
        raw     crafted segments can be sent (CAP_NET_RAW)
        repair  sockets can be made by TCP_REPAIR (CAP_NET_ADMIN)
        rules   the own kernel's RSTs are held back (nftables, CAP_NET_ADMIN)
        queue   time-exceeded of open attempts is dropped (NFQUEUE, CAP_NET_ADMIN); IP_MINTTL does without
    """

    flows: native.Flows
    ports: PortRange = PUNCH_PORTS
    ring: native.Ring | None = None
    raw: native.RawSender | None = None
    queue: IcmpQueue | None = None
    rules: Rules | None = None
    diag: SocketDiag | None = None
    able: frozenset[str] = frozenset()
    lacks: list[Lack] = msgspec.field(default_factory=list)

    def close(self) -> None:
        """Give everything back, the rules first: nothing is to be queued to a queue that is gone."""
        for edge in (self.rules, self.queue, self.ring, self.raw, self.diag):
            if edge is not None:
                edge.close()


def open_host(*, ports: PortRange = PUNCH_PORTS) -> Host:
    """Open what can be opened; never fails for want of privileges."""
    flows = native.Flows(FLOWS)
    host = Host(flows, ports)
    able: set[str] = set()

    def have(name: str, make: Callable[[], T]) -> T | None:
        try:
            made = make()
        except _FIND_ERRORS as error:
            host.lacks.append(Lack(name, str(error), _GRANTS[name]))
            return None
        able.add(name)
        return made

    host.diag = _open_diag()
    host.ring = have("ring", lambda: native.Ring(ports.low, ports.high, hole_ttl=HOLE_TTL_MAX, flows=flows))
    host.raw = have("raw", native.RawSender)
    have("repair", _try_repair)
    if "repair" not in able:
        # the same right, asked of the same namespace (netlink_net_capable, tcp_can_repair_sock); without it the
        # kernel answers a batch in a way that pyroute2 waits for ever to understand
        host.lacks += [Lack(name, "CAP_NET_ADMIN is missing", _GRANTS[name]) for name in ("queue", "rules")]
        host.able = frozenset(able)
        return host
    host.queue = have("queue", lambda: IcmpQueue(lambda packet: flows.get_quoted(packet) != 0))
    number = None if host.queue is None else host.queue.number
    host.rules = have("rules", lambda: Rules(ports, number))
    if host.rules is None and host.queue is not None:
        host.queue.close()
        host.queue = None
        able.discard("queue")
    host.able = frozenset(able)
    return host


def _open_diag() -> SocketDiag | None:
    """No technique lacks it: where the kernel has none, a trial bind asks nearly the same."""
    try:
        return SocketDiag()
    except OSError:
        return None


def _try_repair() -> bool:
    with sockets.unbound_stream() as sock:
        sockets.enter_repair(sock)
    return True


_NET_RAW = "run punchd as root, or with AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN in its unit"
_NET_ADMIN = _NET_RAW
_GRANTS = {
    "ring": _NET_RAW,
    "raw": _NET_RAW,
    "repair": _NET_ADMIN,
    "queue": _NET_ADMIN + "; the kernel needs CONFIG_NETFILTER_NETLINK_QUEUE",
    "rules": _NET_ADMIN + "; the kernel needs nf_tables with owner tables (Linux 5.12)",
}
