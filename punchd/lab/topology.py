"""The kernel lab's map: host a - NAT a - r1 - r2 - r3 - NAT b - host b, and a public server s on r2.

It refuses to leave anything behind: namespaces, processes and captures end with the `with` block, however it
ends, and it touches nothing outside the namespaces it made.

    10.0.1.2   203.0.113.2   198.18.12.x   198.18.23.x   198.51.100.2   10.0.2.2
    host a ------- NAT a ------- r1 ------- r2 ------- r3 ------- NAT b ------- host b
                                            |
                                            s 192.0.2.10

Where both sides stand behind the same box, b's side hangs on that one's inside, beside a's, and r3 leads nowhere:

    host a 10.0.1.2 ---+
                      NAT 10.0.1.1 | 203.0.113.2 ------- r1      (with boxes before it, it is 100.64.1.1,
    host b 10.0.1.3 ---+                                          and these are 100.64.1.2 and .3)

A packet of TTL 2 from host a clears NAT a and dies at r1. A kind of several layers has more boxes between NAT a
and r1, with 100.64/10 between them, and then it takes a TTL more for each. Kinds without translation keep their
box, as a plain router or filter, but the host behind it bears the public address itself. Delay and loss sit on r1-r2
and r2-r3, half on each, so that a - b, and a - s - b, are one `delay_ms` long.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from . import neighbours, pages
from .delayline import Impairment, start_line
from .namespace import Echo, Namespace, batch, new_prefix, remove, show

SERVER = "192.0.2.10"

# A router that never heard of these must not carry untranslated packets by accident.
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")

_SYSCTLS = {
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
    "net.ipv4.icmp_ratelimit": "0",
    "net.ipv4.icmp_msgs_per_sec": "1000000",
    "net.ipv4.icmp_msgs_burst": "100000",
}
_ROUTER_SYSCTLS = _SYSCTLS | {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
}
_SHARED_SYSCTLS = {
    "net.bridge.bridge-nf-call-iptables": "0",  # its bridge is a switch: what it joins is not filtered
    "net.ipv4.conf.all.send_redirects": "0",  # a packet that goes out where it came in is no mistake
    "net.ipv4.conf.inside.send_redirects": "0",
}


@dataclass(frozen=True, slots=True)
class _Edge:
    """The addresses on one side of the map, from the host outwards: of each cable its inner and its outer end."""

    cables: tuple[tuple[str, str], ...]
    public: str
    routed: str | None = None  # the subnet behind a box that does not translate

    @property
    def host(self) -> str:
        return self.cables[0][0]


@dataclass(frozen=True, slots=True)
class _End:
    """One end of a cable; without an address it belongs to a delay line."""

    place: Namespace
    interface: str
    address: str


_PUBLIC = ("203.0.113.2/24", "203.0.113.1/24")


def _shared_edge(boxes: Sequence[pages.Box], *, number: int, inside: str) -> _Edge:
    """Behind a box that the other side shares: its own cable outwards is drawn once, by `_PUBLIC`."""
    own = len(boxes) - 1
    nets = [f"10.0.{number}", *(f"100.{65 + layer}.{number}" for layer in range(own - 1))][:own]
    cables = [(f"{net}.2/24", f"{net}.1/24") for net in nets]
    return _Edge((*cables, (f"{inside}.{number + 1}/24", f"{inside}.1/24"), _PUBLIC), _bare(_PUBLIC[0]))


def _edge(boxes: Sequence[pages.Box], *, number: int, public: str) -> _Edge:
    if boxes[0].kind in pages.BARE:
        cables = ((f"{public}.2/25", f"{public}.1/25"), (f"{public}.130/25", f"{public}.129/25"))
        return _Edge(cables, f"{public}.2", routed=f"{public}.0/25")
    home = f"10.0.{number}"
    carrier = [f"100.{64 + layer}.{number}" for layer in range(len(boxes) - 1)]
    subnets = [home, *carrier, public]
    # the outer end is the gateway, .1; within the home and the carrier's net it is the next box
    return _Edge(tuple((f"{subnet}.2/24", f"{subnet}.1/24") for subnet in subnets), f"{public}.2")


class Lab:
    """Two hosts behind two NATs, for the length of a `with` block."""

    def __init__(
        self,
        kind_a: str,
        kind_b: str,
        *,
        delay_ms: float = 0.0,
        jitter_ms: float = 0.0,
        loss: float = 0.0,
        reorder: float = 0.0,
        duplicate: float = 0.0,
        seed: int = 1,
        pcap_dir: Path | None = None,
        hosts_conntrack: bool = False,
        echo: Echo | None = show,
    ) -> None:
        self.kind_a, self.kind_b = pages.check(kind_a), pages.check(kind_b)
        self.impairment = Impairment(
            delay_ms=delay_ms, jitter_ms=jitter_ms, loss=loss, reorder=reorder, duplicate=duplicate
        )
        self._seed, self._pcap_dir, self._echo = seed, pcap_dir, echo
        self._hosts_conntrack = hosts_conntrack
        pages.check_pair(kind_a, kind_b)
        kinds_a, kinds_b = pages.boxes(kind_a), pages.boxes(kind_b)
        self.shared = kinds_a[-1].shared
        if self.shared:
            inside = "10.0.1" if len(kinds_a) == len(kinds_b) == 1 else "100.64.1"
            self._edge_a = _shared_edge(kinds_a, number=1, inside=inside)
            self._edge_b = _shared_edge(kinds_b, number=2, inside=inside)
        else:
            self._edge_a = _edge(kinds_a, number=1, public="203.0.113")
            self._edge_b = _edge(kinds_b, number=2, public="198.51.100")
        self._lines: dict[str, list[str]] = {}
        self._old_handler: Callable[[int, FrameType | None], Any] | int | None = None
        self.prefix = new_prefix()
        self.public_a, self.public_b = self._edge_a.public, self._edge_b.public
        self.a = self._namespace("a", self._edge_a.host)
        self._boxes_a = self._boxes("a", kinds_a, self._edge_a)
        self.r1 = self._namespace("r1", "198.18.12.1")
        self.r2 = self._namespace("r2", "198.18.12.2")
        self.r3 = self._namespace("r3", "198.18.23.3")
        self._boxes_b = self._boxes("b", kinds_b[:-1] if self.shared else kinds_b, self._edge_b)
        if self.shared:
            last = self.nats_a[-1]
            self._boxes_b[last] = self._boxes_a[last]
        self.b = self._namespace("b", self._edge_b.host)
        self.server = self._namespace("s", SERVER)
        self._line = self._namespace("line", "") if self.impairment else None

    @property
    def nats_a(self) -> tuple[Namespace, ...]:
        """Side a's boxes, from the host outwards."""
        return tuple(self._boxes_a)

    @property
    def nats_b(self) -> tuple[Namespace, ...]:
        """Side b's boxes, from the host outwards."""
        return tuple(self._boxes_b)

    @property
    def nat_a(self) -> Namespace:
        """Host a's own box."""
        return self.nats_a[0]

    @property
    def nat_b(self) -> Namespace:
        """Host b's own box."""
        return self.nats_b[0]

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        routers = (self.r1, self.r2, self.r3)
        places = (self.a, *self.nats_a, *routers, *reversed(self.nats_b), self.b, self.server)
        return tuple(dict.fromkeys((*places, self._line) if self._line else places))

    def __enter__(self) -> Lab:
        self._catch_sigterm()
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _namespace(self, role: str, address: str) -> Namespace:
        return Namespace(self.prefix + role, _bare(address), echo=self._echo)

    def _boxes(self, side: str, kinds: Sequence[pages.Box], edge: _Edge) -> dict[Namespace, pages.Box]:
        names = [f"nat-{side}", f"cgn-{side}", f"cgn-{side}2"]
        return {
            self._namespace(name, cable[0]): kind
            for name, cable, kind in zip(names, edge.cables[1:], kinds, strict=False)
        }

    def _build(self) -> None:
        self._draw()
        batch(
            [f"netns add {place.name}" for place in self.namespaces] + self._lines.pop(""),
            inside=None,
            echo=self._echo,
        )
        for place in self.namespaces:
            settings = _SYSCTLS if place in (self.a, self.b) else _ROUTER_SYSCTLS
            for key, value in settings.items():
                place.sysctl(key, value)
        for name, lines in self._lines.items():
            batch(lines, inside=name, echo=self._echo)
        loaded = set[Namespace]()
        for boxes, edge in ((self._boxes_a, self._edge_a), (self._boxes_b, self._edge_b)):
            for (nat, box), cables in zip(boxes.items(), pairwise(edge.cables), strict=True):
                if nat not in loaded:
                    self._load(nat, box, host=_bare(cables[0][0]), public=_bare(cables[1][0]))
                loaded.add(nat)
        if self._hosts_conntrack:
            for host in (self.a, self.b):
                host.sysctl("net.netfilter.nf_conntrack_tcp_loose", "1")
                host.nft(pages.rules("_host", {}))
        if self._pcap_dir:
            self._capture(self._pcap_dir)
        if self._line:
            for router, interface in ((self.r1, "r2"), (self.r2, "r1"), (self.r2, "r3"), (self.r3, "r2")):
                # a forwarder in userspace needs whole checksums, and frames that fit the wire
                router.run(["ethtool", "-K", interface, "tx", "off"])
            half = self.impairment.half()
            start_line(self._line, "r1-r2", "r2-r1", half, seed=self._seed)
            start_line(self._line, "r2-r3", "r3-r2", half, seed=self._seed + 1)

    def _draw(self) -> None:
        """Put down each `ip` line under the namespace it runs in; '' is here."""
        self._lines = {"": [], **{place.name: ["link set lo up"] for place in self.namespaces}}
        for host, nats, router, edge in (
            (self.a, self.nats_a, self.r1, self._edge_a),
            (self.b, self.nats_b, self.r3, self._edge_b),
        ):
            places = (host, *nats, router)
            for (near, far), (near_address, far_address) in zip(pairwise(places), edge.cables, strict=True):
                near_end = _End(near, "eth0" if near is host else "outside", near_address)
                far_end = _End(far, "nat" if far is router else "inside", far_address)
                if self.shared and far is self.nats_a[-1]:
                    self._plug(near_end, far_end, first=host is self.a)
                elif not (self.shared and near is self.nats_a[-1] and host is self.b):
                    self._wire(near_end, far_end)
                else:
                    continue  # the shared box's own cable, which side a has drawn
                self._route(near, "default", far_address)
            if edge.routed:
                self._route(router, edge.routed, edge.cables[-1][0])
            self._lines[router.name].append(f"route add blackhole {neighbours.NOWHERE}")
        if self.shared:
            self._introduce()
        r1, r2, r3 = self.r1, self.r2, self.r3
        self._wire(_End(r1, "r2", "198.18.12.1/24"), _End(r2, "r1", "198.18.12.2/24"), line=True)
        self._wire(_End(r2, "r3", "198.18.23.2/24"), _End(r3, "r2", "198.18.23.3/24"), line=True)
        self._wire(_End(self.server, "eth0", f"{SERVER}/24"), _End(r2, "s", "192.0.2.1/24"))
        self._route(self.server, "default", "192.0.2.1")
        self._route(self.r1, "default", "198.18.12.2")
        self._route(self.r3, "default", "198.18.23.2")
        self._route(self.r2, "203.0.113.0/24", "198.18.12.1")
        self._route(self.r2, "198.51.100.0/24", "198.18.23.3")
        for router in (self.r1, self.r2, self.r3):
            self._lines[router.name] += [f"route add blackhole {subnet}" for subnet in _PRIVATE]

    def _wire(self, left: _End, right: _End, *, line: bool = False) -> None:
        """One cable. Neighbours are permanent: no first packet waits for ARP, none is lost with it."""
        if line and self._line:
            near = _End(self._line, f"{right.interface}-{left.interface}", "")
            far = _End(self._line, f"{left.interface}-{right.interface}", "")
            self._cable(left, near)
            self._cable(right, far)
        else:
            self._cable(left, right)
        for end, peer in ((left, right), (right, left)):
            self._lines[end.place.name] += [
                f"addr add {end.address} dev {end.interface}",
                f"neigh add {_bare(peer.address)} lladdr {_mac(peer)} nud permanent dev {end.interface}",
            ]

    def _plug(self, near: _End, far: _End, *, first: bool) -> None:
        """One of two cables into a shared box; a bridge joins them, so its neighbours reach each other past the NAT."""
        lines, port = self._lines[far.place.name], f"port-{'a' if first else 'b'}"
        if first:
            lines += [
                f"link add {far.interface} address {_mac(far)} type bridge",
                f"link set {far.interface} up",
                f"addr add {far.address} dev {far.interface}",
            ]
        self._cable(near, _End(far.place, port, ""))
        lines += [
            f"link set {port} master {far.interface}",
            f"neigh add {_bare(near.address)} lladdr {_mac(near)} nud permanent dev {far.interface}",
        ]
        self._lines[near.place.name] += [
            f"addr add {near.address} dev {near.interface}",
            f"neigh add {_bare(far.address)} lladdr {_mac(far)} nud permanent dev {near.interface}",
        ]

    def _introduce(self) -> None:
        """The two who share a box's inside know each other, too."""
        ends = []
        for host, nats, edge in ((self.a, self.nats_a, self._edge_a), (self.b, self.nats_b, self._edge_b)):
            place = (host, *nats)[-2]
            ends.append(_End(place, "eth0" if place is host else "outside", edge.cables[-2][0]))
        for end, other in (ends, reversed(ends)):
            self._lines[end.place.name].append(
                f"neigh add {_bare(other.address)} lladdr {_mac(other)} nud permanent dev {end.interface}"
            )

    def _cable(self, left: _End, right: _End) -> None:
        mac = f"address {_mac(right)} " if right.address else ""
        self._lines[""].append(
            f"link add {left.interface} address {_mac(left)} netns {left.place.name} type veth"
            f" peer name {right.interface} {mac}netns {right.place.name}"
        )
        for end in (left, right):
            self._lines[end.place.name].append(f"link set {end.interface} up")

    def _route(self, place: Namespace, subnet: str, gateway: str) -> None:
        self._lines[place.name].append(f"route add {subnet} via {_bare(gateway)}")

    def _load(self, nat: Namespace, box: pages.Box, *, host: str, public: str) -> None:
        for key, value in (pages.sysctls(box.kind) | (_SHARED_SYSCTLS if box.shared else {})).items():
            nat.sysctl(key, value)
        variables = {"inside": '"inside"', "outside": '"outside"', "host": host, "public": public}
        if "step" in box.parameters:
            variables["ports"] = pages.ports(box.parameters["step"])
        nat.nft(pages.rules(box.kind, variables, parts=["_hairpin"] if box.parameters.get("hairpin") else []))
        if foreign := box.parameters.get("foreign"):
            nat.popen([sys.executable, "-m", "punchd.lab.neighbours", str(foreign), str(self._seed)])

    def _capture(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        captures = []
        for place in self.namespaces:
            role = place.name.removeprefix(self.prefix)
            argv = ["tcpdump", "-i", "any", "-n", "-U", "--immediate-mode", "-Z", "root", "-w"]
            captures.append(place.popen([*argv, str(folder / f"{role}.pcap")], stderr=subprocess.PIPE, text=True))
        for capture in captures:
            # it says so once it listens; a lab that starts earlier loses its first packets
            assert capture.stderr is not None
            while (line := capture.stderr.readline()) and "listening on" not in line:
                pass
            if not line:
                raise RuntimeError(f"tcpdump ended at once with {capture.wait()}; is it installed?")

    def _catch_sigterm(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._old_handler = signal.signal(signal.SIGTERM, _leave)

    def _remove(self) -> None:
        """Undo everything; neither a second Ctrl-C nor a SIGTERM interrupts it."""
        main = threading.current_thread() is threading.main_thread()
        old_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        if main:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            for place in self.namespaces:
                with contextlib.suppress(OSError):
                    place.stop_children()
            remove([place.name for place in self.namespaces], echo=self._echo)
        finally:
            if main:
                signal.signal(signal.SIGINT, old_interrupt)
                signal.signal(signal.SIGTERM, self._old_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _bare(address: str) -> str:
    return address.partition("/")[0]


def _mac(end: _End) -> str:
    """A MAC in which the IPv4 address can be read: 10.0.1.2 is 02:00:0a:00:01:02."""
    return "02:00:" + ":".join(f"{int(octet):02x}" for octet in _bare(end.address).split("."))
