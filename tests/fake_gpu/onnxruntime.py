"""Stands in for onnxruntime-gpu where there is no GPU: the CPU build, which says that it has CUDA and TensorRT.

A worker that finds this folder on its path imports this file instead, and gets the real module with sessions
that claim the provider they were asked for and compute on the processor. FAKE_GPU says how the provider is:
`works`, or one of the ways in which it goes wrong without an exception.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
NO_FALLBACK = "session.disable_cpu_ep_fallback"
LACKS = b"Hardmax"
"""An operator that the fake's provider has not got."""
GPU_LOST = "CUDA failure 46: device busy or unavailable"


def sessions_of(real: Any, behaviour: str) -> type[Any]:
    """The class that stands for `real.InferenceSession`."""

    class Session(real.InferenceSession):  # type: ignore[misc] # untyped
        def __init__(self, data: bytes, options: Any, providers: Any, enable_fallback: int = 1) -> None:
            ((self._asked, self._settings),) = providers
            if behaviour == "lost" and not enable_fallback:  # else there is a second try, on the processor
                raise RuntimeError(GPU_LOST)
            refuses_alone = behaviour == "does not start" or LACKS in data
            if behaviour == "ignores the flag" or not refuses_alone:
                options.add_session_config_entry(NO_FALLBACK, "0")
            super().__init__(data, options, providers=[], enable_fallback=enable_fallback)

        def get_providers(self) -> list[str]:
            started = behaviour not in {"ignores the flag", "does not start", "lost"}
            return [self._asked, PROVIDERS[-1]] if started else [PROVIDERS[-1]]

        def get_provider_options(self) -> dict[str, dict[str, str]]:
            at = {"device_id": "0"} if behaviour == "first GPU" else {}
            return {self._asked: {**self._settings, **at}, PROVIDERS[-1]: {}}

    return Session


def available() -> list[str]:
    """What was compiled in, whether it starts or not."""
    return list(PROVIDERS)


def _stand_in() -> None:
    here = str(Path(__file__).parent)
    sys.path = [entry for entry in sys.path if entry != here]
    del sys.modules[__name__]
    real = importlib.import_module(__name__)
    vars(real).update(
        InferenceSession=sessions_of(real, os.environ["FAKE_GPU"]), get_available_providers=available
    )


if __name__ == "onnxruntime":
    _stand_in()
