"""Ranges that wait to be fetched: the first one needed is taken first, together with its neighbours in the file."""

from __future__ import annotations

import bisect

from t4sa_data.reading.release import Range

GAP_BYTES = 64 << 10
"""Bytes between two ranges that are fetched and thrown away rather than asked around: at 200 Mbit/s they take 3 ms, a
request of its own takes a round trip."""


class Waiting:
    """Announced ranges, in order. Not for several threads.

    >>> waiting = Waiting()
    >>> for offset in (500_000, 0, 510_000):
    ...     waiting.add(Range("a.tar", offset, 10_000))
    >>> [wanted.offset for wanted in waiting.take(1 << 20)]
    [500000, 510000]
    """

    def __init__(self) -> None:
        self._order: dict[Range, None] = {}
        self._by_file: dict[str, list[tuple[int, int]]] = {}

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, wanted: Range) -> bool:
        return wanted in self._order

    def add(self, wanted: Range) -> None:
        """Append a range, unless it waits already."""
        if wanted not in self._order:
            self._order[wanted] = None
            bisect.insort(self._by_file.setdefault(wanted.file, []), wanted[1:])

    def discard(self, wanted: Range) -> None:
        """Take a range out, if it waits."""
        if wanted in self._order:
            del self._order[wanted]
            line = self._by_file[wanted.file]
            del line[bisect.bisect_left(line, wanted[1:])]

    def first(self) -> Range | None:
        """The range that waits for longest."""
        return next(iter(self._order), None)

    def take(self, most_bytes: int, first: Range | None = None) -> list[Range]:
        """Take a range out, and with it those around it that one request of up to `most_bytes` bytes can bring.

        Args:
            most_bytes: of the request, unless one range alone has more.
            first: a range that waits; None: the one that waits for longest.

        Returns:
            The ranges by offset; none where nothing waits.
        """
        first = first if first is not None else self.first()
        if first is None:
            return []
        line = self._by_file[first.file]
        low = bisect.bisect_left(line, first[1:])
        high = low + 1
        start, stop = first.offset, first.offset + first.length
        while high < len(line) and line[high][0] <= stop + GAP_BYTES and sum(line[high]) - start <= most_bytes:
            stop = max(stop, sum(line[high]))
            high += 1
        while low and sum(line[low - 1]) >= start - GAP_BYTES and stop - line[low - 1][0] <= most_bytes:
            start = line[low - 1][0]
            low -= 1
        taken = [Range(first.file, *pair) for pair in line[low:high]]
        del line[low:high]
        for wanted in taken:
            del self._order[wanted]
        return taken
