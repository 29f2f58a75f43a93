"""64 KiB each way over a handed-over socket, with checksums: the lab's definition of a connection that works.

It refuses to trust a half: it ends well only when this side has all of the peer's bytes, they hash to what
the peer says, and the peer has said the same of ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import struct

SIZE = 65536
_DIGEST = hashlib.sha256().digest_size
_CHUNK = 1024
_CHUNKS = SIZE // _CHUNK + 1  # the last one is the digest
_ALL = (1 << _CHUNKS) - 1
_HEAD = struct.Struct("!H16s")  # chunk number, and the set of chunks already here
_NO_CHUNK = 0xFFFF
_FAREWELLS = 4


class TransferError(Exception):
    """The handed-over socket did not carry both payloads whole."""


async def exchange(sock: socket.socket, *, patience_s: float) -> None:
    """Send and receive SIZE bytes; TransferError unless both arrived whole."""
    both = _stream if sock.type == socket.SOCK_STREAM else _datagrams
    try:
        async with asyncio.timeout(patience_s):
            await both(sock)
    except TimeoutError:
        raise TransferError(f"not both ways within {patience_s:g} s") from None
    except OSError as error:
        raise TransferError(str(error)) from None


async def _stream(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    payload = _sealed()
    sending = asyncio.create_task(loop.sock_sendall(sock, payload), name="sending")
    try:
        if not _whole(await _read(sock, SIZE + _DIGEST)):
            raise TransferError("checksums differ")
        await sending
        # one more byte each way: the peer has ours whole too
        await loop.sock_sendall(sock, b"!")
        if await _read(sock, 1) != b"!":
            raise TransferError("the peer said something else than yes")
    finally:
        sending.cancel()


async def _read(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        more = await loop.sock_recv(sock, size - len(data))
        if not more:
            raise TransferError(f"the stream ended after {len(data)} of {size} bytes")
        data += more
    return data


async def _datagrams(sock: socket.socket) -> None:
    """Every datagram says what its sender has, so each side repeats only what is missing."""
    loop = asyncio.get_running_loop()
    payload = _sealed()
    here: dict[int, bytes] = {}
    mine = theirs = 0
    pause_s = 0.02
    while mine != _ALL or theirs != _ALL:
        for number in range(_CHUNKS):
            if not theirs >> number & 1:
                await _tell(sock, number, mine, payload)
        if theirs == _ALL:
            await _tell(sock, _NO_CHUNK, mine, payload)
        deadline = loop.time() + pause_s
        pause_s = min(2 * pause_s, 0.5)
        while (left_s := deadline - loop.time()) > 0 and (mine != _ALL or theirs != _ALL):
            try:
                data = await asyncio.wait_for(loop.sock_recv(sock, 2048), left_s)
            except TimeoutError:
                break
            except ConnectionRefusedError:
                continue
            if len(data) < _HEAD.size:
                continue
            number, has = _HEAD.unpack_from(data)
            theirs |= int.from_bytes(has, "big")
            if number < _CHUNKS:
                here[number] = data[_HEAD.size :]
                mine |= 1 << number
    # the peer may still miss our last word; it asks for nothing else
    for _ in range(_FAREWELLS):
        await _tell(sock, _NO_CHUNK, mine, payload)
        await asyncio.sleep(0.005)
    if not _whole(b"".join(here[number] for number in range(_CHUNKS))):
        raise TransferError("checksums differ")


async def _tell(sock: socket.socket, number: int, mine: int, payload: bytes) -> None:
    chunk = b"" if number == _NO_CHUNK else payload[number * _CHUNK : (number + 1) * _CHUNK]
    try:
        await asyncio.get_running_loop().sock_sendall(sock, _HEAD.pack(number, mine.to_bytes(16, "big")) + chunk)
    except ConnectionRefusedError:
        pass  # an ICMP error of an earlier datagram; whether it matters, the missing chunks tell


def _sealed() -> bytes:
    payload = os.urandom(SIZE)
    return payload + hashlib.sha256(payload).digest()


def _whole(data: bytes) -> bool:
    return hashlib.sha256(data[:SIZE]).digest() == data[SIZE:]
