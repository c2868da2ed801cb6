"""The service: wires signals, guard, store, link and executor together and runs them until it is told to stop."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final
from zoneinfo import ZoneInfo

from agent import leases, status_line, stay_prior, trusted_keys, watchdog
from agent.broker import link_options
from agent.commands import Commands
from agent.control_server import ControlServer
from agent.costs import Costs
from agent.dead_letters import DeadLetters
from agent.duties import Duties, Duty
from agent.energy import Energy
from agent.executor import Executor
from agent.guard import Cue, Guard, Kill
from agent.history.logbook import Logbook, Sight
from agent.housekeeping import keep_house
from agent.inputs import Inputs
from agent.intake import Intake
from agent.job import Chunk, Ending, Job
from agent.journal import Journal
from agent.killers import Killers
from agent.link import Inbound, Link, Will
from agent.metrics import switch
from agent.metrics.subjects import Subjects
from agent.models import ModelCache
from agent.notify import Notices
from agent.outbox import Outbox
from agent.policy.verdict import Policy, Verdict
from agent.policy_note import PolicyNote
from agent.portrait import Portrait
from agent.preemption import Preemption, Preemptions
from agent.protocol import framing
from agent.protocol.messages import Offline, State, TaskState
from agent.protocol.reasons import Reason
from agent.protocol.topics import Topics
from agent.reason_text import seen
from agent.reports import Reports, utc_now
from agent.restore import open_jobs
from agent.results import ResultWriter
from agent.runs import Runs
from agent.settings import Settings
from agent.signed_time import SignedTime
from agent.station import Station
from agent.stays import Stays
from agent.store import Store, StoreFailed
from agent.supplies import Supplies
from agent.tally import Tally
from agent.threads import Threads
from agent.trusted_keys import TrustedKeys
from agent.version import version
from backends.group import Reaped
from backends.resident import give_freed_memory_back
from firmware_shims.clock import Clock, boottime_ns
from firmware_shims.pushed import PushedSignals
from firmware_shims.reading import Source

log = logging.getLogger(__name__)
GOODBYE_S = 1.0
"""How long the last words may take at a stop, also with the broker gone."""
FLUSH_S: Final = 0.4
"""And the last commit before them, also on a disk that hangs."""
LEASES_S: Final = 40 * leases.WATCH_S
KEYS_S: Final = 8 * trusted_keys.PERIOD_S
LINK_S: Final = 180.0
"""Longer than any wait between two attempts (see `agent.link.retry`), or within one."""


class Service:
    """One agent over one store. `sources` replaces those of the settings, for a car that a program drives.

    `wall` is the car's own clock in unix seconds, right or wrong.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        sources: Sequence[Source] | None = None,
        clock: Clock = boottime_ns,
        wall: Callable[[], float] = time.time,
        notices: Notices | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self._notices = notices or Notices()
        self._status = status_line.StatusLine(self._notices, self._one_line)
        self._clock = clock
        trust = settings.trust
        self.keys = TrustedKeys(trust.task_keys_dir, required=trust.require_signatures)
        self.time = SignedTime(wall, trust.max_age_s)
        self._loop = asyncio.get_running_loop()
        self._restored: list[Job] = []
        self.dead_letters = DeadLetters(store, self._fail)
        store.writer.on_stuck = self._hand_over_stuck
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._sources = list(sources) if sources is not None else settings.open_signals(clock)
        self._topics = Topics(settings.mqtt.root, settings.vehicle.region, settings.vehicle.id)
        self.guard = Guard(self._policy(), self._sources, clock, self._hand_over, self.time.wall_s)
        self._policy_note = PolicyNote(self.guard, store, clock, self.time.wall_s, self._fail)
        self.preemptions = Preemptions(self._preempted)
        self.stations = [
            Station(backend, self.guard, self._on_reaped, settings.models.cache_dir)
            for backend in settings.backends
        ]
        self.link = self._link()
        self.reports = Reports(
            self.link, self._topics, store.boot, clock, self._describe, self.preemptions.said
        )
        self.energy = Energy(settings.meter, self.guard, clock)
        self.tally = Tally()
        self.executor = self._executor()
        self.stays = self._stays()
        self.logbook = self._logbook()
        self.portrait = self._portrait()
        self._outbox = Outbox(store, self.reports, self._fail)
        self.intake = self._intake()
        pushed = [source for source in self._sources if isinstance(source, PushedSignals)]
        self.commands = Commands(self.guard, store, self.portrait, self.logbook, pushed)

    def _policy(self) -> Policy:
        declared = frozenset(path for source in self._sources for path in source.stale_after_s)
        powers_w = [backend.max_power_w for backend in self.settings.backends]
        region = self.settings.vehicle.on_the_map
        policy = Policy(self.settings.policy, declared, sum(powers_w), min(powers_w), region)
        if policy.missing:
            missing = ", ".join(sorted(policy.missing))
            log.warning("no configured source offers %s: work is never allowed", missing)
        return policy

    def _link(self) -> Link:
        death = framing.encode(Offline(self.settings.vehicle.id, self.store.boot))
        options = replace(
            link_options(self.settings),
            will=Will(topic=self._topics.state, payload=death, retain=True),
            subscriptions=(self._topics.task, self._topics.control),
        )
        return Link(options, on_message=self._on_message, on_up=lambda _: self._on_up(), clock=self._clock)

    def _executor(self) -> Executor:
        settings, clock = self.settings, self._clock
        results = ResultWriter(settings.mqtt.max_payload_bytes)
        inputs = Inputs(settings.inputs.rules, settings.models.cache_dir / "inputs")
        return Executor(
            stations=self.stations,
            guard=self.guard,
            runs=Runs(self.stations, self.guard, Costs(self.store, self._fail), self.energy),
            journal=Journal(
                self.store,
                self.reports,
                results,
                clock,
                self._fail,
                on_rows=self._on_rows,
                on_ended=self._on_ended,
            ),
            supplies=Supplies(ModelCache(settings.models), inputs, self.guard, clock),
            killers=Killers(self.store, self._fail),
            clock=clock,
            drain_s=settings.policy.drain_s,
            on_activity=self._changed,
        )

    def _stays(self) -> Stays:
        return Stays(
            guard=self.guard,
            store=self.store,
            prior=stay_prior.load(self.settings.vehicle.stay_prior_file).prior,
            zone=ZoneInfo(self.settings.policy.time_zone),
            clock=self._clock,
            wall=self.time.wall_s,
            on_store_error=self._fail,
        )

    def _logbook(self) -> Logbook:
        return Logbook(
            present=self._sight,
            store=self.store,
            zone=ZoneInfo(self.settings.policy.time_zone),
            clock=self._clock,
            wall=self.time.wall_s,
            on_store_error=self._fail,
        )

    def _portrait(self) -> Portrait:
        settings = self.settings
        return Portrait(
            vehicle=settings.vehicle.id,
            region=settings.vehicle.region,
            store_max_bytes=settings.store.max_bytes,
            version=version(),
            boot=self.store.boot,
            started_at=utc_now(),
            guard=self.guard,
            executor=self.executor,
            preemptions=self.preemptions,
            stations=self.stations,
            stays=self.stays,
            energy=self.energy,
            link=self.link,
            store=self.store,
            dead_letters=self.dead_letters,
            logbook=self.logbook,
            clock=self._clock,
        )

    def _intake(self) -> Intake:
        return Intake(
            settings=self.settings,
            topics=self._topics,
            keys=self.keys,
            time=self.time,
            store=self.store,
            executor=self.executor,
            reports=self.reports,
            guard=self.guard,
            stays=self.stays,
            dead_letters=self.dead_letters,
            outbox=self._outbox,
            clock=self._clock,
            on_store_error=self._fail,
        )

    async def run(self, stop: asyncio.Event, beside: Mapping[str, Duty] | None = None) -> None:
        """Serve until `stop` is set; then say good-bye. Raises what made it impossible to go on.

        `beside`: what else lives exactly as long, by name.
        """
        await self._restore()
        async with AsyncExitStack() as stack:
            control = await stack.enter_async_context(
                ControlServer(
                    self.settings.control.socket, self.commands.table, group=self.settings.control.group
                )
            )
            await switch.enter(stack, self.settings.metrics, Subjects(self.portrait, self.tally, self.intake))
            threads = await stack.enter_async_context(Threads())
            stack.callback(self.guard.wake)
            stack.callback(self.energy.stop)
            duties = await stack.enter_async_context(Duties())
            self._begin_duties(duties, threads, beside or {})
            linking = duties.start("link", self.link.run(), within_s=LINK_S)
            stack.push_async_callback(self._say_goodbye, linking)
            for source in self._sources:
                threads.start(source.name, source.run, self.guard, threads.stop)
            threads.start("guard", self.guard.run, threads.stop)
            threads.start("meter", self.energy.run)
            self._notices.ready()
            self._status.changed()
            duties.start("stop", _until(stop))
            endings = (*duties.tasks, threads.failed, control.failed, self._failed)
            done, _ = await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
            self._notices.stopping()
            for ended in done:
                ended.result()

    def _begin_duties(self, duties: Duties, threads: Threads, beside: Mapping[str, Duty]) -> None:
        duties.start("executor", self.executor.run())
        duties.start(
            "leases", leases.watch(self.executor), within_s=LEASES_S, due=lambda: bool(self.executor.jobs)
        )
        duties.start("stays", self.stays.watch(self._changed))
        duties.start("logbook", self.logbook.watch())
        signed = self.settings.trust.require_signatures
        duties.start("housekeeping", keep_house(self.store, signed=signed))
        duties.start("keys", self.keys.watch(), within_s=KEYS_S)
        for name, duty in beside.items():
            duties.start(name, duty())
        if self._notices.watchdog_s is not None:
            looks = (
                duties.stuck,
                watchdog.store(self.store.writer, self._clock),
                watchdog.guard(self.guard),
                watchdog.threads(threads, [*(source.name for source in self._sources), "guard"]),
                watchdog.Progress(self.executor, self._loop.time),
            )
            duties.start("watchdog", watchdog.feed(self._notices, looks, self._notices.watchdog_s))

    def adopt(self, settings: Settings) -> None:
        """Go on with other settings; what they differ in can change while everything runs (see agent.reload)."""
        self.settings = self.intake.settings = settings
        self.guard.adopt(self._policy())
        self.executor.drain_s = settings.policy.drain_s
        self.stays.zone = self.logbook.zone = ZoneInfo(settings.policy.time_zone)
        self.time.max_age_s = settings.trust.max_age_s
        self.keys.refresh()

    # What the parts tell each other

    def _on_message(self, inbound: Inbound) -> None:
        self.intake.on_message(inbound)

    def _describe(self, seq: int) -> State:
        return self.portrait.state(seq)

    def _one_line(self) -> str:
        return status_line.line(self.portrait.mode, self.portrait.blockers)

    def _sight(self) -> Sight:
        return Sight(self.portrait.mode, [blocker.reason for blocker in self.guard.verdict.blockers])

    def _on_rows(self, job: Job, chunk: Chunk) -> None:
        self.tally.computed(job, chunk)
        self.logbook.rows(chunk)

    def _on_ended(self, ending: Ending) -> None:
        self.tally.ended(ending)
        self.logbook.ended(ending)

    def _changed(self) -> None:
        """Note it, and tell the fleet and the service manager, each in its own time."""
        self.logbook.look()
        self.reports.state_changed()
        self._status.changed()

    def _hand_over(self, verdict: Verdict, cue: Cue | None) -> None:
        """From whatever thread brought the change; the guard has done what could not wait."""
        self._loop.call_soon_threadsafe(self._on_verdict, verdict, cue)

    def _on_verdict(self, verdict: Verdict, cue: Cue | None) -> None:
        if cue is not None:
            self.preemptions.begin(cue)
        if verdict.allowed:
            log.info("work is allowed, budget %g W", verdict.budget_w)
        else:
            first = verdict.blockers[0]
            said = seen(first.reason, first.value, first.limit)
            log.info("no work: %d %s: %s", first.reason.value, first.reason.label, said)
        self.executor.on_verdict(verdict)
        self.energy.look()
        self.stays.look()
        self._policy_note.look()
        self._changed()

    def _on_reaped(self, station: Station, kill: Kill, reaped: Reaped, by_itself: bool) -> None:
        self.executor.on_reaped(station, reaped, by_itself)
        self.preemptions.reaped(kill, reaped.at_ns)
        self.tally.worker_ended(station.name, by_itself=by_itself)
        self._changed()
        if not any(each.pid for each in self.stations):
            give_freed_memory_back()  # ours is the car's now as well: 10 MiB after large inputs, in half a millisecond

    def _preempted(self, preemption: Preemption) -> None:
        self.tally.preempted(preemption)
        self.logbook.preempted(preemption)
        log.info(
            "preempted by %s: signal after %.2f ms, memory free after %.1f ms",
            preemption.reason.label,
            preemption.kill_ms,
            preemption.silent_ms,
        )

    def _on_up(self) -> None:
        """State first: the fleet reconciles from its list of open tasks. Then everything that is owed."""
        self.reports.state()
        for job in self._restored:
            if job.ended is None:
                restarted = Ending(TaskState.PREEMPTED, Reason.RESTARTED, "the agent was started again")
                self.reports.event(job, restarted if job.state is TaskState.PREEMPTED else None)
        self._restored.clear()
        self._outbox.begin()

    def _hand_over_stuck(self, stuck: bool) -> None:
        """From the store's thread."""
        self._loop.call_soon_threadsafe(self._on_stuck, stuck)

    def _on_stuck(self, stuck: bool) -> None:
        if stuck:
            log.warning("the store is full: what is done is kept in memory, no new work until there is room")
        else:
            log.info("there is room in the store again")
            self.executor.on_room()

    def _fail(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    # Beginning and end

    async def _restore(self) -> None:
        now, now_ns = utc_now(), self._clock()
        self._restored = await self.store.run(lambda ledger: open_jobs(ledger, now, now_ns))
        for job in self._restored:
            self.executor.add(job)
        await self.executor.killers.restore()
        await self.executor.runs.costs.restore()
        await self.intake.restore()
        await self.dead_letters.restore()
        await self._policy_note.restore()  # behind the intake, which knows the time floor
        await self.commands.restore()
        await self.stays.restore()

    async def _say_goodbye(self, linking: asyncio.Task[None]) -> None:
        """End the workers, give back what is open, say offline; none of it may take long."""
        self._status.close()
        self._outbox.stop()
        self.executor.release_all(Reason.RESTARTED, "the agent stops")
        for station in self.stations:
            await station.close()
        self.dead_letters.write()
        self.logbook.look()
        self.logbook.write()
        with contextlib.suppress(StoreFailed, TimeoutError):  # it may be what ends the agent
            async with asyncio.timeout(FLUSH_S):
                await self.store.run(lambda _: None)
        try:
            async with asyncio.timeout(GOODBYE_S):
                answer = self.reports.offline()
                if answer is not None:
                    await asyncio.wait([answer])
                await self.link.close()
                await asyncio.wait([linking])
        except TimeoutError:
            log.warning("the broker did not take the good-bye within %g s", GOODBYE_S)


async def _until(event: asyncio.Event) -> None:
    await event.wait()
