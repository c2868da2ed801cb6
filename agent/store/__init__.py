"""The agent's durable memory: what it took over, what is done, what the fleet has not confirmed yet."""

from agent.store.errors import (
    RowsRefused,
    StoreClosed,
    StoreFailed,
    StoreFull,
    StoreUnusable,
    TaskEnded,
    UnknownTask,
)
from agent.store.facts import KeptOrders
from agent.store.ledger import Ledger
from agent.store.records import (
    Acceptance,
    Counts,
    DeadLetter,
    NewTask,
    Outcome,
    PendingRows,
    TaskRow,
    Unsettled,
)
from agent.store.store import Store

__all__ = [
    "Acceptance",
    "Counts",
    "DeadLetter",
    "KeptOrders",
    "Ledger",
    "NewTask",
    "Outcome",
    "PendingRows",
    "RowsRefused",
    "Store",
    "StoreClosed",
    "StoreFailed",
    "StoreFull",
    "StoreUnusable",
    "TaskEnded",
    "TaskRow",
    "UnknownTask",
    "Unsettled",
]
