"""A picture of a run for the README: the live view in the middle, and the summary below it."""

import io
import re
from pathlib import Path
from typing import Final

from rich.console import Console

from agent.demo.checks import Check, Facts
from agent.demo.plain import Plain
from agent.demo.record import TICK_S
from agent.demo.stage import Stage
from agent.demo.summary import results, verdicts
from agent.demo.view import coloured, frame
from agent.protocol.messages import Mode

WIDTH: Final = 88
FRAME_LINES: Final = 30
AFTER_TICKS: Final = int(1.5 / TICK_S)
"""The picture is taken when the car has worked for so long after the owner's visit."""


class Capture(Plain):
    """Prints plain lines, and writes an SVG file at the end."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._console = Console(
            record=True,
            file=io.StringIO(),
            force_terminal=True,
            width=WIDTH,
            height=FRAME_LINES,
            color_system="truecolor",
        )
        self._taken = False

    def looked(self, stage: Stage) -> None:
        """Take the picture when the moment has come."""
        super().looked(stage)
        ticks = stage.record.ticks
        back = len(ticks) > AFTER_TICKS and all(tick.mode is Mode.WORKING for tick in ticks[-AFTER_TICKS:])
        if back and not self._taken and any(tick.door_open for tick in ticks):
            self._taken = True
            self._console.print(frame(stage, WIDTH, FRAME_LINES), height=FRAME_LINES)

    def summed_up(self, facts: Facts, checks: list[Check]) -> None:
        """Print the summary and write the file."""
        super().summed_up(facts, checks)
        self._console.print()
        for line in coloured((*results(facts), "", *verdicts(checks))):
            self._console.print(line)
        drawn = self._console.export_svg(title="parkwatt demo")
        # The fonts that rich names are on another host, and a picture in a repository loads nothing.
        drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
        # Not every renderer keeps the spaces at the beginning of a text otherwise.
        self._path.write_text(drawn.replace("<text ", '<text xml:space="preserve" '))
