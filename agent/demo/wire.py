"""An ear on the vehicle's topics, beside the fleet's client: what was really said, and how often."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.link import Inbound
from agent.protocol import framing
from agent.protocol.messages import Event, Result, TaskState
from agent.protocol.topics import Topics

Range = tuple[str, int, int, int]
"""(id, attempt, from, to) of a result."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows on the wire against the rows that were asked for. `repeats`: results that were said again."""

    once: int = 0
    twice: int = 0
    missing: int = 0
    unasked: int = 0
    repeats: int = 0


@dataclass(slots=True)
class Wire:
    """Counts every row of every result, and keeps the tasks that were interrupted with rows done."""

    topics: Topics
    asked: Mapping[str, int]
    """Rows that were asked for, by task id."""
    on_other: Callable[[Event | Result, memoryview], None]
    """Gets what concerns a task that is not one of `asked`."""
    preempted: dict[str, Event] = field(default_factory=dict)
    """The last time that each task was interrupted."""
    _results: Counter[Range] = field(default_factory=Counter)

    def hear(self, inbound: Inbound) -> None:
        """Take one message."""
        inbound.ack()
        message, tail = _decoded(inbound, self.topics)
        if message.id not in self.asked:
            self.on_other(message, tail)
        elif isinstance(message, Result):
            self._results[message.id, message.attempt, *message.rows] += 1
        elif message.state is TaskState.PREEMPTED:
            self.preempted[message.id] = message

    def counted(self) -> Counted:
        """Count up to now. A result said again with the same rows is a repeat and answers nothing twice."""
        return counted(self.asked, self._results)


def counted(asked: Mapping[str, int], results: Mapping[Range, int]) -> Counted:
    """Compare the ranges of all results, and how often each came, with the rows asked for by task."""
    times = Counter((task_id, row) for task_id, _, begin, end in results for row in range(begin, end))
    wanted = {(task_id, row) for task_id, rows in asked.items() for row in range(rows)}
    return Counted(
        once=sum(times[each] == 1 for each in wanted),
        twice=sum(times[each] > 1 for each in wanted),
        missing=len(wanted - times.keys()),
        unasked=len(times.keys() - wanted),
        repeats=sum(results.values()) - len(results),
    )


def _decoded(inbound: Inbound, topics: Topics) -> tuple[Event | Result, memoryview]:
    if inbound.topic == topics.result:
        return framing.decode_result(inbound.payload)
    return framing.decode_event(inbound.payload), memoryview(b"")
