"""onnxruntime >= 1.29 reports usage to its maker unless this stands in the environment before its import.

It would start an uploader thread and write a device id below ~/.cache/Microsoft. A car must do neither.
"""

from typing import Final

NO_TELEMETRY: Final = {"ORT_DISABLE_TELEMETRY": "1"}
