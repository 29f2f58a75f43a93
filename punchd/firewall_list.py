"""The rules of this host, listed by its own programs: nft (for iptables-nft, too) and iptables-legacy-save.
It refuses to judge them (firewall.py does), and never loads a kernel module to find that it is empty.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from punchd import firewall
from punchd.firewall import Drop, Packet, Ruleset

LISTING_PATIENCE_S = 5.0

_SBIN = ":/usr/sbin:/sbin"  # where a user's PATH does not lead
_LEGACY_NAMES = Path("/proc/thread-self/net/ip_tables_names")
_SUDO = "sudo punchctl doctor (or give punchctl CAP_NET_ADMIN)"


class Unseen(msgspec.Struct, frozen=True, gc=False):
    """What could not be looked at, why, and the line that grants it."""

    what: str
    reason: str
    grant: str


class Rules(msgspec.Struct, frozen=True, gc=False):
    """All that filters here."""

    rulesets: tuple[Ruleset, ...] = ()
    unseen: tuple[Unseen, ...] = ()

    @property
    def tracks(self) -> bool:
        """Whether rules make this host track connections."""
        return any(ruleset.tracks for ruleset in self.rulesets)

    @property
    def tables(self) -> tuple[str, ...]:
        """Their names, with their families."""
        return tuple(table for ruleset in self.rulesets for table in ruleset.tables)

    def dropped(self, packet: Packet) -> tuple[Drop, str] | None:
        """The rule that drops the packet, one that does so for sure before one that may, and the line that mends it."""
        found = [(drop, one.tool) for one in self.rulesets if (drop := firewall.dropped(one, packet)) is not None]
        found.sort(key=lambda pair: not pair[0].sure)
        return (found[0][0], found[0][0].mend(packet, found[0][1])) if found else None


def look() -> Rules:
    """List what there is; never fails."""
    rulesets: list[Ruleset] = []
    unseen: list[Unseen] = []
    for what, listing in (("nftables", _nft), ("iptables-legacy", _legacy)):
        try:
            ruleset = listing()
        except PermissionError as error:
            unseen.append(Unseen(what, str(error), _SUDO))
        except FileNotFoundError as error:
            unseen.append(Unseen(what, str(error), "sudo apt-get install nftables iptables"))
        except (OSError, subprocess.SubprocessError) as error:
            unseen.append(Unseen(what, str(error), "see what the command says by hand"))
        else:
            rulesets += [ruleset] if ruleset else []
    return Rules(tuple(rulesets), tuple(unseen))


def _nft() -> Ruleset:
    return firewall.parse(_run(["nft", "-a", "list", "ruleset"]))


def _legacy() -> Ruleset | None:
    """iptables-legacy has rules only if its tables have names; asking it for more would load its modules."""
    if not _LEGACY_NAMES.exists() or not _LEGACY_NAMES.read_text(encoding="utf-8").strip():
        return None
    saved = _run(["iptables-legacy-save"])
    translated = _run(["iptables-restore-translate", "-f", "/dev/stdin"], stdin=saved)
    return firewall.parse_translated(translated, "iptables-legacy")


def _run(argv: list[str], stdin: str = "") -> str:
    program = shutil.which(argv[0], path=os.environ.get("PATH", os.defpath) + _SBIN)
    if program is None:
        raise FileNotFoundError(f"{argv[0]} is not installed")
    done = subprocess.run(
        [program, *argv[1:]], input=stdin, capture_output=True, text=True, timeout=LISTING_PATIENCE_S, check=False
    )
    if done.returncode:
        said = " ".join(done.stderr.split())
        kind = PermissionError if "not permitted" in said.lower() or "permission denied" in said.lower() else OSError
        raise kind(f"{' '.join(argv)}: {said}")
    return done.stdout
