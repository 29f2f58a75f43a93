"""What the kinds of the lab are as classes, for people who name a NAT rather than measure it.
Builds no NAT: the lab's pages and models do. It refuses names and settings that it does not know."""

from __future__ import annotations

from msgspec.structs import replace

from punchd.words.nat import STEP_MAX, Allocation, Dependence, NatClass

_LINUX = NatClass(
    Dependence.INDEPENDENT,  # as a STUN server sees it: the port is kept
    Dependence.ADDRESS_AND_PORT, Allocation.PRESERVING,
    outlives_icmp=True, takes_syn=True, picks_up=True, drops_strays=True, forgives=True,
)  # fmt: skip

NICKNAMES: dict[str, NatClass] = {
    "unknown": NatClass(),
    "open": replace(_LINUX, filtering=Dependence.INDEPENDENT),
    "firewall": _LINUX,
    "linux": _LINUX,
    "linux-reject": replace(_LINUX, drops_strays=False),
    "linux-synfilter": replace(_LINUX, takes_syn=False),
    "linux-liberal": _LINUX,
    "linux-noloose": replace(_LINUX, picks_up=False),
    "untracked": _LINUX,
    "cone": replace(_LINUX, filtering=Dependence.INDEPENDENT),
    "random": replace(_LINUX, mapping=Dependence.ADDRESS_AND_PORT, allocation=Allocation.RANDOM),
    "sequential": replace(_LINUX, mapping=Dependence.ADDRESS_AND_PORT, allocation=Allocation.SEQUENTIAL, step=1),
    "cgn": _LINUX,
    "icmp-kills": replace(_LINUX, outlives_icmp=False),
    "rst-kills": _LINUX,
    "blacklist": replace(_LINUX, drops_strays=False, forgives=False),
}


def parse(text: str) -> NatClass:
    """The class behind `linux` or `sequential:step=2`; ValueError says what is wrong with it.

    Settings of the lab's kinds that change no class, as `foreign`, are taken and ignored.
    """
    name, _, settings = text.partition(":")
    if name not in NICKNAMES:
        raise ValueError(f"there is no class {name!r}; there are: {', '.join(NICKNAMES)}")
    nat = NICKNAMES[name]
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        if nat.allocation is not Allocation.SEQUENTIAL or key not in ("step", "foreign"):
            raise ValueError(f"class {name!r} has no setting {key!r}")
        if not value.removeprefix("-").isdecimal():
            raise ValueError(f"{setting!r}: a whole number is wanted")
        if key == "step":
            if not 0 < abs(int(value)) <= STEP_MAX:
                raise ValueError(f"a step is from 1 to {STEP_MAX}, up or down, not {value}")
            nat = replace(nat, step=int(value))
    return nat
