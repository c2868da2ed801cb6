from dataclasses import dataclass

from agent.intake import Intake
from agent.portrait import Portrait
from agent.tally import Tally


@dataclass(frozen=True, slots=True)
class Subjects:
    """What the metrics are read from."""

    portrait: Portrait
    tally: Tally
    intake: Intake
