"""The agent's description of itself: the published state, and the answer to `status`."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from agent import status
from agent.dead_letters import DeadLetters
from agent.energy import Energy
from agent.executor import Executor
from agent.guard import Guard
from agent.history.logbook import Logbook
from agent.history.report import Day
from agent.job import Job
from agent.link import Link
from agent.policy.modes import Situation, mode_of
from agent.policy.orders import Orders
from agent.preemption import Preemptions
from agent.protocol.messages import Blocker, Mode, OpenTask, State
from agent.protocol.reasons import Reason
from agent.reports import utc_now
from agent.station import Station
from agent.status import BackendStatus, BlockerStatus, Doing
from agent.stays import Stays
from agent.store import Counts, Store
from firmware_shims.clock import Clock


@dataclass(frozen=True, slots=True)
class Portrait:
    """Reads everything and changes nothing. Of the configuration it holds only what a reload leaves as it is."""

    vehicle: str
    region: str
    store_max_bytes: int
    version: str
    boot: int
    started_at: dt.datetime
    guard: Guard
    executor: Executor
    preemptions: Preemptions
    stations: Sequence[Station]
    stays: Stays
    energy: Energy
    link: Link
    store: Store
    dead_letters: DeadLetters
    logbook: Logbook
    clock: Clock

    @property
    def mode(self) -> Mode:
        """The mode, derived now."""
        stopping = self.preemptions.under_way or self.executor.winding_down
        return mode_of(Situation(self.guard.verdict, self.executor.running, stopping))

    @property
    def blockers(self) -> list[Blocker]:
        """Why no work is allowed now."""
        return [
            Blocker(
                blocker.reason,
                blocker.reason.label,
                blocker.value,
                blocker.limit,
                self._wall(blocker.since_ns),
            )
            for blocker in self.guard.verdict.blockers
        ]

    def state(self, seq: int) -> State:
        """The state for the fleet."""
        return State(
            vehicle=self.vehicle,
            region=self.region,
            boot=self.boot,
            seq=seq,
            online=True,
            at=utc_now(),
            mode=self.mode,
            blockers=self.blockers,
            budget_w=self.guard.verdict.budget_w,
            expected_s=self.stays.expected_s,
            backends=[station.state() for station in self.stations],
            models=sorted(set().union(*(station.resident for station in self.stations))),
            open=[OpenTask(*job.key, job.state, job.done) for job in self.executor.jobs.values()],
            version=self.version,
        )

    def status(self, counts: Counts, today: Day | None) -> status.Status:
        """The answer for the vehicle's operating system and its people. `today`: the day so far."""
        link = self.link.status
        return status.Status(
            vehicle=self.vehicle,
            region=self.region,
            version=self.version,
            boot=self.boot,
            started_at=self.started_at,
            mode=self.mode,
            blockers=self._blockers(),
            budget_w=self.guard.verdict.budget_w,
            backends=[self._backend(station) for station in self.stations],
            tasks=[
                status.TaskStatus(*job.key, job.state, job.done, job.asked, self._doing(job))
                for job in self.executor.jobs.values()
            ],
            preemptions=_told(self.preemptions),
            link=status.LinkStatus(
                link.up, self._wall(link.since_ns), link.error, self._ahead(link.next_try_ns)
            ),
            store=_stored(counts, self.store_max_bytes, self.store),
            dead_letters=_dead(self.dead_letters),
            orders=_standing(self.guard.orders),
            meter=_metering(self.energy),
            expected_s=self.stays.expected_s,
            mode_since=self._wall(self.logbook.mode_since_ns),
            today=today,
            time_zone=self.logbook.zone.key,
        )

    def _blockers(self) -> list[BlockerStatus]:
        untils_ns = [blocker.until_ns for blocker in self.guard.verdict.blockers]
        return [
            BlockerStatus(**structs.asdict(blocker), until=self._ahead(until_ns))
            for blocker, until_ns in zip(
                self.blockers, untils_ns, strict=False
            )  # the verdict may change between
        ]

    def _backend(self, station: Station) -> BackendStatus:
        resume_at = utc_now() + dt.timedelta(seconds=station.pause_s) if station.pause_s else None
        return BackendStatus(**structs.asdict(station.state()), resume_at=resume_at)

    def _doing(self, job: Job) -> Doing:
        if self.executor.supplies.since_ns(job) is not None:
            return "fetching"
        return "waiting" if self.executor.busy_since_ns(job) is None else "running"

    def _ahead(self, stamp_ns: int | None) -> dt.datetime | None:
        """The wall clock at a stamp that is still to come; None for one that has passed."""
        return None if stamp_ns is None or stamp_ns <= self.clock() else self._wall(stamp_ns)

    def _wall(self, stamp_ns: int) -> dt.datetime:
        return utc_now() - dt.timedelta(microseconds=(self.clock() - stamp_ns) / 1000)


def _standing(orders: Orders) -> status.OrdersStatus:
    departure_s = orders.departure_s
    departure = None if departure_s is None else dt.datetime.fromtimestamp(departure_s, dt.UTC)
    return status.OrdersStatus(orders.draining, orders.paused, orders.consent, departure)


def _told(preemptions: Preemptions) -> status.PreemptionStatus:
    if not preemptions.done:
        return status.PreemptionStatus(0)
    last = preemptions.done[-1]
    return status.PreemptionStatus(
        count=preemptions.count,
        last_reason=last.reason.label,
        last_kill_ms=last.kill_ms,
        last_silent_ms=last.silent_ms,
        last_said_ms=last.said_ms,
        max_silent_ms=max(preemption.silent_ms for preemption in preemptions.done),
        last_seen_ns=last.seen_ns,
    )


def _stored(counts: Counts, max_bytes: int, store: Store) -> status.StoreStatus:
    return status.StoreStatus(
        open_tasks=counts.open_tasks,
        unsettled_results=counts.unsettled_results,
        bytes_used=counts.used_bytes,
        bytes_max=max_bytes,
        waiting=store.writer.waiting,
        salvage=store.salvage,
    )


def _dead(dead_letters: DeadLetters) -> status.DeadLettersStatus:
    return status.DeadLettersStatus(
        counts={Reason(code).label: messages for code, messages in dead_letters.counts.items()},
        newest=[
            status.DeadLetterStatus(
                at=dt.datetime.fromtimestamp(letter.at, dt.UTC),
                topic=letter.topic,
                code=Reason(letter.reason_code),
                text=letter.text,
                size_bytes=letter.size_bytes,
                sha256=letter.sha256.hex(),
                head=letter.head,
            )
            for letter in dead_letters.newest
        ],
    )


def _metering(energy: Energy) -> status.MeterStatus:
    baseline = energy.baseline
    return status.MeterStatus(energy.source, energy.why, baseline.watts if baseline else None)
