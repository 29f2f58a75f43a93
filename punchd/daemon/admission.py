"""From a parsed request to an attempt: who may ask, whether it makes sense, under which limits.
Performs nothing on the network and words no outcome; an attempt that it lets in belongs to the driver."""

from __future__ import annotations

import errno
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv4Address

from msgspec.structs import replace

from punchd.core import candidates, places, plan, predict, ttl
from punchd.core.attempt import Attempt
from punchd.core.initiating import Initiating
from punchd.core.ports import Dice, Ports
from punchd.core.probe import Probe
from punchd.core.responding import Responding
from punchd.core.techniques import TECHNIQUES
from punchd.core.terms import Terms
from punchd.daemon.config import HOLE_TTL, Config
from punchd.daemon.host import Host
from punchd.daemon.networks import Networks
from punchd.daemon.recent import HOPS, TIMED, Recent
from punchd.edge import gateway, sockets
from punchd.wire.descriptor import decode_descriptor
from punchd.wire.peer import decode_notification
from punchd.words.addresses import Endpoint, is_private, why_no_target
from punchd.words.errors import Code, HostError, PeerError, RequestError
from punchd.words.nat import Allocation, Descriptor, Face, Sample
from punchd.words.notification import NONCE_LEN, Notification
from punchd.words.plan import Row, View, meeting
from punchd.words.probing import Observation
from punchd.words.requests import SERVERS_MAX, FindEndpoint, Initiate, Place, Respond

NONCES_REMEMBERED = 65_536
NONCE_LIFE_S = 3600.0
ATTEMPTS, ENDPOINTS = "attempts", "endpoints"
SIDE_S = 0.05  # of a side channel that nobody has measured: a fast one
STUN_PORT = 3478  # RFC 8489, section 18.5
EYES = frozenset({"ring", "raw", "queue"})  # what a host lacks that can't see segments and send its own


