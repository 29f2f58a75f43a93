#!/usr/bin/env python3
"""A small endpoint server: tells each asker the address and port it is seen at, over UDP and TCP (STUN, RFC 8489).
It refuses everything but Binding requests, forgets within seconds, and never sends to any address but the asker's.

Two ports, and a second address where there is one, so that askers learn how their NAT maps; over UDP it answers
CHANGE-REQUEST too, so that they learn how it filters, and RESPONSE-PORT, so that they learn what outlives an ICMP error
(RFC 5780). Over TCP it calls the asker back instead, at the very address and port that asks, and says so when that was
in vain. It says what came back of such strays, an error or nothing: there, and over UDP to whoever asks again.
Run it beside rendezvous.py:

    ./endpoint_server.py --address 192.0.2.10 --address 192.0.2.11
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import socket
import struct
import time
from collections import Counter

COOKIE = 0x2112A442
REQUEST, RESPONSE, ERROR = 0x0001, 0x0101, 0x0111
CHANGE_REQUEST, ERROR_CODE, XOR_MAPPED, RESPONSE_PORT = 0x0003, 0x0009, 0x0020, 0x0027
ORIGIN, OTHER = 0x802B, 0x802C
STRAYS, NOTHING, REFUSED = 0xF0E1, 1, 2  # an attribute of our own, which others need not understand, and its values
CHANGE_ADDRESS, CHANGE_PORT = 4, 2
IP_RECVERR = 11  # ip(7); Python 3.11 does not name it
PORT_MIN = 1024  # what is below belongs to services, and no asker has to be answered there
REQUEST_MAX_LEN = 548
IDLE_S = 600  # how long a silent TCP connection may stay: askers keep their mapping by it
CONNECTIONS_MAX = 4096
CALL_S = 2.0  # the kernel sends its second SYN after a second; one may be lost, and the way be long
CALLS_MAX, CALLS_EACH = 256, 4  # at a time: in all, and to one address
REFUSALS = (errno.ECONNREFUSED, errno.EHOSTUNREACH)  # a RST or port unreachable, and any other unreachable
STRAYS_MAX, STRAYS_S = 4096, 10.0  # who is remembered, and for how long

Place = tuple[str, int]


class EndpointServer:
    """All ends of one server: (address, port) for each address and each port."""

    def __init__(self, addresses: list[str], ports: list[int]) -> None:
        self.addresses, self.ports = addresses, ports
        self.udp: dict[Place, socket.socket] = {}
        self.tcp: list[asyncio.Server] = []
        self.connections = 0
        self.calls: Counter[str] = Counter()
        self.calling: set[asyncio.Task[None]] = set()
        self.strays: dict[Place, tuple[float, int]] = {}
        """Whom strays were sent to over UDP, the oldest first: when, and what has come back."""

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for end in [(address, port) for address in self.addresses for port in self.ports]:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            sock.bind(end)
            self.udp[end] = sock
            loop.add_reader(sock, self.on_datagram, end)
            self.tcp.append(await asyncio.start_server(self.meet, *end, backlog=256))

    def elsewhere(self, end: Place, change: int = CHANGE_ADDRESS | CHANGE_PORT) -> Place:
        """The end with the other address and port; where there is only one address, with that."""
        address, port = end
        if change & CHANGE_ADDRESS:
            address = self.addresses[1 - self.addresses.index(address)] if len(self.addresses) > 1 else address
        if change & CHANGE_PORT:
            port = self.ports[1 - self.ports.index(port)]
        return address, port

    def on_datagram(self, end: Place) -> None:
        self.on_errors(self.udp[end])
        try:
            data, asker = self.udp[end].recvfrom(REQUEST_MAX_LEN)
            request = parse(data)
            if request is None:
                return
            transaction, change, port = request
            if port and port < PORT_MIN:
                return
            if change & CHANGE_ADDRESS and len(self.addresses) < 2:
                return  # it cannot be done, and silence is no lie
            source = self.elsewhere(end, change)
            said = answer(transaction, asker, source, self.elsewhere(end), strays=self.came_back(asker))
            if change:
                self.remember(asker)
            self.udp[source].sendto(said, (asker[0], port or asker[1]))
        except OSError:
            return  # an error that ICMP brought, or a full queue: the asker repeats its request

    def remember(self, asker: Place) -> None:
        """A stray leaves for the asker."""
        came = self.came_back(asker) or NOTHING
        self.strays.pop(asker, None)  # the youngest is the last
        self.strays[asker] = time.monotonic(), came
        if len(self.strays) > STRAYS_MAX:
            del self.strays[next(iter(self.strays))]

    def came_back(self, asker: Place) -> int:
        """What came back of strays that were sent to the asker lately; 0: there were none."""
        sent_at, came = self.strays.get(asker, (0.0, 0))
        return came if time.monotonic() - sent_at < STRAYS_S else 0

    def on_errors(self, sock: socket.socket) -> None:
        """Take what ICMP has brought: each comes with the address to which the datagram went."""
        while True:
            try:
                _, _, _, asker = sock.recvmsg(REQUEST_MAX_LEN, 0, socket.MSG_ERRQUEUE)
            except OSError:
                return
            if asker in self.strays:
                self.strays[asker] = self.strays[asker][0], REFUSED

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One TCP connection; any number of requests."""
        asker, end = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        self.connections += 1
        try:
            while self.connections <= CONNECTIONS_MAX:
                async with asyncio.timeout(IDLE_S):
                    head = await reader.readexactly(20)
                    length = struct.unpack_from("!H", head, 2)[0]
                    if length > REQUEST_MAX_LEN:
                        break
                    request = parse(head + await reader.readexactly(length))
                if request is None:
                    break
                if request[1] and self.may_call(asker[0], request[1]):
                    self.calls[asker[0]] += 1
                    task = asyncio.create_task(self.call(request, asker, end, writer))
                    self.calling.add(task)
                    task.add_done_callback(self.calling.discard)
                    continue
                writer.write(answer(request[0], asker, end, self.elsewhere(end)))
                await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            pass
        finally:
            self.connections -= 1
            writer.close()

    def may_call(self, address: str, change: int) -> bool:
        """Who may not be called gets a plain answer, which says as much."""
        able = len(self.addresses) > 1 or not change & CHANGE_ADDRESS
        return able and len(self.calling) < CALLS_MAX and self.calls[address] < CALLS_EACH

    async def call(
        self, request: tuple[bytes, int, int], asker: Place, end: Place, writer: asyncio.StreamWriter
    ) -> None:
        """Connect to the asker's own end, from another port, and another address if it wants so.

        It has answered a handshake from there, so nobody else can be made to be called. Who is reached needs no answer.
        """
        loop, began = asyncio.get_running_loop(), time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            try:
                sock.bind((self.elsewhere(end, request[1])[0], 0))
                async with asyncio.timeout(CALL_S):
                    await loop.sock_connect(sock, asker)
            except TimeoutError:
                writer.write(failure(request[0], NOTHING))
            except OSError as error:
                writer.write(failure(request[0], REFUSED if error.errno in REFUSALS else 0))
        await asyncio.sleep(CALL_S - (time.monotonic() - began))  # so CALLS_EACH bounds the rate, too
        self.calls[asker[0]] -= 1
        if not self.calls[asker[0]]:
            del self.calls[asker[0]]


