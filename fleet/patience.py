from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a fleet waits before it concludes something, in seconds."""

    lease_margin_s: float = 2.0
    """Beyond a lease, and beyond a deadline: what a vehicle said last may still be on its way."""
    reboot_grace_s: float = 5.0
    """How long results of a task may take that a vehicle does not have open any more after it was away."""
    first_word_s: float = 1.0
    """How long a vehicle that appears has to speak of its tasks; those that it may never have got are repeated then."""
    retry_first_s: float = 0.5
    """A vehicle that will not work now is asked again after up to this long, doubled each time..."""
    retry_cap_s: float = 30.0
    """...until this; with full jitter, and never before the `resume_at` that it named."""
    settle_s: float = 0.003
    """How long a confirmation waits for others to share its message."""

    def retry_ceiling_s(self, refusals: int) -> float:
        """How long to wait at most after so many refusals in a row before this one."""
        return min(self.retry_cap_s, self.retry_first_s * 2.0 ** min(refusals, 32))
