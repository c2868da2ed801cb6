"""What a part would log: one that retries for ever tells its trouble only there."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def warnings_of(logger_name: str) -> Iterator[list[str]]:
    """Collect what a logger would warn of: a source that retries for ever tells its trouble only there."""
    texts: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    logger = logging.getLogger(logger_name)
    collector = Collector(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield texts
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate
