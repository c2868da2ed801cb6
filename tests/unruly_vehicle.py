"""What a fake vehicle does with its tasks: anything at random, or what an agent would."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from fake_vehicle import Assigned, FakeVehicle

from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason


@dataclass
class Unruly:
    """Does anything that a vehicle may do, and some things that it may not, at random."""

    rng: random.Random
    old: list[Assigned] = field(default_factory=list)

    def __call__(self, car: FakeVehicle, got: Assigned) -> None:
        deeds: list[Callable[[FakeVehicle, Assigned], None]] = [
            FakeVehicle.answer,
            self.in_pieces,
            self.stop_half_way,
            self.answer_twice,
            self.refuse,
            self.forget_everything,
            self.put_off,
        ]
        self.rng.choice(deeds)(car, got)
        if self.old and self.rng.random() < 0.3:
            car.answer(self.old.pop(self.rng.randrange(len(self.old))))

    def put_off(self, _car: FakeVehicle, got: Assigned) -> None:
        self.old.append(got)

    def cuts(self, got: Assigned) -> list[tuple[int, int]]:
        begin, end = got.rows
        inner = sorted(self.rng.sample(range(begin + 1, end), self.rng.randint(0, end - begin - 1)))
        return list(zip([begin, *inner], [*inner, end], strict=True))

    def in_pieces(self, car: FakeVehicle, got: Assigned) -> None:
        pieces = self.cuts(got)
        self.rng.shuffle(pieces)
        for number, piece in enumerate(pieces, 1):
            car.give(got, *piece, final=number == len(pieces))

    def stop_half_way(self, car: FakeVehicle, got: Assigned) -> None:
        car.say(got, TaskState.ACCEPTED)
        for piece in self.cuts(got)[1:]:
            car.give(got, *piece)
        if self.rng.random() < 0.5:
            car.say(got, TaskState.RELEASED, Reason.OWNER_PRESENT)
        self.old.append(got)

    def answer_twice(self, car: FakeVehicle, got: Assigned) -> None:
        self.in_pieces(car, got)
        self.in_pieces(car, got)

    def refuse(self, car: FakeVehicle, got: Assigned) -> None:
        car.say(got, TaskState.REJECTED, Reason.QUEUE_FULL)

    def forget_everything(self, car: FakeVehicle, got: Assigned) -> None:
        car.say(got, TaskState.ACCEPTED)
        car.reboot()


@dataclass
class Careful:
    """What an agent does with a task that it has had before: nothing anew, it says how it stands."""

    does: Callable[[FakeVehicle, Assigned], None]
    had: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def __call__(self, car: FakeVehicle, got: Assigned) -> None:
        key = got.task.id, got.task.attempt
        if self.had.setdefault(key, got.payload) != got.payload:
            car.say(got, TaskState.REJECTED, Reason.REPLAYED)
        elif len([one for one in car.tasks if (one.task.id, one.task.attempt) == key]) == 1:
            self.does(car, got)
        else:
            car.say(got, TaskState.ACCEPTED)


def attempts(car: FakeVehicle) -> list[tuple[str, int]]:
    """Each attempt that came, once."""
    return list(dict.fromkeys((got.task.id, got.task.attempt) for got in car.tasks))
