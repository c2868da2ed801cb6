"""Whether there are metrics. What they need is loaded only where they are wanted: it would be a tenth of a blocked car."""

# ruff: noqa: PLC0415 - for that reason

import importlib.util
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from agent.control_socket import ControlSocketTakenError

if TYPE_CHECKING:
    from agent.metrics.subjects import Subjects
    from agent.settings import MetricsSettings

log = logging.getLogger(__name__)
LIBRARY: Final = "prometheus_client"
INSTALL: Final = "pip install 'parkwatt[metrics]', or leave metrics.listen empty"


def missing() -> bool:
    """Whether the library is not installed."""
    return importlib.util.find_spec(LIBRARY) is None


async def enter(stack: AsyncExitStack, settings: "MetricsSettings", subjects: "Subjects") -> None:
    """Serve metrics until `stack` is left, if they are wanted. Where they cannot be, the car works without them."""
    if settings.address is None:
        return
    if missing():
        log.error("no metrics: %s is not installed: %s", LIBRARY, INSTALL)
        return
    from agent.metrics.serving import serving

    try:
        await stack.enter_async_context(serving(settings, subjects))
    except (OSError, ControlSocketTakenError) as error:
        log.error("no metrics on %s: %s; free it or set metrics.listen", settings.listen, error)  # noqa: TRY400 - a fault of the place
        return
    log.info("metrics on %s", settings.listen)
