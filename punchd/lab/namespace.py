"""A network namespace by name: run programs in it, open sockets in it, read its connection table.

It refuses to touch a namespace it did not make: removal goes by the owner's pid, which is part of each name.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Echo = Callable[[str], None]

_FOLDER = Path("/run/netns")
_NAME = re.compile(r"pd(\d+)-([0-9a-f]+)-[0-9a-f]{4}-[\w-]+")
_CLONE_NEWNET = 0x40000000
_TERM_PATIENCE_S = 3.0
_LINE_LEN = 500
_LIBC = ctypes.CDLL(None, use_errno=True)


def show(command: str) -> None:
    """Print a command as the lab does, on stderr, so that results can be piped."""
    print(f"# {command}", file=sys.stderr)


def new_prefix() -> str:
    """A prefix that two runs never share and that tells whose the namespaces are: pid, its start, chance."""
    return f"pd{os.getpid()}-{_born(os.getpid())}-{secrets.token_hex(2)}-"


class Namespace:
    """One namespace; `address` is how others reach what is in it."""

    def __init__(self, name: str, address: str, *, echo: Echo | None) -> None:
        self.name = name
        self.address = address
        self._echo = echo
        self._children: list[subprocess.Popen[Any]] = []

    def __repr__(self) -> str:
        return f"Namespace({self.name!r}, {self.address!r})"

    def command(self, argv: Sequence[str]) -> list[str]:
        """The argv that runs `argv` inside; it is exec'd, so the pid is the program's own."""
        return ["ip", "netns", "exec", self.name, *argv]

    def popen(self, argv: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a program inside. It leads a session of its own, so that Ctrl-C reaches the lab, not it."""
        command = self.command(argv)
        self.say(command)
        kwargs.setdefault("start_new_session", True)
        child: subprocess.Popen[Any] = subprocess.Popen(command, **kwargs)
        self._children.append(child)
        return child

    def run(self, argv: Sequence[str], *, stdin: str = "", check: bool = True, timeout_s: float = 30) -> str:
        """Run a program inside to its end and give what it wrote on stdout."""
        command = self.command(argv)
        self.say(command, stdin)
        return _finish(command, stdin, check=check, timeout_s=timeout_s)

    def nft(self, rules: str) -> None:
        """Load rules into this namespace."""
        self.run(["nft", "-I", str(Path(__file__).parent / "kinds"), "-f", "-"], stdin=rules)

    def sysctl(self, key: str, value: str) -> bool:
        """Set what exists; False when this kernel has no such key here."""
        path = Path("/proc/sys") / key.replace(".", "/")
        with self.enter():
            if not os.access(path, os.W_OK):
                return False
            path.write_text(value, encoding="ascii")
        if self._echo:
            self._echo(f"ip netns exec {self.name} sysctl -w {key}={shlex.quote(value)}")
        return True

    @contextmanager
    def enter(self) -> Iterator[None]:
        """This thread is inside for the length of the block. Never across an await."""
        # setns(2): a thread moves alone, and descriptors stay in the namespace they were opened in
        with open("/proc/thread-self/ns/net", "rb") as home, open(_FOLDER / self.name, "rb") as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket that lives inside, whoever uses it."""
        with self.enter():
            return socket.socket(family, kind, protocol)

    def conntrack(self) -> list[str]:
        """The connection table, one line per entry, as the kernel prints it."""
        with self.enter():
            return Path("/proc/thread-self/net/nf_conntrack").read_text(encoding="ascii").splitlines()

    def say(self, command: Sequence[str], stdin: str = "") -> None:
        if self._echo:
            text = "\n".join(map(_short, stdin.rstrip().splitlines()))
            here = f" <<'END'\n{text}\nEND" if stdin else ""
            self._echo(shlex.join(command) + here)

    def stop_children(self) -> None:
        """End what was started through popen, by pid, politely at first."""
        for child in reversed(self._children):
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + _TERM_PATIENCE_S
        for child in reversed(self._children):
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children.clear()


def batch(lines: Sequence[str], *, inside: str | None, echo: Echo | None) -> None:
    """Run many `ip` commands as one process, in the namespace `inside` or in this one."""
    command = ["ip", *(["-n", inside] if inside else []), "-batch", "-"]
    if echo:
        for line in lines:
            echo(f"ip {f'-n {inside} ' if inside else ''}{line}")
    _finish(command, "\n".join(lines), check=True, timeout_s=30)


def remove(names: Iterable[str], *, echo: Echo | None = None) -> None:
    """Remove namespaces with all that still runs in them."""
    names = [name for name in names if (_FOLDER / name).exists()]
    inodes = {os.stat(_FOLDER / name).st_ino for name in names}
    for pid in _pids_in(inodes):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for name in names:
        try:
            batch([f"netns del {name}"], inside=None, echo=echo)
        except RuntimeError as error:
            print(f"lab: {error}", file=sys.stderr)


def stale() -> list[str]:
    """Namespaces of lab runs whose process is gone."""
    if not _FOLDER.is_dir():
        return []
    return [
        path.name
        for path in sorted(_FOLDER.iterdir())
        if (match := _NAME.fullmatch(path.name)) and _born(int(match[1])) != match[2]
    ]


def _born(pid: int) -> str:
    """When the process started, in ticks since boot: tells it from a later one with its number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # proc(5): field 22, counted after the name, which may hold anything but ends at the last bracket
    return format(int(stat.rpartition(")")[2].split()[19]), "x")


def _pids_in(inodes: set[int]) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            inode = os.stat(f"/proc/{entry}/ns/net").st_ino
        except OSError:
            continue
        if inode in inodes:
            found.append(int(entry))
    return found


def _finish(command: Sequence[str], stdin: str, *, check: bool, timeout_s: float) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout_s)
    if check and done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _short(line: str) -> str:
    """A line of thousands of elements would bury the others."""
    return line if len(line) <= _LINE_LEN else f"{line[:_LINE_LEN]} ... ({len(line)} characters)"


def _setns(fd: int) -> None:
    if _LIBC.setns(fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}; the lab needs root (CAP_SYS_ADMIN)")
