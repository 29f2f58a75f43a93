"""Asks the kernel which socket a segment would reach: the exact question before a port is used for a punch.
Changes nothing; needs no privilege.

sock_diag(7) with one request by address and ports is answered from the same tables that incoming segments are looked up
in (inet_diag.c, inet_diag_find_one_icsk): an ESTABLISHED or TIME-WAIT socket of this very 4-tuple, else a listener.
Unlike a trial bind() it is not disturbed by connections to other peers on the same port, of which there may be many.
"""

from __future__ import annotations

import errno
import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_ANSWER = struct.Struct("=4xH10xi")  # its kind and, of an error, the code
_REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_ADDRESSES = struct.Struct("!HH4s12x4s12x")
_ANY_COOKIE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # interface, INET_DIAG_NOCOOKIE
_ALL_STATES = 0xFFFFFFFF
_ASKING = _HEADER.pack(
    _HEADER.size + _REQUEST.size + _ADDRESSES.size + len(_ANY_COOKIE), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0
) + _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _ALL_STATES)
_ROOM = 4096
_PATIENCE = struct.pack("@ll", 1, 0)  # struct timeval: a second


class SocketDiag:
    """One netlink socket for the whole daemon. OSError where this kernel has no TCP diagnosis: see `bind` instead."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        try:
            # the answer is there when send returns; a kernel that is silent is none (Python's own timeout would poll)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
            self._try()
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()

    def holds(self, local: tuple[str, int], remote: tuple[str, int]) -> bool:
        """Whether a TCP segment from `remote` to `local` would meet a socket."""
        ends = _ADDRESSES.pack(local[1], remote[1], socket.inet_aton(local[0]), socket.inet_aton(remote[0]))
        self._socket.send(_ASKING + ends + _ANY_COOKIE)
        answer = self._socket.recv(_ROOM)
        kind, code = _ANSWER.unpack_from(answer)
        if kind != _NLMSG_ERROR:
            return True
        if code != -errno.ENOENT:
            raise OSError(-code, "sock_diag")
        return False

    def _try(self) -> None:
        """A kernel without tcp_diag says ENOENT to everything; a listener that must be found tells."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            if not self.holds(listener.getsockname(), ("127.0.0.1", 9)):
                raise OSError(errno.EOPNOTSUPP, "sock_diag knows no TCP sockets")
