"""The other programs as bench/peers.py runs them: how each is had, what it needs in the lab, how its two ends start.
Measures nothing but packets on the way; times and CPU are what the programs say.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from punchd.lab.namespace import Namespace
from punchd.lab.topology import SERVER, Lab

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_PACKAGES = _ROOT / "build" / "peers"
"""What is installed for peers, and nothing else; `./dev clean` removes it."""
_LIBP2P = _PACKAGES / "libp2p" / "bin" / "python"
_NICE = _PACKAGES / "nice"
_PATIENCE_S = 30.0


def _nothing() -> str:
    return ""


def _no_server(_: Lab) -> str:
    return SERVER


@dataclass(frozen=True, slots=True)
class Program:
    """One peer. `install` says what is in the way, if anything; `serve` starts what it needs on the public server."""

    name: str
    beside: str
    """Which of our techniques it is held beside."""
    command: tuple[str, ...]
    install: Callable[[], str] = _nothing
    serve: Callable[[Lab], str] = _no_server
    """What the ends are told as the last argument."""
    at_once: int = 1000
    """No more of it: it gets slower, or fails."""
    singly: bool = False
    """Through other pairs as well one at a time."""
    slow: bool = False
    """Many at once are no more than those one by one: setting them up takes longer than they do."""
    sets_up: bool = False
    """It says when it begins, and waits to be told to."""
    bar: bool = False
    """Nothing that one has to be ahead of: it has no proof and no interface."""


@dataclass(frozen=True, slots=True)
class Said:
    """What both ends said, and how many packets reached the middle router meanwhile."""

    ok: int
    times_ms: list[float]
    seconds: float
    cpu_s: float
    packets: int
    count: int


STUN_PORTS = (3578, 3579)
"""Not the usual ones: punchd's own server has those, on the same host."""


def perform(lab: Lab, program: Program, server: str, *, count: int, at_once: int, timeout_s: float) -> Said:
    """So many attempts, so many of them at once."""
    at_once = min(at_once, program.at_once)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:

        def start(host: Namespace, role: str, own: str, peer: str) -> subprocess.Popen[str]:
            argv = [*program.command, role, f"{folder}/signalling", str(count), str(at_once), str(timeout_s)]
            argv += [own, peer, server]
            ends = host.popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=_ROOT
            )
            stack.callback(_stop, ends)
            return ends

        b = start(lab.b, "b", lab.b.address, lab.public_a)
        _hear(b)
        before = packets(lab.r2)
        a = start(lab.a, "a", lab.a.address, lab.public_b)
        if program.sets_up:
            _hear(a)
            before = packets(lab.r2)
        said_a, said_b = (json.loads(end.communicate()[0]) for end in (a, b))
        came = packets(lab.r2) - before
    cpu_s = said_a["cpu_s"] + said_b["cpu_s"]
    return Said(said_a["ok"], said_a["times_ms"], said_a["seconds"], cpu_s, came, count)


def packets(router: Namespace) -> int:
    """What has come in on all its interfaces."""
    links = json.loads(router.run(["ip", "-s", "-j", "link"]))
    return sum(int(link["stats64"]["rx"]["packets"]) for link in links)


def _hear(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    line: str = program.stdout.readline()
    if not line:
        raise RuntimeError(f"{program.args} ended before it began")
    return line.strip()


def _stop(program: subprocess.Popen[Any]) -> None:
    if program.poll() is None:
        program.kill()
    program.wait(_PATIENCE_S)


def _install_hyper() -> str:
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "there is no node and npm"
    if (_PACKAGES / "node_modules" / "hyperdht").is_dir():
        return ""
    _PACKAGES.mkdir(parents=True, exist_ok=True)
    return _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(_PACKAGES), "hyperdht")


def _install_libp2p() -> str:
    folder = _LIBP2P.parents[1]
    if any(folder.glob("lib/python*/site-packages/libp2p")):
        return ""
    lack = _run(sys.executable, "-m", "venv", str(folder))
    return lack or _run(str(_LIBP2P), "-m", "pip", "install", "--disable-pip-version-check", "-q", "libp2p")


def _build_nice() -> str:
    """Every time: it takes a second, and the library may be another one since."""
    if shutil.which("pkg-config") is None or _run("pkg-config", "--exists", "nice"):
        return "its library is not here; on Debian: apt install libnice-dev pkg-config"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "nice"], capture_output=True, text=True, check=True)
    _PACKAGES.mkdir(parents=True, exist_ok=True)
    argv = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(_NICE), str(_HERE / "nice.c")]
    return _run(*argv, *flags.stdout.split())


def _run(*argv: str) -> str:
    """Nothing, or the end of what it complained of."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return f"{argv[0]}: {(done.stderr or done.stdout).strip()[-200:] or done.returncode}" if done.returncode else ""


def _serve(lab: Lab, *argv: str) -> str:
    """A program on the public server, which ends with the lab; what it says when it is ready."""
    return _hear(
        lab.server.popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    )  # fmt: skip


def _serve_hyper(lab: Lab) -> str:
    _serve(lab, "node", str(_HERE / "hyper.js"), str(_PACKAGES), "boot", SERVER)
    return SERVER


def _serve_libp2p(lab: Lab) -> str:
    return _serve(lab, str(_LIBP2P), str(_HERE / "dcutr.py"), "relay", SERVER)


def _python(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"bench._peers.{name}")


PROGRAMS = (
    Program("plain simultaneous open", "tcp-midstream", _python("simopen"), bar=True),
    Program("py-libp2p (DCUtR)", "tcp-midstream", (str(_LIBP2P), str(_HERE / "dcutr.py")), _install_libp2p,
            _serve_libp2p, at_once=10, slow=True, sets_up=True),
    Program("aioice", "udp", _python("ice")),
    Program("libnice", "udp", (str(_NICE),), _build_nice),
    # more at once are slower, and a hundred of them fail; a NAT that draws ports it meets once in 20 s at most
    Program("hyperdht", "udp", ("node", str(_HERE / "hyper.js"), str(_PACKAGES)), _install_hyper, _serve_hyper,
            at_once=10, singly=True),
)  # fmt: skip
