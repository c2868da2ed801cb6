"""How the counts of simulated car-days are printed."""

from collections.abc import Iterator, Sequence

from benchmarks.car_day_counts import Counts, Loss, Promise, Told


def lines(counts: Counts, seed: int, wall_s: float, processes: int) -> Sequence[str]:
    """The whole report."""
    return [
        *_size(counts, seed, wall_s, processes),
        "",
        *_promises(counts),
        "",
        *_departures(counts),
        "",
        *_use(counts),
        "",
        *_losses(counts),
    ]


def _size(counts: Counts, seed: int, wall_s: float, processes: int) -> Iterator[str]:
    yield f"simulated car-days: {counts.days:,} (seed {seed}) in {wall_s:.0f} s with {processes} processes"
    yield f"looks of the policy: {counts.looks:,}, {counts.looks / counts.days:.1f} a day"


def _promises(counts: Counts) -> Iterator[str]:
    yield f"{'what must be 0':<55} {'counted':>9}   how often it was challenged"
    for promise in Promise:
        challenged = f"{counts.challenged[promise]:>11,} {promise.challenge}"
        yield f"{promise.broken:<55} {counts.broken[promise]:>9,.6g} {challenged}"


def _departures(counts: Counts) -> Iterator[str]:
    yield f"{'departures from a wallbox':<74} {'n':>9} {'worked':>9} {'below *':>8} {'worst':>7}"
    for told in Told:
        some = counts.departures[told]
        yield f"{told:<74} {some.count:>9,} {some.worked:>9,} {some.below:>8,} {some.worst_pct:>5.1f} %"
    yield "* below the target, which the same car would have reached had it not worked since it knew of the departure"


def _use(counts: Counts) -> Iterator[str]:
    days = counts.days
    mean_h = sum(minutes * number for minutes, number in counts.usable_min.items()) / 60 / days
    p10, p50, p90 = (counts.usable_h(share) for share in (0.1, 0.5, 0.9))
    yield f"usable hours a day    mean {mean_h:.2f}   p10 {p10:.2f}   p50 {p50:.2f}   p90 {p90:.2f}"
    yield f"starts a day          mean {counts.starts / days:.2f}"
    yield f"energy worked a day   mean {counts.worked_wh / days / 1000:.3f} kWh"
    dips_mwh = counts.dips_wh / days * 1000
    yield f"from the pack while grid power was missed, for up to 3 s and a reading: {dips_mwh:.0f} mWh a day"
    yield f"most that work took from a pack in 24 h, of owners who had opted in to 5 %: {counts.most_taken_pct:.2f} %"


def _losses(counts: Counts) -> Iterator[str]:
    yield "why time was lost, by the first blocker (hours a day)"
    for loss in Loss:
        yield f"  {loss:<84} {counts.lost_s[loss] / 3600 / counts.days:>7.3f}"
    ended_s = counts.lost_s[Loss.CHARGE_ENDED] + counts.lost_s[Loss.ASLEEP_CHARGE_ENDED]
    yield f"  of it because charging had ended, awake and asleep: {ended_s / 3600 / counts.days:.3f}"
