"""At which message a broker cuts the connection, by those that ended soon, before it was acknowledged. Pure.

A question that is longer than the broker takes, or goes where nobody may write, would end each connection, with all
other questions on it.
"""

from __future__ import annotations

WARY_CUTS, GIVE_UP_CUTS = 3, 10
"""After so many in a row that have the same message in common, messages go one by one, so that it shows at which
the broker cuts; after so many that one is given up."""
CUTS_OFF = "it ends the connection each time that this is sent, and may have a limit that it does not name"


class Cuts:
    """Connections in a row that ended so."""

    def __init__(self) -> None:
        self._count = 0
        self._suspect: int | None = None

    @property
    def wary(self) -> bool:
        """Whether messages are to go one by one."""
        return self._count >= WARY_CUTS

    def begin(self) -> None:
        """Whatever was before counts no longer."""
        self._count = 0

    def ended(self, oldest: int | None, *, soon: bool) -> bool:
        """A connection is gone; True where this message is to be given up.

        Args:
            oldest: of the messages that were sent and not acknowledged, by its identifier.
            soon: it did not last.
        """
        before, self._suspect = self._suspect, oldest
        if oldest is None or not soon:
            self._count = 0
            return False
        self._count = self._count + 1 if oldest == before else 1
        if self._count < GIVE_UP_CUTS:
            return False
        self._count = 0
        return True
