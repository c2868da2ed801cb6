"""Open Inference Protocol datatypes of fixed size: their names in numpy and their bytes."""

from typing import Final

_TABLE: Final = (
    ("BOOL", "bool", 1),
    ("UINT8", "uint8", 1),
    ("UINT16", "uint16", 2),
    ("UINT32", "uint32", 4),
    ("UINT64", "uint64", 8),
    ("INT8", "int8", 1),
    ("INT16", "int16", 2),
    ("INT32", "int32", 4),
    ("INT64", "int64", 8),
    ("FP16", "float16", 2),
    ("FP32", "float32", 4),
    ("FP64", "float64", 8),
)

NUMPY_NAMES: Final = {datatype: numpy_name for datatype, numpy_name, _ in _TABLE}
ITEM_BYTES: Final = {datatype: size_bytes for datatype, _, size_bytes in _TABLE}
