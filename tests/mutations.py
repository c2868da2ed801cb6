"""Changes bytes as chance and a hostile sender would: anywhere, and where the JSON of a message has its joints."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

TOKENS: Final = (
    *(b"{", b"}", b"[", b"]", b'"', b"\\", b":", b",", b"\n", b"\r\n", b"..", b" ", b"\0", b"\x1b[2J"),
    *(b"NaN", b"Infinity", b"-0", b"1e999", b"1E-999", b"0.1", b"true", b"null", b"0x10", b"01"),
    *(b"[" * 1500, b'{"a":' * 700),
    *(b"\xef\xbb\xbf", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\\u0069"),
    *(str(2**power + step).encode() for power in (7, 8, 31, 53, 63, 64) for step in (-1, 0, 1)),
)
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, 2**31, 2**53, 2**53 + 1, 2**63, 2**64, 10**30),
    *("", "x", "\0", "\x1b[2J", "\u202e", "../../x", "a" * 65, "é" * 300, "NaN", "BOOL", "FP16", "UINT64"),
    *(
        "2026-11-22T01:00:00Z",
        "9999-12-31T23:59:59.999999Z",
        "0001-01-01T00:00:00Z",
        "2026-11-22T01:00:00+02:00",
    ),
    *([], {}, [[]], [0] * 9, [[0, 1], [2]], {"": {}}, {"binary_data_size": 0}, {"shared": True}),
)
MOST_BYTES: Final = 4096


class Mutator:
    """Makes new inputs out of known ones, the same for the same random numbers."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._ways: tuple[Callable[[bytes, bytes], bytes], ...] = (
            self._flip,
            self._overwrite,
            self._cut,
            self._repeat,
            self._insert,
            self._splice,
            *[self._change_json] * 6,
        )

    def mutate(self, known: Sequence[bytes]) -> bytes:
        """One of the known inputs, changed in one place or in a few."""
        data = self._chance.choice(known)
        for _ in range(self._chance.choice((1, 1, 1, 2, 3, 8))):
            data = self._chance.choice(self._ways)(data, self._chance.choice(known))
        return data[:MOST_BYTES]

    def _place(self, data: bytes) -> int:
        return self._chance.randint(0, len(data))

    def _flip(self, data: bytes, _: bytes) -> bytes:
        if not data:
            return data
        changed, place = bytearray(data), self._chance.randrange(len(data))
        changed[place] ^= 1 << self._chance.randrange(8)
        return bytes(changed)

    def _overwrite(self, data: bytes, _: bytes) -> bytes:
        token, place = self._chance.choice(TOKENS), self._place(data)
        return data[:place] + token + data[place + len(token) :]

    def _cut(self, data: bytes, _: bytes) -> bytes:
        begin, end = sorted((self._place(data), self._place(data)))
        return self._chance.choice((data[:begin], data[begin:], data[:begin] + data[end:]))

    def _repeat(self, data: bytes, _: bytes) -> bytes:
        begin, end = sorted((self._place(data), self._place(data)))
        return data[:end] + data[begin:end] * self._chance.choice((1, 2, 50)) + data[end:]

    def _insert(self, data: bytes, _: bytes) -> bytes:
        place = self._place(data)
        return data[:place] + self._chance.choice(TOKENS) + data[place:]

    def _splice(self, data: bytes, other: bytes) -> bytes:
        return data[: self._place(data)] + other[self._place(other) :]

    def _change_json(self, data: bytes, other: bytes) -> bytes:
        """Another value for one member, or none, in the line that is JSON; as it is where none can be read."""
        lines = data.split(b"\n", 2)
        for number, line in enumerate(lines):
            if line.startswith(b"{"):
                try:
                    message = json.loads(line)
                    lines[number] = json.dumps(self._changed(message, other)).encode()
                except (ValueError, RecursionError):
                    return data
                return b"\n".join(lines)
        return data

    def _changed(self, node: Any, other: bytes) -> Any:
        """A copy with one place below it changed."""
        if isinstance(node, dict) and node and self._chance.random() < 0.9:
            name = self._chance.choice(sorted(node))
            if self._chance.random() < 0.1:
                return {key: value for key, value in node.items() if key != name}
            return node | {name: self._changed(node[name], other)}
        if isinstance(node, list) and node and self._chance.random() < 0.7:
            index = self._chance.randrange(len(node))
            return [
                *node[:index],
                self._changed(node[index], other),
                *node[index + self._chance.randint(0, 1) :],
            ]
        return self._value(node)

    def _value(self, old: Any) -> Any:
        if isinstance(old, int) and not isinstance(old, bool) and self._chance.random() < 0.5:
            return old + self._chance.choice((-1, 1, old, -2 * old))
        if isinstance(old, str) and old and self._chance.random() < 0.3:
            return self._chance.choice((old[:-1], old + old, old.upper(), f"{old}\n"))
        return self._chance.choice(VALUES)
