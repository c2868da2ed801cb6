"""A first-order low-pass over a value that changes in steps: exact, however rarely one looks."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LowPass:
    """The filtered `value` as of `at_ns`, with the `input` that has stood since then."""

    value: float
    input: float
    at_ns: int
    tau_s: float

    def moved(self, new_input: float, now_ns: int) -> "LowPass":
        """The filter at `now_ns`, when its input becomes `new_input`."""
        passed_s = max(0.0, (now_ns - self.at_ns) / 1e9)
        share = math.exp(-passed_s / self.tau_s) if self.tau_s else 0.0
        return LowPass(self.input + (self.value - self.input) * share, new_input, now_ns, self.tau_s)

    def crosses_s(self, limit: float) -> float | None:
        """Seconds until the value passes `limit` if the input stays as it is; None: never."""
        if (self.value < limit) == (self.input < limit):
            return None
        if self.input == limit:
            return None
        return self.tau_s * math.log((self.value - self.input) / (limit - self.input))
