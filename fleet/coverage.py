from agent.protocol.messages import RowRange


class Coverage:
    """Which rows of `[begin, end)` have been accepted. A row is taken once; what is left is in order."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin = begin
        self.end = end
        self.missing: list[RowRange] = [(begin, end)]

    @property
    def rows(self) -> int:
        """How many rows there should be."""
        return self.end - self.begin

    @property
    def rows_done(self) -> int:
        """How many rows are there."""
        return self.rows - sum(end - begin for begin, end in self.missing)

    @property
    def hull(self) -> RowRange:
        """The smallest range that covers every missing row; there must be one."""
        return self.missing[0][0], self.missing[-1][1]

    def take(self, begin: int, end: int) -> list[RowRange]:
        """Take the rows of `[begin, end)` that were missing, and give them; the others are duplicates."""
        taken: list[RowRange] = []
        left: list[RowRange] = []
        for gap_begin, gap_end in self.missing:
            taken_begin, taken_end = max(begin, gap_begin), min(end, gap_end)
            if taken_begin >= taken_end:
                left.append((gap_begin, gap_end))
                continue
            taken.append((taken_begin, taken_end))
            if gap_begin < taken_begin:
                left.append((gap_begin, taken_begin))
            if taken_end < gap_end:
                left.append((taken_end, gap_end))
        self.missing = left
        return taken
