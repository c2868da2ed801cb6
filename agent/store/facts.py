"""The few single values that must survive a restart."""

import sqlite3
from typing import Literal, NamedTuple


class KeptOrders(NamedTuple):
    """What the vehicle's operating system has ordered, as `agent.policy.orders.Orders` has it."""

    paused: bool
    consent: bool | None
    departure_s: float | None


class Facts:
    """Named numbers over one connection. Those about time only grow, so their order of arrival means nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def next_boot(self) -> int:
        """Count a start of the agent; the first is 1."""
        self._execute(
            "INSERT INTO facts VALUES ('boot', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
        )
        return int(self._value("boot"))

    def raise_time_floor(self, signed_at: float) -> None:
        """Remember the newest trusted signed time (unix seconds); an older one changes nothing."""
        self._raise("time_floor", signed_at)

    def time_floor(self) -> float:
        """The newest trusted signed time (unix seconds); 0 before any."""
        return self._value("time_floor")

    def drain(self, kind: Literal["drain", "resume"], issued_at: float) -> bool:
        """Take one of the fleet's orders, issued at unix seconds; whether the car drains after it."""
        self._raise(kind, issued_at)
        return self.draining()

    def draining(self) -> bool:
        """Whether the newest order is to drain. Drain also wins against a resume of the same instant."""
        drained_at = self._value("drain")
        return drained_at > 0 and drained_at >= self._value("resume")

    def keep_orders(self, orders: KeptOrders) -> None:
        """Remember the orders that stand from now on."""
        for name, value in orders._asdict().items():
            self._execute("DELETE FROM facts WHERE name = ?", (name,))
            if value is not None:
                self._execute("INSERT INTO facts VALUES (?, ?)", (name, value))

    def orders(self) -> KeptOrders:
        """The orders that were kept last; none before any."""
        consent = self._found("consent")
        return KeptOrders(
            bool(self._value("paused")),
            None if consent is None else bool(consent),
            self._found("departure_s"),
        )

    def _value(self, name: str) -> float:
        return self._found(name) or 0.0

    def _found(self, name: str) -> float | None:
        found = self._execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return float(found[0]) if found else None

    def _raise(self, name: str, value: float) -> None:
        self._execute(
            """INSERT INTO facts VALUES (?, ?)
                ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value < excluded.value""",
            (name, value),
        )
