"""A file as the row that the file type model takes: its first and its last bytes as int32.

As the model's `config.min.json` has it: 1024 tokens of the first block and 1024 of the last, a block being at
most 4096 bytes without its outer white space; where a half is short it is padded, towards the middle, with 256.
"""

import os
import struct
from pathlib import Path
from typing import Final

HALF_TOKENS: Final = 1024
ROW_TOKENS: Final = 2 * HALF_TOKENS
BLOCK_BYTES: Final = 4096
PADDING: Final = 256
ROW: Final = struct.Struct(f"<{ROW_TOKENS}i")


def row_of_blocks(first: bytes, last: bytes) -> bytes:
    """The row, 2048 little-endian int32, for the first and the last block of a file."""
    begin = first.lstrip()[:HALF_TOKENS]
    end = last.rstrip()[-HALF_TOKENS:]
    padding = [PADDING] * (ROW_TOKENS - len(begin) - len(end))
    return ROW.pack(*begin, *padding, *end)


def row_of_file(path: Path) -> bytes:
    """The row for a file; raises OSError."""
    with path.open("rb") as file:
        first = file.read(BLOCK_BYTES)
        file.seek(max(0, os.fstat(file.fileno()).st_size - BLOCK_BYTES))
        return row_of_blocks(first, file.read(BLOCK_BYTES))