class Admission:
    """The gate in front of the driver; keeps the budgets and the memory of notifications already acted on."""

    def __init__(self, config: Config, host: Host, dice: Dice) -> None:
        self._config, self._host = config, host
        self._dice = dice
        self._runnable = frozenset(name for name, one in TECHNIQUES.items() if one.needs <= host.able)
        self.ports = Ports(dice)
        self.networks = Networks(life_s=config.network_memory_s)
        self._open: dict[tuple[int, str], int] = {}
        self._limits = {ATTEMPTS: config.attempts_per_uid, ENDPOINTS: config.endpoints_per_uid}
        self._nonces: OrderedDict[bytes, float] = OrderedDict()
        self.recent = Recent()

    def enter(self, uid: int, what: str = ATTEMPTS) -> None:
        """Count one more open request of this user. RequestError: too-many-attempts."""
        held, limit = self._open.get((uid, what), 0), self._limits[what]
        if held >= limit:
            raise RequestError(
                Code.TOO_MANY_ATTEMPTS,
                f"user {uid} has {held} open {what}, as many as one user may have",
                cause={"limit": limit},
            )
        self._open[uid, what] = held + 1

    def leave(self, uid: int, what: str = ATTEMPTS) -> None:
        """One open request of this user has ended."""
        left = self._open[uid, what] - 1
        if left:
            self._open[uid, what] = left
        else:
            del self._open[uid, what]

    def ended(self, uid: int, attempt: Attempt, *, ok: bool) -> None:
        """An attempt of this user is over: the next one to the same peer may do better.

        A caller's own list says nothing of what `auto` would have done.
        """
        now = time.monotonic()
        if isinstance(attempt, Initiating) and not attempt.in_turn:
            transport = TECHNIQUES[attempt.rows[0].technique].transport
            self.recent.ended((uid, attempt.remote, transport), ok=ok, now=now)
        if isinstance(attempt, Initiating) and any(row.timed for row in attempt.rows):
            self.recent.ended((uid, attempt.remote, TIMED), ok=ok, now=now)
        if ok:
            self.recent.stays((uid, attempt.remote, HOPS), now)
        elif attempt.terms.hole_ttl == self._hole_ttl(uid, attempt.local, attempt.remote, now):
            # of many at once that fail with one TTL, the first one is news
            self.recent.ended((uid, attempt.remote, HOPS), ok=False, now=now)

    def initiating(self, request: Initiate, uid: int) -> Initiating:
        """An attempt for the request. RequestError or HostError say why not."""
        now, transport = time.monotonic(), str(request.transport)
        peers = self._usable("peer", request.peer, transport)
        techniques = self._techniques(request)
        peer = peers[0]
        remote = places.address(peer, transport)
        local = self._route(remote)
        owns = self._usable("self", request.self_ or (Place(self._config.public or local),), transport)
        own = owns[0]
        public = places.address(own, transport)
        times = plan.Times(
            time.time() * 1000,
            None if request.side_delay_ms is None else request.side_delay_ms / 1000,
            request.timeout_ms / 1000,
        )
        main = plan.rows(
            techniques,
            listed=bool(request.techniques),
            own=self._own_view(own, local, transport),
            peer=self._view(peer, remote, transport),
            times=times,
            fans=plan.fans(transport, self._host.able),
            tried=self.recent.tried((uid, remote, transport), now),
        )
        within, further = self._elsewhere(request, owns, peers, techniques, local=local, times=times)
        planned = plan.merged(main, further, within=within, order=request.techniques)
        if self.recent.tried((uid, remote, TIMED), now):  # its NAT is perhaps not what its class says
            planned = [plan.untimed(row) for row in planned]
        if peer.descriptor is not None:
            self._foresee(main, remote, transport, now, request.side_delay_ms)
        return Initiating(
            terms=self._terms(uid, local, remote, initiating=True, nonce=os.urandom(NONCE_LEN)),
            local=local,
            public=public,
            remote=remote,
            rows=planned,
            ports=self.ports,
            timeout_s=request.timeout_ms / 1000,
            now=now,
            early=request.early,
            in_turn=bool(request.techniques),
        )

    def responding(self, request: Respond, uid: int) -> Responding:
        """An attempt for the peer's notification. PeerError, RequestError or HostError say why not."""
        notification = decode_notification(request.notification, request.secret)
        self._check_sender(notification, request)
        offered = {offer.technique for offer in notification.offers}
        runnable = self._runnable & offered
        if not runnable:
            lacking = {name: sorted(TECHNIQUES[name].needs - self._host.able) for name in sorted(offered)}
            raise PeerError(
                Code.NO_COMMON_TECHNIQUE,
                f"the peer offers {', '.join(sorted(offered))}, none of which can run on this host",
                cause={"missing": lacking},
            )
        local = self._route(notification.initiator)
        admitted = self._admitted(notification, request, local)
        attempt = Responding(
            terms=self._terms(uid, local, notification.initiator, initiating=False, nonce=notification.nonce),
            local=local,
            notification=admitted,
            runnable=runnable,
            ports=self.ports,
            timeout_s=request.timeout_ms / 1000,
            now=time.monotonic(),
        )
        if not attempt.has_offers:
            raise PeerError(
                Code.NO_COMMON_TECHNIQUE,
                "the peer wants to fire first, and a host that sees no segments can't answer that",
                cause={"missing": {name: sorted(EYES - self._host.able) for name in sorted(offered)}},
            )
        self._remember(notification.nonce)
        return attempt

    def probing(self, request: FindEndpoint) -> list[Probe]:
        """A probe per transport. RequestError or HostError say why not."""
        named = [Endpoint(place.address, place.port or 0) for place in request.servers]
        servers = tuple(
            dict.fromkeys(Endpoint(server.address, server.port or STUN_PORT) for server in named or self._config.stun)
        )
        if not servers:
            raise RequestError(Code.NO_SERVER, "neither the request nor punchd's configuration names a STUN server")
        local = ""
        for server in servers[:SERVERS_MAX]:
            self._check_target(server.address, "servers")
            local = local or self._route(server.address)
        now = time.monotonic()
        return [
            Probe(
                transport=transport,
                servers=servers[:SERVERS_MAX],
                local=local,
                dice=self._dice,
                timeout_s=request.timeout_ms / 1000,
                keep=request.keep,
                now=now,
                epoch_ms=(time.time() - now) * 1000,
                allow_private=self._config.allow_private,
                keep_s=self._config.keepalive_s,
            )
            for transport in request.transports
        ]

    def sounding(self, request: FindEndpoint) -> Descriptor | None:
        """The peer to which the way is to be sounded. RequestError says why not."""
        if request.peer is None:
            return None
        peer = decode_descriptor(request.peer)
        for face in (peer.tcp, peer.udp):
            if face is not None:
                self._check_target(face.public.address, "peer")
        return peer

    def _terms(self, uid: int, local: str, remote: str, *, initiating: bool, nonce: bytes) -> Terms:
        blind = bool(EYES - self._host.able)
        return Terms(initiating, nonce, self._hole_ttl(uid, local, remote, time.monotonic()), blind)

    def _hole_ttl(self, uid: int, local: str, remote: str, now: float) -> int:
        if self._config.hole_ttl is not None:
            return self._config.hole_ttl
        found = self.networks.ttl(local)
        return ttl.rung(found or HOLE_TTL, self.recent.tried((uid, remote, HOPS), now), found=found is not None)

    def _techniques(self, request: Initiate) -> list[str]:
        for name in request.techniques:
            if name not in TECHNIQUES:
                raise RequestError(
                    Code.BAD_VALUE, f"techniques: there is no technique {name!r}", advice=_TECHNIQUES_ADVICE
                )
            if TECHNIQUES[name].transport != request.transport:
                raise RequestError(Code.BAD_VALUE, f"techniques: {name} is not for transport {request.transport}")
        runnable, missing = plan.choose(request.techniques or None, request.transport, self._host.able)
        if not runnable:
            raise HostError(Code.NOT_CAPABLE, "no technique asked for can run on this host", cause={"missing": missing})
        return runnable

    def _check_target(self, address: str, key: str) -> None:
        reason = why_no_target(address, allow_private=self._config.allow_private)
        if reason is not None:
            raise RequestError(Code.TARGET_REFUSED, f"{key}: {address} is {reason}; nothing is sent there")

    def _check_sender(self, notification: Notification, request: Respond) -> None:
        address = notification.initiator
        self._check_target(address, "notification")
        if not _within(address, request):
            raise RequestError(
                Code.TARGET_REFUSED,
                f"the notification comes from {address}, which is not within `from`",
                advice="widen `from`, or distrust the sender of this notification",
            )
        known = self._nonces.get(notification.nonce)
        if known is not None and known > time.monotonic():
            raise RequestError(Code.ALREADY_RESPONDED, "this notification has been responded to; nothing was sent")

    def _remember(self, nonce: bytes) -> None:
        now = time.monotonic()
        self._nonces[nonce] = now + NONCE_LIFE_S
        while self._nonces:
            oldest, expires = next(iter(self._nonces.items()))
            if expires > now and len(self._nonces) <= NONCES_REMEMBERED:
                break
            del self._nonces[oldest]

    def _route(self, remote: str) -> str:
        try:
            local = sockets.source_address(remote)
        except OSError as error:
            raise _no_route(remote, error) from error
        if local == remote:
            raise RequestError(Code.TARGET_REFUSED, f"{remote} is this host itself; nothing is sent there")
        return local

    def _usable(self, key: str, named: Sequence[Place], transport: str) -> list[Place]:
        return places.usable(
            key, named, transport,
            ports=self._config.ports, now_ms=time.time() * 1000, allow_private=self._config.allow_private,
        )  # fmt: skip

    def _elsewhere(
        self, request: Initiate, owns: list[Place], peers: list[Place], techniques: list[str],
        *, local: str, times: plan.Times,
    ) -> tuple[list[Row], list[list[Row]]]:  # fmt: skip
        """The rows of the way past a shared NAT, and of the ways that the caller named beside the first one."""
        if len(owns) == len(peers) == 1 and peers[0].descriptor is None:
            return [], []  # as most are, and thousands a second
        transport, trusted = str(request.transport), self._config.allow_private
        first, *others = candidates.ways(
            owns, peers, transport, local=local, is_near=lambda address: self._is_near(address, local)
        )
        within: list[Row] = []
        further: list[list[Row]] = []
        for way in others:
            if way.within:
                within = candidates.rows_within(way, techniques, trusted=trusted)
                continue
            public, remote = places.address(way.own, transport), places.address(way.peer, transport)
            if not self._leaves_from(local, remote):
                continue
            rows = plan.rows(
                techniques, listed=bool(request.techniques), own=self._view(way.own, public, transport),
                peer=self._view(way.peer, remote, transport), times=times,
            )  # fmt: skip
            elsewhere = public != places.address(first.own, transport)
            further.append([replace(row, remote=remote, public=public if elsewhere else "") for row in rows])
        return within, further

    def _is_near(self, address: str, local: str) -> bool:
        """Whether a private address that a peer names may be sent to: a neighbour's, without the operator's leave."""
        return self._leaves_from(local, address) and (self._config.allow_private or gateway.is_on_link(local, address))

    def _leaves_from(self, local: str, remote: str) -> bool:
        """Whether what goes there leaves from this address of ours, as all of an attempt does."""
        try:
            return self._route(remote) == local
        except (RequestError, HostError):
            return False

    def _admitted(self, notification: Notification, request: Respond, local: str) -> Notification:
        """Without those of its further addresses where nothing may be sent. RequestError: it offers nothing else."""
        if not notification.others:
            return notification
        others = tuple(
            address if self._may_reach(notification, place, request, local) else ""
            for place, address in enumerate(notification.others, 1)
        )
        admitted = replace(notification, others=others)
        if not any(admitted.address(offer) for offer in admitted.offers):
            raise RequestError(
                Code.TARGET_REFUSED,
                f"the notification offers nothing but {', '.join(notification.others)}, where nothing may be sent",
            )
        return admitted

    def _may_reach(self, notification: Notification, place: int, request: Respond, local: str) -> bool:
        """A private address only of a neighbour behind our own NAT, and for what proves itself (core/candidates.py)."""
        address = notification.others[place - 1]
        if why_no_target(address, allow_private=True) is not None or not _within(address, request):
            return False
        if not is_private(address):
            return self._leaves_from(local, address)
        proven = all(offer.technique in candidates.WITHIN for offer in notification.offers if offer.at == place)
        ours = proven and self.networks.shows(local, notification.initiator)
        return (self._config.allow_private or ours) and self._is_near(address, local)

    def _own_view(self, place: Place, local: str, transport: str) -> View:
        """Of our own NAT we know better than our descriptor what it has opened since."""
        known = places.view(place, transport)
        if known.face is None or known.nat.allocation is not Allocation.SEQUENTIAL or not known.face.samples:
            return known
        step, now = self.recent.step(transport, local), time.monotonic()
        tally = self.recent.tally(transport, local)
        line = tally.line(step) if step else []
        if len(line) < 2:
            age_s = max(0.0, time.time() - known.face.samples[-1].at_ms / 1000)
            taken, unsure = tally.since(tally.at(now - age_s))
            return replace(known, taken=taken, unsure=unsure)
        face = replace(known.face, samples=tally.samples(step, time.time() - now))
        taken, unsure = tally.since_seen(step)
        return replace(known, face=face, other=None, taken=taken, unsure=unsure)

    def _foresee(
        self, planned: Sequence[Row], remote: str, transport: str, now: float, side_delay_ms: float | None
    ) -> None:
        """What the attempt makes of a peer's NAT that counts is to be known to the next one."""
        for row in planned:
            if row.lanes is not None and meeting(row.lanes):
                self.recent.aims(transport, remote, meeting(row.lanes), now)
        if not (planned and planned[0].lanes is not None and meeting(planned[0].lanes)):
            side_s = SIDE_S if side_delay_ms is None else side_delay_ms / 1000
            # samples of the peer's from before do not show them
            self.recent.opened(remote, plan.mappings(planned)[1], now + side_s)

    def _view(self, place: Place, address: str, transport: str) -> View:
        """What the plan knows of the peer's side. Its samples are of another clock: how old they are is all we take."""
        known = places.view(place, transport)
        if known.face is None or not known.face.samples:
            return known
        last = known.face.samples[-1]
        probed = len(self.recent.samples(transport, address, last.at_ms + 1))
        aimed = self.recent.aimed(transport, address, time.monotonic())
        return replace(known, taken=self._sprayed(address, last) + probed, aimed=aimed)

    def describing(self, descriptor: Descriptor) -> Descriptor:
        """What we opened ourselves meanwhile is not to look foreign to the peer."""
        tcp, udp = descriptor.tcp, descriptor.udp
        return replace(
            descriptor,
            tcp=tcp and self._freshest(tcp, descriptor, "tcp"),
            udp=udp and self._freshest(udp, descriptor, "udp"),
        )

    def observed(self, observation: Observation) -> None:
        """A probe has seen a mapping of its own."""
        self.recent.observed(observation)
        self.networks.show(observation.local.address, observation.public.address)
        age_s = max(0.0, time.time() - observation.at_ms / 1000)
        self.recent.saw(observation, time.monotonic() - age_s)

    def _freshest(self, face: Face, descriptor: Descriptor, transport: str) -> Face:
        """With two samples that stand for all: where the counter must be now, and how fast others make it advance."""
        counts = face.nat.allocation is Allocation.SEQUENTIAL and bool(face.samples)
        self.recent.counts(transport, descriptor.host, face.nat.step if counts else 0)
        tally, now = self.recent.tally(transport, descriptor.host), time.monotonic()
        line = tally.line(face.nat.step) if counts else []
        if len(line) < 2:
            return face
        known = predict.course(tally.samples(face.nat.step, time.time() - now), face.nat.step)
        assert known is not None
        ours, _ = tally.since_seen(face.nat.step)
        samples = tuple(
            Sample(min(round((at + time.time() - now) * 1000), descriptor.made_ms), face.local_port, port)
            for at, port in (
                (line[0][0], known.port_of(ours - 2 - known.foreign)),
                (line[1][0], known.port_of(ours - 1)),
            )
        )
        return replace(face, samples=samples)

    def _sprayed(self, address: str, since: Sample) -> int:
        """How many mappings attempts of ours have made at this NAT since this sample's."""
        age_s = max(0.0, time.time() - since.at_ms / 1000)
        return self.recent.taken(address, time.monotonic() - age_s)


def _within(address: str, request: Respond) -> bool:
    return not request.from_ or any(IPv4Address(address) in prefix for prefix in request.from_)


def _no_route(remote: str, error: OSError) -> RequestError | HostError:
    match error.errno:
        case errno.EACCES:  # connect(2): a broadcast address, without SO_BROADCAST
            return RequestError(Code.TARGET_REFUSED, f"{remote} is a broadcast address; nothing is sent there")
        case errno.EMFILE | errno.ENFILE:
            return HostError(Code.OUT_OF_DESCRIPTORS, f"punchd has no descriptor left: {error.strerror}")
        case _:
            return HostError(
                Code.HOST_REFUSED,
                f"this host has no route to {remote}: {error.strerror}",
                advice="check the routes (ip route get)",
                cause={"call": "connect", "errno": error.errno},
            )


_TECHNIQUES_ADVICE = "one of " + ", ".join(TECHNIQUES)
