"""Names of what a worker can be busy with when a cue comes."""

import enum


class Kind(enum.StrEnum):
    """In the order of the report."""

    FILE_TYPES = "file-types"
    LONG_NODE = "long-node"
    IRISES = "irises"
    STAMPING = "stamping"
