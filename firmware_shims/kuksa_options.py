"""`[signals.options]` of the KUKSA source, checked. What they mean stands in `kuksa.py`."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final

import msgspec

from firmware_shims.kuksa_broker import Address
from firmware_shims.kuksa_paths import SIGNALS

STALE_AT_MOST_S: Final = 60
"""A provider that died may go unnoticed for as long as this, so nobody may wait for longer."""


class KuksaOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options as configured."""

    host: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 55555
    ca_file: str | None = None
    tls_server_name: str | None = None
    token_file: str | None = None
    without: tuple[str, ...] = ()
    stale_after_s: Mapping[str, float] = {}
    on_change: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        _known("without", self.without)
        _known("stale_after_s", self.stale_after_s)
        _known("on_change", self.on_change)
        for signal, age_s in self.stale_after_s.items():
            if not 0 < age_s <= STALE_AT_MOST_S:
                raise ValueError(
                    f"stale_after_s: {signal} = {age_s:g} s: more than 0 and at most {STALE_AT_MOST_S} s;"
                    " for a signal that is published on change only see on_change"
                )
        if hearsay := sorted(set(self.on_change) & set(self.on_change.values())):
            raise ValueError(
                f"on_change: {hearsay[0]} is published on change itself; name a witness that its provider refreshes"
            )
        if self.tls_server_name is not None and self.ca_file is None:
            raise ValueError("tls_server_name needs ca_file, which switches TLS on")

    @property
    def address(self) -> Address:
        """Where the broker is."""
        return Address(
            self.host,
            self.port,
            None if self.ca_file is None else Path(self.ca_file),
            self.tls_server_name,
            None if self.token_file is None else Path(self.token_file),
        )

    def ages(self) -> dict[str, float]:
        """Every signal that is expected of the broker, with the age in seconds at which it is stale."""
        return {
            signal: self.stale_after_s.get(signal, known.stale_after_s)
            for signal, known in SIGNALS.items()
            if signal not in self.without
        }


def _known(option: str, signals: Iterable[str]) -> None:
    for signal in signals:
        if signal not in SIGNALS:
            near = get_close_matches(signal, SIGNALS, n=1, cutoff=0)[0]
            raise ValueError(f"{option}: {signal!r} is no signal of this shim; the nearest is {near}")
