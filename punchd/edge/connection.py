"""One caller's connection: lines in, lines and descriptors out, over a non-blocking Unix stream socket.
It refuses to know what a line means: requests, ids and the wording of errors are the daemon's.

Theory of operation. At most LINES_PER_WAKE lines are handed on before other connections get their turn.
Output leaves at the end of the loop's turn, all lines of one turn together as far as descriptors allow, and queues
while the kernel does not take it. What is said to a line that came alone leaves at once, for nothing else is due, and
so does what its owner says `at_once`; to lines of which more wait for their turn, after HOLD_S: each time that a
flooding caller is woken costs the others.
A droppable line waits COMPANY_S for one that is not.

    flowing      at most UNREAD_MAX_LEN bytes queued; input is read
    stuffed      more than that: input is not read, the oldest droppable lines go, and a caller that takes no
                 byte for STUCK_S is closed; flowing again when half of the limit is reached
    half closed  the caller shut down its sending side: on_half_closed once, output goes on
    closed       hung up, closed by us, or broken: on_closed once; queued descriptors are closed
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
import sys
import termios
import time
from collections import deque
from collections.abc import Callable

import msgspec

LINE_MAX_LEN = 65_536
"""Bytes of one line, its newline included."""
UNREAD_MAX_LEN = 262_144
LINES_PER_WAKE = 4
"""So few that a caller with one request at a time waits for a flooding one no longer than for one of its own."""
HOLD_S = 0.0005
COMPANY_S = 0.005
STUCK_S = 10.0
RETRY_S = 0.01
"""Until the next try while too many descriptors are in flight on this host."""

_JOIN_MAX_LEN = 65_536
_READ_LEN = 16_384  # more is rarely there, and each read makes room for all of it
_JOIN_MAX = 256  # sendmsg(2) takes at most 1024 pieces
_GONE = (errno.EPIPE, errno.ECONNRESET)
_CTRUNC = int(socket.MSG_CTRUNC)  # an operation on an IntFlag takes 2 µs
_NO_SIGNAL, _SOCKET, _RIGHTS = int(socket.MSG_NOSIGNAL), socket.SOL_SOCKET, int(socket.SCM_RIGHTS)
_FD = struct.Struct("@i")


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """Who connected, as the kernel knew it at connect time."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    """Supplementary groups; empty when there are more than 256."""


class Callbacks(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner wants to know. All are called on the loop; none may block or raise."""

    on_line: Callable[[Connection, bytes], None]
    """One line without its newline, of 0 to LINE_MAX_LEN - 1 bytes."""
    on_overlong: Callable[[Connection], None]
    """A line grew beyond LINE_MAX_LEN; all of it is skipped."""
    on_descriptor: Callable[[Connection], None]
    """Descriptors came with the input; the kernel has already closed them."""
    on_half_closed: Callable[[Connection], None]
    on_closed: Callable[[Connection], None]
    with_dropped: Callable[[bytes, int], bytes]
    """The same line, saying how many lines were dropped before it."""


class _Outgoing(msgspec.Struct, gc=False, eq=False):
    line: bytes
    fd: int
    """-1: none. Ours until it was sent."""
    droppable: bool
    dropped: int = 0
    """What the line says was dropped before it."""


