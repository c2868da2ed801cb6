"""Task ids that sort by the time they were made: 26 characters of Crockford's base 32, as a ULID has."""

import datetime as dt
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH: Final = 26
RANDOM_BITS: Final = 80


def sortable_id(at: dt.datetime, random: int) -> str:
    """The id made at `at` (milliseconds count) out of `random`, an integer of `RANDOM_BITS` bits."""
    value = int(at.timestamp() * 1000) << RANDOM_BITS | random
    return "".join(ALPHABET[value >> 5 * place & 31] for place in reversed(range(LENGTH)))
