import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from fleet.answer import Rows

if TYPE_CHECKING:
    from fleet.vehicle import Vehicle


class Bookkeeper(Protocol):
    """Who answers for a client's tasks beyond the client's life. Called on the event loop; returns at once."""

    def keep(self, vehicle: "Vehicle", task_id: str, rows: Rows) -> asyncio.Future[Any]:
        """Take note of a result, wanted or not; the future is done when that is on a disk.

        Only then is the result confirmed to the vehicle and acknowledged to the broker: a future that fails
        leaves it with them.
        """

    def look(self) -> None:
        """The link has come up, or a vehicle has published its state."""
