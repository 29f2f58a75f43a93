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
from contextlib import suppress

SIZE = 65536
_DIGEST = hashlib.sha256().digest_size
_CHUNK = 1024
_CHUNKS = SIZE // _CHUNK + 1  # the last one is the digest
_ALL = (1 << _CHUNKS) - 1
_HEAD = struct.Struct("!H16s")  # chunk number, and the set of chunks already here
_HAVE, _CONTENT = 0xFFFF, 0xFFFE  # no chunk: only the set; and the sender knows that the peer has all, too
_REPEAT_S, _REPEAT_MAX_S = 0.25, 0.5
"""Longer than the round trips of the record: what is repeated before an answer can have come fills the peer's receive
buffer, and whatever is said then is lost in it."""
_LAST_WORDS = 3
_SILENCE_S = 2.0  # several repetitions: who says nothing for so long has gone


class TransferError(Exception):
    """The handed-over socket did not carry both payloads whole."""


async def exchange(sock: socket.socket, *, patience_s: float) -> None:
    """Send and receive SIZE bytes; TransferError unless both arrived whole."""
    stream = sock.type == socket.SOCK_STREAM
    try:
        async with asyncio.timeout(patience_s):
            await (_stream(sock) if stream else _datagrams(sock))
    except TimeoutError:
        raise TransferError(f"not both ways within {patience_s:g} s") from None
    except OSError as error:
        raise TransferError(str(error)) from None
    if not stream:
        with suppress(OSError):  # this side has what it wanted
            await _linger(sock, patience_s)


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
    pause_s = _REPEAT_S
    while mine != _ALL or theirs != _ALL:
        for number in range(_CHUNKS):
            if not theirs >> number & 1:
                await _tell(sock, number, mine, payload)
        if theirs == _ALL:
            await _tell(sock, _HAVE, mine)
        deadline = loop.time() + pause_s
        pause_s = min(2 * pause_s, _REPEAT_MAX_S)
        while (mine != _ALL or theirs != _ALL) and (said := await _hear(sock, deadline)) is not None:
            number, has, chunk = said
            theirs |= has
            if number < _CHUNKS:
                had, mine = mine, mine | 1 << number
                here[number] = chunk
                if number == _CHUNKS - 1 or had != mine == _ALL:
                    await _tell(sock, _HAVE, mine)
    if not _whole(b"".join(here[number] for number in range(_CHUNKS))):
        raise TransferError("checksums differ")


async def _linger(sock: socket.socket, patience_s: float) -> None:
    """The peer may miss our last word, so whoever still sends gets it again: until it says its own, or is silent."""
    loop = asyncio.get_running_loop()
    began = heard_at = loop.time()
    for _ in range(_LAST_WORDS):
        await _tell(sock, _CONTENT, _ALL)
    while (now := loop.time()) < min(heard_at + _SILENCE_S, began + patience_s):
        said = await _hear(sock, now + _REPEAT_MAX_S)
        if said is not None:
            if said[0] == _CONTENT:
                return
            heard_at = loop.time()
            await _tell(sock, _CONTENT, _ALL)


async def _hear(sock: socket.socket, deadline: float) -> tuple[int, int, bytes] | None:
    """The next datagram's chunk number, what its sender has, and the chunk; None when the time is over."""
    loop = asyncio.get_running_loop()
    while (left_s := deadline - loop.time()) > 0:
        try:
            data = await asyncio.wait_for(loop.sock_recv(sock, 2048), left_s)
        except TimeoutError:
            return None
        except ConnectionRefusedError:
            continue
        if len(data) >= _HEAD.size:
            number, has = _HEAD.unpack_from(data)
            return number, int.from_bytes(has, "big"), data[_HEAD.size :]
    return None


async def _tell(sock: socket.socket, number: int, mine: int, payload: bytes = b"") -> None:
    chunk = payload[number * _CHUNK : (number + 1) * _CHUNK]
    try:
        await asyncio.get_running_loop().sock_sendall(sock, _HEAD.pack(number, mine.to_bytes(16, "big")) + chunk)
    except ConnectionRefusedError:
        pass  # an ICMP error of an earlier datagram; whether it matters, the missing chunks tell


def _sealed() -> bytes:
    payload = os.urandom(SIZE)
    return payload + hashlib.sha256(payload).digest()


def _whole(data: bytes) -> bool:
    return hashlib.sha256(data[:SIZE]).digest() == data[SIZE:]
