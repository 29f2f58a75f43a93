"""The listening Unix socket: made at a path in a hostile folder, or inherited from a service manager.
It refuses to follow a link, to unlink what is not ours, and to take a path that is still served.

How a path is taken. The lock file beside it (opened without following links, ours alone) is held for the
daemon's life, so its holder may look at the path in peace. What lies there is removed only when it is a
socket of ours that nobody answers. Then bind() itself creates the name: it neither follows a link nor
replaces anything (EADDRINUSE), so a stranger who is quicker costs us the start, never our safety. Nobody
can connect before listen(), which comes after mode, owner and group are set. In a folder that strangers
can write to without the sticky bit they could rename our socket at any time: such a folder is refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import MutableMapping

from punchd.words.errors import Code, HostError

BACKLOG = 1024
_SUN_PATH_MAX_LEN = 107  # sun_path of unix(7), without its final zero
_FIRST_INHERITED = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


class Listener:
    """Owns the listening socket and, where we made the path, the path and its lock."""

    __slots__ = ("_lock", "_made", "path", "socket")

    def __init__(self, sock: socket.socket, path: str, *, lock: int = -1) -> None:
        self.socket = sock
        self.path = path
        self._lock = lock
        self._made = os.lstat(path) if lock >= 0 else None

    def close(self) -> None:
        """Stop listening and remove what we made, in reverse order of making."""
        self.socket.close()
        if self._lock < 0:
            return
        _unlink_if(self.path, self._made)
        _unlink_if(_lock_path(self.path), os.fstat(self._lock))
        os.close(self._lock)
        self._lock = -1


def listen(path: str, *, mode: int = 0o660, owner: int | None = None, group: int | None = None) -> Listener:
    """Take the path. `owner` and `group` are what the socket's file gets; absent: our own."""
    if len(os.fsencode(path)) > _SUN_PATH_MAX_LEN:
        raise _refused(path, f"a socket's path has at most {_SUN_PATH_MAX_LEN} bytes", "choose a shorter --socket")
    _check_folder(path)
    lock = _lock_for(path)
    try:
        sock = _bind(path, mode=mode, owner=owner, group=group)
    except BaseException:
        _unlink_if(_lock_path(path), os.fstat(lock))
        os.close(lock)
        raise
    return Listener(sock, path, lock=lock)


def inherited(environ: MutableMapping[str, str], pid: int) -> Listener | None:
    """The socket that a service manager opened for this process, if any; the variables are consumed."""
    meant_for, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if meant_for != str(pid) or count in ("", "0"):
        return None
    if count != "1":
        raise _refused("LISTEN_FDS", f"it hands over {count} sockets", "hand over exactly one Unix stream socket")
    os.set_inheritable(_FIRST_INHERITED, False)
    sock = socket.socket(fileno=_FIRST_INHERITED)
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or not listens:
        sock.detach()
        raise _refused("LISTEN_FDS", "it is no listening Unix stream socket", "set ListenStream= to a path")
    sock.setblocking(False)
    return Listener(sock, os.fsdecode(sock.getsockname()))


def _check_folder(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    try:
        found = os.stat(folder)
    except OSError as error:
        raise _refused(folder, error.strerror or str(error), "create the folder or choose another --socket") from None
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(folder, "it is no folder", "choose another --socket")
    if found.st_uid not in (0, os.geteuid()):
        raise _refused(folder, f"it belongs to uid {found.st_uid}", "choose a folder of root or of your own")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
        raise _refused(folder, "others can rename what lies in it", f"chmod +t {folder}, or choose another --socket")


def _lock_path(path: str) -> str:
    return path + ".lock"


def _lock_for(path: str) -> int:
    """The lock's descriptor. Its holder may unlink it, so a lock that lost its name is taken anew."""
    name = _lock_path(path)
    while True:
        lock = _open_lock(name)
        try:
            _check_lock(lock, name)
        except BaseException:
            os.close(lock)
            raise
        if _is_at(name, os.fstat(lock)):
            return lock
        os.close(lock)


def _open_lock(name: str) -> int:
    # O_NONBLOCK: a FIFO put there must not hold us. No O_TRUNC: a file that is not ours stays as it is.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(name, flags, 0o600)
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror or str(error)
        raise _refused(name, reason, "remove it if it is a leftover, or choose another --socket") from None


def _check_lock(lock: int, name: str) -> None:
    found = os.fstat(lock)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
        raise _refused(name, f"uid {found.st_uid} put it there, not we", "remove it, or choose another --socket")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refused(name, "another punchd holds it", "stop that one, or choose another --socket") from None


def _bind(path: str, *, mode: int, owner: int | None, group: int | None) -> socket.socket:
    _clear_stale(path, owner)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise _refused(path, error.strerror or str(error), "choose another --socket") from None
    made = os.lstat(path)
    try:
        os.chmod(path, mode)
        os.chown(path, -1 if owner is None else owner, -1 if group is None else group, follow_symlinks=False)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        _unlink_if(path, made)
        raise _refused(path, error.strerror or str(error), "check --group and the folder's permissions") from None
    return sock


def _clear_stale(path: str, owner: int | None) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise _refused(path, "what lies there is no socket", "remove it, or choose another --socket")
    if found.st_uid not in (os.geteuid(), owner):
        raise _refused(path, f"it belongs to uid {found.st_uid}", "remove it, or choose another --socket")
    if _is_served(path):
        raise _refused(path, "somebody still serves it", "stop that one, or choose another --socket")
    _unlink_if(path, found)


def _is_served(path: str) -> bool:
    """Only a refused connection proves that nobody listens: a full backlog is served, too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        return probe.connect_ex(path) != errno.ECONNREFUSED


def _is_at(path: str, made: os.stat_result) -> bool:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino)


def _unlink_if(path: str, made: os.stat_result | None) -> None:
    if made is not None and _is_at(path, made):
        os.unlink(path)


def _refused(what: str, why: str, advice: str) -> HostError:
    return HostError(Code.HOST_REFUSED, f"cannot listen at {what}: {why}", advice=advice, cause={"path": what})
