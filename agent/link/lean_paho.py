"""paho without the HTTP client of the standard library: half a MiB of a car that is blocked most of the time.

It imports urllib.request to ask the environment for proxies when it dials; here it never dials (see `dial`).
"""

import sys
from types import ModuleType
from typing import Final

UNUSED: Final = "urllib.request"


def _import() -> None:
    loaded = sys.modules.get(UNUSED)
    sys.modules[UNUSED] = loaded or ModuleType(UNUSED)
    import paho.mqtt.client  # noqa: F401, PLC0415 - from here on it is imported

    if loaded is None:
        del sys.modules[UNUSED]


_import()
