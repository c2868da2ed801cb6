"""Where things are said: one subtree a vehicle."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one vehicle below `root/{region country, lower case}/{vehicle}`."""

    root: str
    region: str
    vehicle: str

    @property
    def base(self) -> str:
        """The vehicle's own subtree, without a trailing slash."""
        return f"{self.root}/{self.region[:2].lower()}/{self.vehicle}"

    @property
    def task(self) -> str:  # noqa: D102
        return f"{self.base}/task"

    @property
    def control(self) -> str:  # noqa: D102
        return f"{self.base}/control"

    @property
    def state(self) -> str:  # noqa: D102
        return f"{self.base}/state"

    @property
    def event(self) -> str:  # noqa: D102
        return f"{self.base}/event"

    @property
    def result(self) -> str:  # noqa: D102
        return f"{self.base}/result"
