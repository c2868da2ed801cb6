"""The contract suite: what every backend has to do, whatever it runs on.

From a test, `for check in CHECKS: check(subject)`: a check says in words what it saw, or raises. From a
shell, `python -m backends.contract MODULE:CLASS` runs each check in a process of its own, so that one that
hangs or crashes is a failure like any other.
"""

from collections.abc import Callable
from typing import Final

from backends.contract.cancelling import (
    a_cancel_ends_a_run_within_its_bound,
    a_cancelled_run_harms_no_other,
    cancel_without_a_run_does_nothing,
)
from backends.contract.describing import (
    a_known_cost_changes_nothing,
    a_program_describes_itself,
    costs_make_sense,
    importing_it_is_light,
    options_are_documented,
    options_refuse_what_they_do_not_know,
    probe_names_devices,
)
from backends.contract.in_a_worker import a_worker_gives_the_same
from backends.contract.leaving import (
    after_a_run_nobody_writes,
    close_gives_everything_back,
    closing_twice_is_harmless,
)
from backends.contract.refusing import (
    a_file_that_is_no_model_is_refused,
    an_unknown_device_is_refused,
    an_unknown_output_is_refused,
    wrong_shapes_are_refused,
)
from backends.contract.running import (
    a_row_alone_gives_the_same,
    a_run_fills_every_output,
    joules_can_be_believed,
    ordinary_numbers_give_no_nan,
    rows_do_not_see_each_other,
    spent_is_within_the_call,
    the_numbers_are_right,
)
from backends.contract.subject import Broken, Subject, own_model

__all__ = ["CHECKS", "Broken", "Check", "Subject", "own_model"]

Check = Callable[[Subject], str]

CHECKS: Final[tuple[Check, ...]] = (
    importing_it_is_light,
    options_refuse_what_they_do_not_know,
    options_are_documented,
    probe_names_devices,
    an_unknown_device_is_refused,
    a_file_that_is_no_model_is_refused,
    wrong_shapes_are_refused,
    an_unknown_output_is_refused,
    a_program_describes_itself,
    costs_make_sense,
    a_known_cost_changes_nothing,
    a_run_fills_every_output,
    the_numbers_are_right,
    ordinary_numbers_give_no_nan,
    rows_do_not_see_each_other,
    a_row_alone_gives_the_same,
    spent_is_within_the_call,
    joules_can_be_believed,
    cancel_without_a_run_does_nothing,
    a_cancelled_run_harms_no_other,
    a_cancel_ends_a_run_within_its_bound,
    after_a_run_nobody_writes,
    closing_twice_is_harmless,
    close_gives_everything_back,
    a_worker_gives_the_same,
)
