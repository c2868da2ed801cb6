"""Where broken stores go: under another name beside the store, and never away while something in them is unread.

`agent.db.corrupt-20261122T101500Z` could be read to its end; one that ends in `-unread` could not.
"""

import datetime as dt
import os
from pathlib import Path
from typing import Final

from agent.store.database import LOG_TAILS, flush_folder
from agent.store.errors import StoreUnusable

READ_KEPT: Final = 2
UNREAD_MOST: Final = 4
"""With more, the disk is what is broken, and a person has to look at it."""
UNREAD: Final = "-unread"


def set_aside(path: Path, now: dt.datetime) -> Path:
    """Give the broken store and its log a second name; the first stays until it is replaced.

    When the agent died in the middle of this before, the same name as then: the log may be there only.
    """
    unread = [found for found in kept(path) if found.name.endswith(UNREAD)]
    for found in unread:
        if found.samefile(path):
            return found
    if len(unread) >= UNREAD_MOST:
        problem = (
            f"broken, and {len(unread)} broken ones lie beside it already ({unread[0].name} is the oldest)"
        )
        raise StoreUnusable(path, problem, "check its disk, and move them to a place where they can be read")
    aside = path.with_name(f"{path.name}.corrupt-{now:%Y%m%dT%H%M%SZ}{UNREAD}")
    log, log_aside = path.with_name(path.name + "-wal"), aside.with_name(aside.name + "-wal")
    if log.exists():  # first: without it the other name would be taken for complete
        log_aside.unlink(missing_ok=True)
        os.link(log, log_aside)
    os.link(path, aside)
    flush_folder(path.parent)
    return aside


def mark_read(aside: Path) -> Path:
    """Nothing in it is unread: its new name. Of such ones only the newest are kept."""
    read = aside.with_name(aside.name.removesuffix(UNREAD))
    for tail in ("", *LOG_TAILS):
        source = aside.with_name(aside.name + tail)
        if source.exists():
            source.rename(read.with_name(read.name + tail))
    old = [
        found for found in kept(read.with_name(read.name.partition(".corrupt-")[0])) if found.name[-1] == "Z"
    ]
    for found in old[:-READ_KEPT]:
        for tail in ("", *LOG_TAILS):
            found.with_name(found.name + tail).unlink(missing_ok=True)
    return read


def kept(path: Path) -> list[Path]:
    """The broken stores beside the one at `path`, oldest first."""
    found = path.parent.glob(f"{path.name}.corrupt-*Z*")
    return sorted(each for each in found if not each.name.endswith(LOG_TAILS))
