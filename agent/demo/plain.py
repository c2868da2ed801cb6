"""The run as plain lines: one a second, and one for each thing that happens."""

from typing import Final

import typer

from agent.demo.checks import Check, Facts
from agent.demo.record import Second, seconds_of
from agent.demo.stage import Stage
from agent.demo.summary import HEADER, results, row_of, verdicts

LOOK_BACK: Final = 12
"""Ticks in which every second that is just over has all of its own."""


class Plain:
    """Prints to standard output."""

    def __init__(self) -> None:
        self._shown_s = -1

    def __enter__(self) -> None:
        """Print nothing yet."""

    def __exit__(self, *_: object) -> None:
        """Leave everything as it is printed."""

    def said(self, at_s: float, text: str) -> None:
        """Print it with its time."""
        typer.echo(f"{at_s:>5.1f} s > {text}")

    def looked(self, stage: Stage) -> None:
        """Print a second once it is over."""
        if self._shown_s < 0:
            typer.echo(HEADER)
            self._shown_s = 0
        *over, _ = seconds_of(stage.record.ticks[-LOOK_BACK:])
        self._show(over)

    def summed_up(self, facts: Facts, checks: list[Check]) -> None:
        """Print it, after the last second; the others stand above it already."""
        self._show(list(seconds_of(facts.ticks[-LOOK_BACK:])))
        typer.echo()
        for line in (*results(facts), "", *verdicts(checks)):
            typer.echo(line)

    def _show(self, seconds: list[Second]) -> None:
        for second in seconds:
            if second.at_s >= self._shown_s:
                self._shown_s = second.at_s + 1
                typer.echo(row_of(second))
