"""Reason codes: below 1000 the task's side, from 1000 the vehicle's, which is never held against a task."""

import datetime as dt
import enum
from typing import Final

TEXT_MAX_CHARS: Final = 300


class Reason(enum.IntEnum):
    """Why something was refused, stopped or is not allowed; the number and the lower-case name are the wire form."""

    MALFORMED = 100
    TOO_LARGE = 101
    BAD_TENSOR = 102
    EXPIRED = 110
    STALE_ATTEMPT = 111
    WRONG_AUDIENCE = 112
    RESIDENCY = 113
    BAD_SIGNATURE = 120
    UNKNOWN_KEY = 121
    REPLAYED = 122
    MODEL_NOT_FOUND = 130
    MODEL_HASH = 131
    MODEL_UNSUPPORTED = 132
    MODEL_INVALID = 133
    INPUT_FETCH = 140
    INPUT_HASH = 141
    LIMIT_RUNTIME = 150
    LIMIT_ENERGY = 151
    CANCELLED = 152
    INFERENCE_FAILED = 160
    UNKNOWN_SIGNAL = 1000
    OWNER_PRESENT = 1001
    NOT_PARKED = 1002
    NOT_GRID_POWERED = 1003
    CHARGE_LOW = 1004
    PACK_TEMPERATURE = 1005
    AMBIENT_TEMPERATURE = 1006
    CHIP_TEMPERATURE = 1007
    LOW_VOLTAGE = 1008
    OWNER_SCHEDULE = 1009
    DEPARTURE_SOON = 1010
    GRID_LIMIT = 1011
    DRAINING = 1012
    SETTLING = 1013
    REGION_MISMATCH = 1014
    PACK_BUDGET = 1015
    CONSENT = 1016
    PAUSED = 1017
    BACKEND_UNUSABLE = 1020
    BACKEND_CRASHED = 1021
    BACKEND_HUNG = 1022
    OUT_OF_MEMORY = 1023
    QUEUE_FULL = 1030
    STORE_FULL = 1031
    LINK_LOST = 1032
    RESTARTED = 1033

    @property
    def label(self) -> str:
        """The name on the wire, for example `owner_present`."""
        return self.name.lower()


def printable(text: str, max_chars: int) -> str:
    """The beginning of a text that somebody else wrote, with what does not print escaped; twice changes nothing."""
    cut = text[:max_chars]
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut)[:max_chars]


class Refused(Exception):  # noqa: N818 - an answer to the other side, not a fault of ours
    """Something from the other side that is not taken, with the reason that it is told.

    `text` may quote the other side: it is made `printable`, so that it can go into logs, terminals and events.
    `resume_at`: when it would be taken, where that is known.
    """

    def __init__(self, reason: Reason, text: str, resume_at: dt.datetime | None = None) -> None:
        self.reason = reason
        self.text = printable(text, TEXT_MAX_CHARS)
        self.resume_at = resume_at
        super().__init__(f"{reason.value} {reason.label}: {self.text}")
