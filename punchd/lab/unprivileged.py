"""Runs punchd as an ordinary user with chosen capabilities: `unprivileged none|net PUNCHD-OPTION ...`.
Keeps no privilege beyond the named ones; must be started by root.

The change happens inside the interpreter, after every import, so that it works from a checkout which that user may
not even read.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

NOBODY = 65534
_CAP_NET_ADMIN, _CAP_NET_RAW = 12, 13
CAPABILITIES = {"none": 0, "net": 1 << _CAP_NET_ADMIN | 1 << _CAP_NET_RAW}

_PR_SET_KEEPCAPS = 8
_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3


def become(capabilities: int, uid: int = NOBODY) -> None:
    """Change to the user, keeping just these capabilities (capabilities(7)). OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl PR_SET_KEEPCAPS")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    header = struct.pack("=Ii", _VERSION_3, 0)
    data = struct.pack("=6I", capabilities, capabilities, 0, 0, 0, 0)
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def main() -> None:
    """Import all that the daemon needs, drop, run."""
    import punchd.__main__ as program
    import punchd.daemon.service  # noqa: F401 - loads the C module and the libraries while they can be read

    become(CAPABILITIES[sys.argv.pop(1)])
    program.main()


if __name__ == "__main__":
    main()
