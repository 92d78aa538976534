"""A padding that has made up its mind."""

from edged.core.padding import Padding


class FixedPadding(Padding):
    """Pads each pass that can be, or none; does not learn.

    Attributes:
        padded: passes that had idle rows.
    """

    def __init__(self, *, pays: bool) -> None:
        super().__init__()
        self._pays = pays
        self.padded = 0

    def pays(self, rows: int, threads: int) -> bool:
        """What it was made with."""
        del rows, threads
        return self._pays

    def passed(self, rows: int, threads: int, *, padded: bool, seconds: float) -> None:
        """Count it."""
        del rows, threads, seconds
        self.padded += padded
