"""Reads the kinds' pages: kinds/<kind>.nft, one readable nftables file per kind of NAT.

It refuses to load them anywhere; topology.py does. Beside its rules a page may say, in lines of their own:

    # sysctl KEY=VALUE     belongs to the kind; an included page's lines come first, the including page's win
    # parameter NAME=VALUE is what `kind:NAME=OTHER,...` changes, as in `sequential:step=2,foreign=20`
    # behind KIND          another box stands between this one and the Internet

`one/other` is any kind behind any other: `linux-reject/linux` is a cgn whose home router answers strays. The
outermost box of both sides may be the same: `same:linux` is a home of two hosts, `linux/same:linux` a home of a CGN.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "kinds"

# Names that begin with an underscore are pages for hosts, and parts of pages.
KINDS = tuple(sorted(page.stem for page in FOLDER.glob("[!_]*.nft")))

# Kinds without translation: the host itself bears the public address.
BARE = frozenset({"open", "firewall"})

MOST_LAYERS = 3

# What `same:KIND` puts before the kind of a box that both sides stand behind.
_SAME = "same:"

# What a `sequential` box has to give away.
_FIRST_PORT, _PORTS = 32768, 16384

_SYSCTL = re.compile(r"^# sysctl ([\w./]+)=(\S+)$", re.MULTILINE)
_PARAMETER = re.compile(r"^# parameter (\w+)=(\S+)$", re.MULTILINE)
_BEHIND = re.compile(r"^# behind ([\w-]+)$", re.MULTILINE)
_INCLUDE = re.compile(r'^include "([\w.-]+)"$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Box:
    """One kind of box with its parameters."""

    kind: str
    parameters: Mapping[str, int]
    shared: bool = False  # with the other side


def check(text: str) -> str:
    """The kind as it was given, or a ValueError that says what is wrong with it."""
    boxes(text)
    return text


def boxes(text: str) -> tuple[Box, ...]:
    """What stands between a host and the Internet, from the host outwards."""
    *own, last = text.split("/")
    found = [box for layer in own for box in _layer(layer)]
    found += _shared(last.removeprefix(_SAME)) if last.startswith(_SAME) else _layer(last)
    if len(found) > 1 and BARE & {box.kind for box in found}:
        raise ValueError(f"kind {text!r}: {' and '.join(sorted(BARE))} stand alone")
    if len(found) > MOST_LAYERS:
        raise ValueError(f"kind {text!r} has {len(found)} layers; the lab has room for {MOST_LAYERS}")
    return tuple(found)


def check_pair(a: str, b: str) -> None:
    """A ValueError unless both sides stand behind the same box, or neither behind one that is shared."""
    ends = [boxes(kind)[-1] for kind in (a, b)]
    if any(box.shared for box in ends) and ends[0] != ends[1]:
        raise ValueError(f"kinds {a!r} and {b!r}: a shared box is the outermost one of both sides, in the same words")


def summary(kind: str) -> str:
    """What the kind is, in the words of its page's first line."""
    return _text(kind).partition("\n")[0].removeprefix(f"# {kind} - ")


def parameters(kind: str) -> dict[str, int]:
    """What can be set, and to what it is unless it is."""
    return {name: int(value) for name, value in _PARAMETER.findall(_text(kind))}


def sysctls(kind: str) -> dict[str, str]:
    """The settings that belong to the kind."""
    text = _text(kind)
    found: dict[str, str] = {}
    for included in _INCLUDE.findall(text):
        found |= sysctls(included.removesuffix(".nft"))
    return found | dict(_SYSCTL.findall(text))


def rules(kind: str, variables: Mapping[str, str], *, parts: Sequence[str] = ()) -> str:
    """The page and parts of others as `nft -f -` wants them: the variables defined on top."""
    defines = "".join(f"define {name} = {value}\n" for name, value in variables.items())
    return defines + "".join(f'include "{FOLDER / page}.nft"\n' for page in (kind, *parts))


def ports(step: int) -> str:
    """The ports of a `sequential` box as the map that its page wants."""
    return f"{{ {', '.join(f'{n} : {port}' for n, port in enumerate(order(step)))} }}"


@cache
def order(step: int) -> tuple[int, ...]:
    """The ports of a `sequential` box, one connection after the other: each once in a round, whatever the step."""
    offsets = [offset for turn in range(abs(step)) for offset in range(turn, _PORTS, abs(step))]
    return tuple(_FIRST_PORT + (offset if step > 0 else _PORTS - 1 - offset) for offset in offsets)


def _shared(text: str) -> tuple[Box, ...]:
    """The outermost box, where both sides stand behind it."""
    found = _layer(text)
    (box, *others) = found
    if others or box.kind in BARE or "$host" in _whole_text(box.kind):
        raise ValueError(
            f"kind {text!r} can't be shared: only a single box that translates for any number of hosts can"
        )
    return (replace(box, shared=True),)


def _layer(text: str) -> tuple[Box, ...]:
    kind, _, settings = text.partition(":")
    if kind not in KINDS:
        raise ValueError(f"no kind {kind!r}; there are: {', '.join(KINDS)}")
    known = parameters(kind)
    given = {}
    for setting in filter(None, settings.split(",")):
        name, _, value = setting.partition("=")
        if name not in known:
            raise ValueError(f"kind {kind!r} has no parameter {name!r}; it has: {', '.join(known) or 'none'}")
        if not re.fullmatch(r"-?\d{1,5}", value):
            raise ValueError(f"kind {kind!r}: {name} is a whole number, not {value!r}")
        given[name] = int(value)
    if given.get("step") == 0 or given.get("foreign", 0) < 0 or given.get("hairpin", 0) not in (0, 1):
        raise ValueError(f"kind {kind!r}: {settings} makes no sense")
    behind = _BEHIND.search(_text(kind))
    return (Box(kind, known | given), *(_layer(behind[1]) if behind else ()))


def _whole_text(kind: str) -> str:
    """With what it includes."""
    text = _text(kind)
    return text + "".join(_whole_text(included.removesuffix(".nft")) for included in _INCLUDE.findall(text))


def _text(kind: str) -> str:
    return (FOLDER / f"{kind}.nft").read_text(encoding="utf-8")
