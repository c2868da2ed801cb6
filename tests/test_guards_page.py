from pathlib import Path

from agent.guards_page import ROWS, page
from agent.policy.conditions import CONDITIONS
from agent.policy.settings import PolicySettings

PAGE = Path(__file__).parent.parent / "docs" / "guards.md"


def test_the_page_in_the_docs_is_what_the_policy_says_now() -> None:
    assert PAGE.read_text() == page(PolicySettings()), "run `make docs`"


def test_every_guard_has_its_row_and_no_row_is_without_a_guard() -> None:
    assert list(ROWS) == [condition.name for condition in CONDITIONS]


def test_the_figures_are_those_of_the_settings() -> None:
    other = PolicySettings(
        soc_start_pct=42, lv_stop_s=17, require_grid_proof=False, pack_budget_pct_per_day=4
    )
    text = page(other)
    assert "SoC >= 42 %" in text
    assert "| 17 s |" in text
    assert "at most 3 % in any 24 h taken" in text
