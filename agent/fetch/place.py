"""Which URLs may be fetched, as far as a URL alone tells; no network and no disk are touched."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import SplitResult, unquote, urlsplit

from agent.fetch.errors import NotFetched

HTTPS_PORT: Final = 443
SHOWN_CHARS: Final = 120
LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){LABEL}(\.{LABEL})*\Z")
PATTERN: Final = re.compile(
    rf"(?P<any>\*\.)?(?P<host>{LABEL}(\.{LABEL})*|\[[0-9a-f:.]+\])(:(?P<port>\d{{1,5}}))?\Z"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A host, a port, and what to ask for there."""

    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The host as the `Host` header has it: with the port where it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"https://{self.authority}{self.target}"

    def __str__(self) -> str:
        """The URL for people and logs: without its query, which may hold a signature."""
        return shown(self.url)


@dataclass(frozen=True, slots=True)
class HostPattern:
    """An entry of an allow-list: `name`, `*.name` (any name below it, not itself), with `:port` where it is not 443."""

    host: str
    port: int
    below: bool

    @classmethod
    def of(cls, text: str) -> Self:
        """Read an entry; raises ValueError."""
        found = PATTERN.match(text)
        if found is None or (found["any"] and found["host"].startswith("[")):
            raise ValueError(f"{text!r} should be a host name in lower case, *.host, or either with :port")
        return cls(found["host"].strip("[]"), int(found["port"] or HTTPS_PORT), bool(found["any"]))

    def __contains__(self, place: Place) -> bool:
        if place.port != self.port:
            return False
        return place.host.endswith(f".{self.host}") if self.below else place.host == self.host


@dataclass(frozen=True, slots=True)
class Rules:
    """From where bytes may come. `hosts` and `folders` None: from any, the owner has named the place himself.

    `key`: what allows more, as the configuration calls it.
    """

    key: str
    hosts: tuple[HostPattern, ...] | None = None
    folders: tuple[Path, ...] | None = None
    private_networks: bool = False
    ca_file: Path | None = None


def checked(url: str, rules: Rules) -> Place | Path:
    """Where `url` leads, if the rules allow it; raises `NotFetched`.

    Of a file only its name is judged here: where links lead is seen when it is opened.
    """
    parts = _split(url)
    if parts.scheme == "file":
        return _file(url, parts, rules)
    if parts.scheme != "https":
        raise NotFetched(f"{shown(url)}: {parts.scheme or 'no scheme'} is not taken: give an https URL")
    return _place(url, parts, rules)


def shown(url: str) -> str:
    """A URL for people and logs: without credentials and query, cut to a bearable length."""
    bare = re.sub(r"//[^/?#]*@", "//", url.partition("?")[0].partition("#")[0])
    return bare if len(bare) <= SHOWN_CHARS else f"{bare[:SHOWN_CHARS]}..."


def _split(url: str) -> SplitResult:
    # urlsplit drops tabs and line ends, and browsers read a backslash as a slash: no such URL is taken
    if not (url.isascii() and url.isprintable()) or set(url) & set(' \\"<>^`{|}'):
        raise NotFetched(f"{shown(url)!r}: holds a character that no URL has: encode it with %")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise NotFetched(f"{shown(url)}: {error}") from error
    if "@" in parts.netloc:
        raise NotFetched(f"{shown(url)}: has credentials in it: give a URL without them")
    if "#" in url:
        raise NotFetched(f"{shown(url)}: has a fragment, which means nothing here: leave it out")
    return parts


def _place(url: str, parts: SplitResult, rules: Rules) -> Place:
    host = parts.hostname or ""
    if not (HOST.match(host) or (":" in host and parts.netloc.startswith("["))) or "%" in host:
        raise NotFetched(f"{shown(url)}: {host!r} is no host name")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    place = Place(host, HTTPS_PORT if parts.port is None else parts.port, target)
    if rules.hosts is not None and not any(place in pattern for pattern in rules.hosts):
        raise NotFetched(
            f"{shown(url)}: {place.authority} is not in {rules.key}.hosts, which the vehicle's owner sets"
        )
    return place


def _file(url: str, parts: SplitResult, rules: Rules) -> Path:
    path = Path(unquote(parts.path))
    if parts.netloc or parts.query or not path.is_absolute() or "\0" in str(path) or ".." in path.parts:
        raise NotFetched(f"{shown(url)}: should be file:///an/absolute/path without ..")
    if rules.folders is not None and not any(path.is_relative_to(folder) for folder in rules.folders):
        raise NotFetched(
            f"{shown(url)}: is in no folder of {rules.key}.file_dirs, which the vehicle's owner sets"
        )
    return path
