"""Reads the kinds' pages: kinds/<kind>.nft, one readable nftables file per kind of NAT.

It refuses to load them anywhere; topology.py does. A page's `# sysctl KEY=VALUE` lines are part of the kind,
an included page's lines come first, so the including page has the last word.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "kinds"

# Names that begin with an underscore are pages for hosts.
KINDS = tuple(sorted(page.stem for page in FOLDER.glob("[!_]*.nft")))

# Kinds without translation: the host itself bears the public address.
BARE = frozenset({"open", "firewall"})

_SYSCTL = re.compile(r"^# sysctl ([\w./]+)=(\S+)$", re.MULTILINE)
_INCLUDE = re.compile(r'^include "([\w.-]+)"$', re.MULTILINE)


def check(kind: str) -> str:
    """The kind's own name back, or a ValueError that lists those there are."""
    if kind not in KINDS:
        raise ValueError(f"no kind {kind!r}; there are: {', '.join(KINDS)}")
    return kind


def summary(kind: str) -> str:
    """What the kind is, in the words of its page's first line."""
    return _text(kind).partition("\n")[0].removeprefix(f"# {kind} - ")


def sysctls(kind: str) -> dict[str, str]:
    """The settings that belong to the kind."""
    text = _text(kind)
    found: dict[str, str] = {}
    for included in _INCLUDE.findall(text):
        found |= sysctls(included.removesuffix(".nft"))
    return found | dict(_SYSCTL.findall(text))


def rules(kind: str, variables: dict[str, str]) -> str:
    """The page as `nft -f -` wants it: the variables defined on top."""
    defines = "".join(f"define {name} = {value}\n" for name, value in variables.items())
    return f'{defines}include "{FOLDER / kind}.nft"\n'


def _text(kind: str) -> str:
    return (FOLDER / f"{kind}.nft").read_text(encoding="utf-8")
