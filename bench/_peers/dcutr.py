"""py-libp2p: DCUtR between two hosts that have a relayed connection (circuit v2) through a relay on the public server.
Measures the upgrade alone: reservations and relayed connections are made beforehand, as others' signalling is free.

    python dcutr.py relay ADDRESS
    python dcutr.py {a|b} PATH COUNT CONCURRENCY TIMEOUT_S OWN_ADDRESS PEER_ADDRESS RELAY

Run by the Python of a virtual environment that has libp2p. RELAY is the address that the relay says when it is ready.
Each attempt is one pair of hosts, for a host punches to a peer once. Side a says "set up" and waits for a line on
stdin. An attempt went well when the direct connection is there: by then the handshakes of Noise and of the muxer have
gone both ways over it. The library's own loop, which punches whenever it comes by, and the plain dial that it tries
first, to a private address here, are switched off. Both sides print one JSON line at the end, as talk.py does.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.relay.circuit_v2.config import RelayConfig, RelayRole
from libp2p.relay.circuit_v2.dcutr import DCUtRProtocol
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID, STOP_PROTOCOL_ID, CircuitV2Protocol
from libp2p.relay.circuit_v2.resources import RelayLimits
from libp2p.relay.circuit_v2.transport import CircuitV2Transport
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

RELAY_PORT, FIRST_PORT = 4002, 6000
LIMITS = RelayLimits(duration=3600, data=1 << 30, max_circuit_conns=1000, max_reservations=1000)
LINGER_S = 0.5


async def relay(address: str) -> None:
    async with AsyncExitStack() as stack:
        host, _ = await _host(stack, address, RELAY_PORT, relays=True)
        print(f"/ip4/{address}/tcp/{RELAY_PORT}/p2p/{host.get_id()}", flush=True)
        await trio.sleep_forever()


async def answer(path: str, count: int, own: str, relayed_by: str) -> None:
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    sock, _ = await listener.accept()
    async with AsyncExitStack() as stack:
        names = []
        for number in range(count):
            host, transport = await _punching_host(stack, own, number, relayed_by)
            server = info_from_p2p_addr(Multiaddr(relayed_by)).peer_id
            if not await transport._make_reservation(await host.new_stream(server, [PROTOCOL_ID]), server):
                raise SystemExit("the relay refused a reservation")
            names.append(str(host.get_id()))
        await trio.SocketStream(sock).send_all(json.dumps(names).encode() + b"\n")
        await sock.recv(1)
        used = time.process_time()
        await sock.recv(1)
        _say({"cpu_s": time.process_time() - used})


async def call(path: str, count: int, concurrency: int, timeout_s: float, own: str, relayed_by: str) -> None:
    stream = await trio.open_unix_socket(path)
    text = b""
    while not text.endswith(b"\n"):
        text += await stream.receive_some()
    calls = []
    async with AsyncExitStack() as stack:
        for number, name in enumerate(json.loads(text)):
            host, transport = await _punching_host(stack, own, number, relayed_by)
            await transport.dial(Multiaddr(f"{relayed_by}/p2p-circuit/p2p/{name}"))
            calls.append((host, ID.from_string(name)))
        print("set up", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        await stream.send_all(b"x")
        free, times = trio.CapacityLimiter(concurrency), list[float]()
        begun, used = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            for host, peer in calls:
                nursery.start_soon(_attempt, host, peer, free, timeout_s, times)
        seconds, cpu_s = time.perf_counter() - begun, time.process_time() - used
        await trio.sleep(LINGER_S)
        await stream.aclose()
        _say({"ok": len(times), "times_ms": times, "seconds": seconds, "cpu_s": cpu_s})


async def _attempt(host: Any, peer: ID, free: trio.CapacityLimiter, timeout_s: float, times: list[float]) -> None:
    async with free:
        begun = time.perf_counter()
        direct = _Direct(peer)
        host.get_network().register_notifee(direct)
        with trio.move_on_after(timeout_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(host._dcutr_protocol.initiate_hole_punch, peer)
                await direct.there.wait()
                times.append(round(1000 * (time.perf_counter() - begun), 2))
                nursery.cancel_scope.cancel()


class _Direct:
    """Hears of each connection of a host; waits for one to this peer that no relay carries."""

    def __init__(self, peer: ID) -> None:
        self._peer = peer
        self.there = trio.Event()

    async def connected(self, _: Any, connection: Any) -> None:
        addresses = connection.get_transport_addresses()
        if connection.muxed_conn.peer_id == self._peer and any("p2p-circuit" not in str(one) for one in addresses):
            self.there.set()

    async def _ignore(self, *_: Any) -> None:
        pass

    disconnected = opened_stream = closed_stream = listen = listen_close = _ignore


async def _punching_host(
    stack: AsyncExitStack, own: str, number: int, relayed_by: str
) -> tuple[Any, CircuitV2Transport]:
    host, transport = await _host(stack, own, FIRST_PORT + number, relays=False)
    dcutr = DCUtRProtocol(host)

    async def never() -> None:
        await trio.sleep_forever()

    async def no(_: ID) -> bool:
        return False

    dcutr._auto_drive_loop, dcutr._try_unilateral_upgrade = never, no
    await stack.enter_async_context(background_trio_service(dcutr))
    await dcutr.event_started.wait()
    await host.connect(info_from_p2p_addr(Multiaddr(relayed_by)))
    return host, transport


async def _host(stack: AsyncExitStack, address: str, port: int, *, relays: bool) -> tuple[Any, CircuitV2Transport]:
    places = [Multiaddr(f"/ip4/{address}/tcp/{port}")]
    host = new_host(create_new_key_pair(), listen_addrs=places)  # RSA, which it would draw, takes a second
    roles = RelayRole.STOP | RelayRole.CLIENT | (RelayRole.HOP if relays else RelayRole.CLIENT)
    protocol = CircuitV2Protocol(host, LIMITS, allow_hop=relays)
    transport = CircuitV2Transport(host, protocol, RelayConfig(roles=roles, limits=LIMITS))
    await stack.enter_async_context(host.run(listen_addrs=places))
    host.set_stream_handler(STOP_PROTOCOL_ID, protocol._handle_stop_stream)
    if relays:
        host.set_stream_handler(PROTOCOL_ID, protocol._handle_hop_stream)
    await stack.enter_async_context(background_trio_service(protocol))
    await protocol.event_started.wait()
    return host, transport


def _say(words: dict[str, Any]) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(words | {"memory_mib": memory}), flush=True)
    os._exit(0)  # closing that many hosts takes seconds, and complains


def main() -> None:
    role, *rest = sys.argv[1:]
    if role == "relay":
        trio.run(relay, rest[0])
        return
    path, count, concurrency, timeout_s, own, _, relayed_by = rest
    if role == "b":
        trio.run(answer, path, int(count), own, relayed_by)
    else:
        trio.run(call, path, int(count), int(concurrency), float(timeout_s), own, relayed_by)


if __name__ == "__main__":
    main()
