"""The live view on a terminal, and the only user of rich."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent.demo.chart import bars
from agent.demo.checks import Check, Facts
from agent.demo.conditions import conditions_of
from agent.demo.record import Tick, rates
from agent.demo.stage import Stage
from agent.demo.summary import FAILED, OK, described
from agent.protocol.messages import Mode

COLOURS: Final = {
    Mode.BLOCKED: "red",
    Mode.SETTLING: "yellow",
    Mode.READY: "cyan",
    Mode.WORKING: "green",
    Mode.PREEMPTING: "magenta",
    Mode.DRAINING: "magenta",
}
MARKS: Final = {True: Text("✔", "green"), False: Text("✘", "bold red"), None: Text("?", "bold yellow")}
SMALLEST: Final = (64, 20)
"""Columns and lines below which there is only room for a few lines of text."""


class LiveView:
    """Redraws the screen with every look; the summary follows on the ordinary screen."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, screen=True, auto_refresh=False)

    def __enter__(self) -> None:
        """Take over the screen."""
        self._live.start()

    def __exit__(self, *_: object) -> None:
        """Give the screen back."""
        self._live.stop()

    def said(self, at_s: float, text: str) -> None:
        """It is drawn with the next look."""

    def looked(self, stage: Stage) -> None:
        """Draw."""
        width, height = self._console.size
        self._live.update(frame(stage, width, height), refresh=True)

    def summed_up(self, facts: Facts, checks: list[Check]) -> None:
        """Print the summary with its colours."""
        for line in coloured(described(facts, checks)):
            self._console.print(line, soft_wrap=True)


def coloured(lines: Iterable[str]) -> Iterator[Text]:
    """The lines of a summary; what held is green."""
    for line in lines:
        text = Text(line)
        text.highlight_regex(rf"^{OK}\b", "bold green")
        text.highlight_regex(rf"^{FAILED}\b", "bold red")
        yield text


def frame(stage: Stage, width: int, height: int) -> RenderableType:
    """One picture of the run that fits the screen, whatever its size."""
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return _few_lines(stage, height)
    conditions = _conditions(stage)
    screen = Layout()
    screen.split_column(
        Layout(_headline(stage), size=1),
        Layout(
            Panel(conditions, title="every condition must hold", title_align="left"),
            size=conditions.row_count + 2,
        ),
        Layout(Panel(_work(stage), title="work", title_align="left"), size=4),
        Layout(name="chart", ratio=2, minimum_size=3),
        Layout(name="said", ratio=3, minimum_size=3),
    )
    left = height - conditions.row_count - 2 - 4 - 1
    chart_lines = max(1, left * 2 // 5 - 2)
    said_lines = max(1, left - chart_lines - 4)
    screen["chart"].size = chart_lines + 2
    screen["chart"].update(_chart(stage.record.ticks, width - 4, chart_lines))
    screen["said"].update(_said(stage, said_lines))
    return screen


def _headline(stage: Stage) -> Text:
    tick = stage.record.ticks[-1]
    verdict = stage.service.guard.verdict
    worker = "no worker" if tick.worker_mib is None else f"worker {tick.worker_mib:.0f} MiB"
    since_ns = verdict.blockers[0].since_ns if verdict.settling else None
    why = "" if since_ns is None else f" for {(stage.record.clock() - since_ns) / 1e9:.1f} s"
    return Text.assemble(
        (" parkwatt demo ", "reverse"),
        "  ",
        (f"● {tick.mode.value}{why}", f"bold {COLOURS[tick.mode]}"),
        f"   power budget {tick.budget_w:g} W   {worker}   {tick.at_s:.0f} s",
        no_wrap=True,
        overflow="ellipsis",
    )


def _conditions(stage: Stage) -> Table:
    table = Table(box=None, expand=True, show_header=False, pad_edge=False)
    table.add_column(width=1)
    table.add_column(width=20, no_wrap=True)
    table.add_column(width=8, no_wrap=True, justify="right")
    table.add_column(ratio=1, no_wrap=True, style="dim")
    for line in conditions_of(stage):
        style = "" if line.holds else "bold"
        table.add_row(MARKS[line.holds], Text(line.name, style), Text(line.value, style), line.limit)
    return table


def _work(stage: Stage) -> Table:
    tally = stage.tally
    labels = tally.labels
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, no_wrap=True)
    wanted = stage.rows_wanted
    done = f"{tally.rows_done} of {wanted} rows" if wanted else f"{tally.rows_done} rows"
    table.add_row(
        done,
        ProgressBar(
            total=wanted or tally.rows_asked or 1,
            completed=tally.rows_done,
            complete_style="green",
            finished_style="green",
        ),
    )
    right = f"labels right {labels.right / labels.total:.1%}" if labels.total else "no label yet"
    energy = [
        f"{joules / tally.rows_done:.3f} J a row ({source.value})" for source, joules in tally.joules.items()
    ]
    table.add_row(f"{tally.tasks_done} tasks done", "   ".join([right, *energy]))
    return table


def _chart(ticks: list[Tick], width: int, height: int) -> Panel:
    """Rows a second over the last looks; on the ground the colour of a car that does not work."""
    seen = ticks[-width:]
    columns = rates(ticks)[-width:]
    *upper, lowest = bars(columns, height)
    idle = {Mode.BLOCKED, Mode.SETTLING}
    styled = [
        ("▁", COLOURS[tick.mode]) if tick.mode in idle and not tick.rows else (bar, "green")
        for tick, bar in zip(seen, lowest, strict=True)
    ]
    ground = Text()
    for colour, cells in groupby(styled, key=itemgetter(1)):
        ground.append("".join(bar for bar, _ in cells), colour)
    text = Text("\n").join([*(Text(line, "green") for line in upper), ground])
    return Panel(text, title=f"rows/s, four times a second, at most {max(columns):.0f}", title_align="left")


def _said(stage: Stage, height: int) -> Panel:
    text = Text(no_wrap=True, overflow="ellipsis")
    for at_s, said in stage.record.said[-height:]:
        text.append(f"{at_s:>5.1f} s  ", "dim").append(f"{said}\n")
    text.rstrip()
    return Panel(text, title="what happened", title_align="left")


def _few_lines(stage: Stage, height: int) -> Group:
    tally = stage.tally
    failing = (line for line in conditions_of(stage) if not line.holds)
    lines = [
        f"{tally.tasks_done} tasks, {tally.rows_done} rows done",
        *(f"{line.name}: {line.value}, needs {line.limit}" for line in failing),
        *(said for _, said in stage.record.said[-1:]),
    ]
    tick = stage.record.ticks[-1]
    texts = [Text(tick.mode.value, COLOURS[tick.mode]), *map(Text, lines)]
    for text in texts:
        text.no_wrap, text.overflow = True, "ellipsis"
    return Group(*texts[: max(height, 1)])
