"""The store of an agent that does not run, read without changing a byte of it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from agent.store.database import is_new, one_line_refusals
from agent.store.errors import StoreUnusable
from agent.store.ledger import Ledger
from agent.store.schema import MIGRATIONS, refuse_newer


@contextmanager
def reading(path: Path) -> Iterator[Ledger]:
    """The ledger of the store at `path`, to be read only; `StoreUnusable` where there is none, or not one of ours."""
    with one_line_refusals(path):
        if not path.exists() or is_new(path):
            raise StoreUnusable(
                path, "no agent has had a store here yet", "name its configuration with --config"
            )
        with closing(_connected(path)) as connection:
            found = refuse_newer(connection, path)
            if found < len(MIGRATIONS):
                problem = f"schema version {found} is older than {len(MIGRATIONS)}, which this parkwatt reads"
                raise StoreUnusable(path, problem, "start the agent once: it brings the store forward")
            yield Ledger(connection)


def _connected(path: Path) -> sqlite3.Connection:
    """With what the log holds; where it holds nothing SQLite need not even make its shared memory beside it."""
    log = path.with_name(path.name + "-wal")
    settled = not log.exists() or not log.stat().st_size
    how = "mode=ro&immutable=1" if settled else "mode=ro"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)