def parse(data: bytes) -> tuple[bytes, int, int] | None:
    """Transaction id, CHANGE-REQUEST flags and RESPONSE-PORT (0: none) of a Binding request; None: it is none."""
    if len(data) < 20:
        return None
    kind, length, cookie, transaction = struct.unpack_from("!HHI12s", data)
    if kind != REQUEST or cookie != COOKIE or length != len(data) - 20 or length % 4:
        return None
    change, port, at = 0, 0, 20
    while at + 4 <= len(data):
        attribute, size = struct.unpack_from("!HH", data, at)
        if attribute == CHANGE_REQUEST and size == 4 and at + 8 <= len(data):
            change = struct.unpack_from("!I", data, at + 4)[0]
        if attribute == RESPONSE_PORT and size >= 2 and at + 6 <= len(data):
            port = struct.unpack_from("!H", data, at + 4)[0]
        at += 4 + (size + 3 & ~3)
    return transaction, change & (CHANGE_ADDRESS | CHANGE_PORT), port


def answer(transaction: bytes, asker: Place, source: Place, other: Place, *, strays: int = 0) -> bytes:
    """A Binding response; `strays`: what came back of those sent before."""
    address = int.from_bytes(socket.inet_aton(asker[0]), "big") ^ COOKIE
    body = struct.pack("!HHBBHI", XOR_MAPPED, 8, 0, 1, asker[1] ^ COOKIE >> 16, address)
    for kind, (host, port) in ((ORIGIN, source), (OTHER, other)):
        body += struct.pack("!HHBBH4s", kind, 8, 0, 1, port, socket.inet_aton(host))
    body += told(strays)
    return struct.pack("!HHI12s", RESPONSE, len(body), COOKIE, transaction) + body


def failure(transaction: bytes, strays: int) -> bytes:
    """A Binding error response: the call was in vain (447, Connection Timeout or Failure, RFC 6062)."""
    body = struct.pack("!HHHBB", ERROR_CODE, 4, 0, 4, 47) + told(strays)
    return struct.pack("!HHI12s", ERROR, len(body), COOKIE, transaction) + body


def told(strays: int) -> bytes:
    """What came back of strays as an attribute, if there is anything to be told."""
    return struct.pack("!HHI", STRAYS, 4, strays) if strays else b""


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--address", action="append", required=True, help="one of its own; a second one tells more")
    parser.add_argument("--port", type=int, default=3478)
    parser.add_argument("--other-port", type=int, default=3479)
    options = parser.parse_args()
    if len(options.address) > 2 or options.port == options.other_port:
        parser.error("one or two addresses, and two different ports")
    server = EndpointServer(options.address, [options.port, options.other_port])
    await server.open()
    print(f"endpoint server at {', '.join(options.address)}, ports {options.port} and {options.other_port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