class Connection:
    """Hashable by identity; `number` never repeats within a server's life."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        number: int,
        credentials: Credentials,
        callbacks: Callbacks,
        forget: Callable[[int], None],
    ) -> None:
        self.number = number
        self.credentials = credentials
        self.half_closed = False
        self.closed = False
        self.unread_len = 0
        """Bytes in our queue; what the kernel holds is not counted."""
        self._loop = loop
        self._socket = sock
        self._callbacks = callbacks
        self._forget = forget
        self._lines: deque[bytes] = deque()
        """Complete ones that wait for their turn; no more is read while there are any."""
        self._rest = bytearray()
        """The beginning of a line."""
        self._skipping = False
        self._reading = False
        self._turn: asyncio.Handle | None = None
        self._output: deque[_Outgoing] = deque()
        self._droppable_count = 0
        self._dropped = 0
        self._writing = False
        self._parting: asyncio.Handle | None = None
        self._late: asyncio.TimerHandle | None = None
        """When droppable lines have waited long enough; left running when they had company."""
        self._answering = False
        """The owner has lines of the caller's; when what it says leaves is seen to when it is done."""
        self._held_s: float | None = None
        """Since when output may wait for the answers to further lines."""
        self._stuffed = False
        self._finishing = False
        self._retry: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._read_on()

    def send(self, line: bytes, fd: int | None = None, *, droppable: bool = False, at_once: bool = False) -> None:
        """Queue a line that ends in a newline. The descriptor is ours from now on, whatever happens.

        `at_once`: the owner has nothing else to say in this turn of the loop.
        """
        if self.closed or self._finishing:
            if fd is not None:
                os.close(fd)
            return
        self._output.append(_Outgoing(line, -1 if fd is None else fd, droppable))
        self._droppable_count += droppable
        self.unread_len += len(line)
        if not (self._writing or self._retry is not None):
            if (at_once and not self._lines) or self.unread_len > _JOIN_MAX_LEN:
                self._flush()
            elif droppable:
                if self._late is None:
                    self._late = self._loop.call_later(COMPANY_S, self._flush_late)
            elif not self._answering:
                self._part()
        if self.unread_len > UNREAD_MAX_LEN:
            self._drop_oldest()
            self._stuff()

    def finish(self) -> None:
        """Read no more, deliver what is queued, then close."""
        if self.closed:
            return
        self._finishing = True
        self._read_off()
        self._flush_soon()
        if not self._output:
            self.close()
        elif self._stuck is None:
            self._watch()

    def close(self) -> None:
        """Close at once; what the kernel does not take at once is lost, descriptors included."""
        if self._output and not (self._writing or self._retry is not None):
            self._flush()
        self._shut()

    def _shut(self) -> None:
        if self.closed:
            return
        if self._parting is not None:
            self._parting.cancel()
            self._parting = None
        self.closed = True
        self._read_off()
        self._write_off()
        for timer in (self._late, self._retry, self._stuck):
            if timer is not None:
                timer.cancel()
        self._late = self._retry = self._stuck = None
        for outgoing in self._output:
            if outgoing.fd >= 0:
                os.close(outgoing.fd)
        self._output.clear()
        self._lines.clear()
        self._rest.clear()
        self.unread_len = 0
        self._forget(self._socket.fileno())
        self._socket.close()
        self._callbacks.on_closed(self)

    # input

    def _read_on(self) -> None:
        if not (self._reading or self.half_closed or self.closed or self._finishing or self._stuffed):
            self._reading = True
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def _read_off(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket.fileno())

    def _readable(self) -> None:
        try:
            # No room for ancillary data: the kernel itself closes descriptors that come, and says so by
            # MSG_CTRUNC. None ever enters this process, not even for the moment that closing it would take.
            chunk, _, flags, _ = self._socket.recvmsg(_READ_LEN)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(error)
            return
        if flags & _CTRUNC:
            self._callbacks.on_descriptor(self)
        if self.closed or self._finishing:
            return
        if chunk:
            if chunk.find(b"\n") == len(chunk) - 1 and not (self._rest or self._lines or self._skipping):
                self._answer(chunk[:-1])
                return
            self._take(chunk)
            self._hand_on()
            return
        self._read_off()
        self._rest.clear()
        self.half_closed = True
        self._callbacks.on_half_closed(self)

    def _answer(self, line: bytes) -> None:
        """A line of a caller with one request at a time: another turn of the loop would only delay the answer."""
        self._answering = True
        self._callbacks.on_line(self, line)
        self._answering = False
        if self._is_urgent and self._parting is None and not (self._writing or self._retry is not None):
            self._flush()

    def _take(self, chunk: bytes) -> None:
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._rest:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._lines += lines
        self._rest += rest

    def _hand_on(self) -> None:
        """Give the owner its lines; what is too much for one turn waits for the loop's next one."""
        self._turn = None
        self._answering = True
        more = self._give()
        self._answering = False
        now = time.monotonic()
        if self._held_s is None:
            self._held_s = now
        if not more or now > self._held_s + HOLD_S:
            self._part()

    def _give(self) -> bool:
        """Whether there is to be another turn."""
        for _ in range(min(len(self._lines), LINES_PER_WAKE)):
            line = self._lines.popleft()
            if self._skipping:
                self._skipping = False
            elif len(line) < LINE_MAX_LEN:
                self._callbacks.on_line(self, line)
            else:
                self._callbacks.on_overlong(self)
            if self.closed or self._finishing:
                return False
            if self._stuffed:
                break
        self._read_more()
        return self._turn is not None

    def _read_more(self) -> None:
        """Lines that are here already first, then the socket; a line that is too long is let go at once."""
        if self._lines:
            self._read_off()
            if not self._stuffed:
                self._turn = self._loop.call_soon(self._hand_on)
            return
        if len(self._rest) >= LINE_MAX_LEN and not self._skipping:
            self._skipping = True
            self._callbacks.on_overlong(self)
        if self._skipping:
            self._rest.clear()
        self._read_on()

    # output

    def _part(self) -> None:
        """Write at the end of the loop's turn, unless there is mere news, or the kernel is waited for."""
        if self._is_urgent:
            self._flush_soon()

    @property
    def _is_urgent(self) -> bool:
        return len(self._output) > self._droppable_count

    def _flush_soon(self) -> None:
        if self._output and self._parting is None and not (self._writing or self._retry is not None):
            self._parting = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write until the queue is empty or the kernel takes no more."""
        self._held_s = None
        if self._parting is not None:
            self._parting.cancel()
            self._parting = None
        while self._output:
            try:
                sent_len = self._send_some()
            except BlockingIOError:
                self._write_on()
                break
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:
                    self._broken(error)
                    return
                # Others hold too many descriptors in flight: the socket is writable, so only time can tell.
                self._write_off()
                if self._retry is None:
                    self._retry = self._loop.call_later(RETRY_S, self._retry_flush)
                break
            self._took(sent_len)
        else:
            self._write_off()
        if self._stuffed and self.unread_len <= UNREAD_MAX_LEN // 2:
            self._unstuff()
        if self._finishing and not self._output:
            self.close()

    def _flush_late(self) -> None:
        self._late = None
        if self._output and not (self._writing or self._retry is not None):
            self._flush()

    def _retry_flush(self) -> None:
        self._retry = None
        self._flush()

    def _send_some(self) -> int:
        """One sendmsg: a run of lines, which ends with the first one that has a descriptor."""
        first = self._output[0]
        if len(self._output) == 1 and not first.droppable:
            return self._send_run([first.line], first)
        if self._dropped and first.droppable and not first.dropped:
            line = self._callbacks.with_dropped(first.line, self._dropped)
            self.unread_len += len(line) - len(first.line)
            first.line, first.dropped, self._dropped = line, self._dropped, 0
        run, run_len = list[bytes](), 0
        for outgoing in self._output:
            if run and (len(run) == _JOIN_MAX or run_len > _JOIN_MAX_LEN or (outgoing.droppable and self._dropped)):
                break
            run.append(outgoing.line)
            run_len += len(outgoing.line)
            if outgoing.fd >= 0:
                break
        return self._send_run(run, self._output[len(run) - 1])

    def _send_run(self, run: list[bytes], last: _Outgoing) -> int:
        if last.fd < 0:
            return self._socket.sendmsg(run, (), _NO_SIGNAL)
        sent_len = self._socket.sendmsg(run, [(_SOCKET, _RIGHTS, _FD.pack(last.fd))], _NO_SIGNAL)
        # Even a partial send has carried the descriptor; what is left of the lines goes without.
        os.close(last.fd)
        last.fd = -1
        return sent_len

    def _took(self, sent_len: int) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._watch()
        if sent_len == self.unread_len:
            self._output.clear()
            self._droppable_count = self.unread_len = 0
            return
        self.unread_len -= sent_len
        while sent_len:
            first = self._output[0]
            self._droppable_count -= first.droppable
            first.droppable = False  # no longer, once a byte of it has left
            if sent_len < len(first.line):
                first.line = first.line[sent_len:]
                return
            sent_len -= len(first.line)
            self._output.popleft()

    def _write_on(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket.fileno(), self._flush)

    def _write_off(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())

    def _broken(self, error: OSError) -> None:
        self._shut()
        if error.errno not in _GONE:  # not raised: it is not the fault of whoever had something to say
            self._loop.call_exception_handler({"message": "a caller's connection broke", "exception": error})

    # slow readers

    def _drop_oldest(self) -> None:
        """Drop droppable lines, oldest first, until the queue fits again or none is left."""
        if not self._droppable_count:
            return
        kept: deque[_Outgoing] = deque()
        for outgoing in self._output:
            if outgoing.droppable and self.unread_len > UNREAD_MAX_LEN:
                self.unread_len -= len(outgoing.line)
                self._droppable_count -= 1
                self._dropped += 1 + outgoing.dropped
            else:
                kept.append(outgoing)
        self._output = kept

    def _stuff(self) -> None:
        if not self._stuffed:
            self._stuffed = True
            self._read_off()
            if self._stuck is None:
                self._watch()

    def _unstuff(self) -> None:
        self._stuffed = False
        if self._finishing:
            return
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        if self._turn is None and not self.half_closed:
            self._read_more()

    def _watch(self) -> None:
        # We may write again only when three quarters of the kernel's buffer were read (net/unix/af_unix.c,
        # unix_writable), so what the caller takes before that is asked of the kernel itself.
        self._stuck = self._loop.call_later(STUCK_S, self._give_up, self._kernel_unread_len())

    def _give_up(self, unread_len: int) -> None:
        self._stuck = None
        if self._retry is not None or self._kernel_unread_len() < unread_len:
            self._watch()  # it reads, or too many descriptors in flight keep it waiting: not its fault
        else:
            self.close()

    def _kernel_unread_len(self) -> int:
        answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return int.from_bytes(answer, sys.byteorder)
