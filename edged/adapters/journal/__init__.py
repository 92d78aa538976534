"""The journal on disk: what was asked, what was answered, what the broker has not yet acknowledged.

SQLite is named in this package only. `Journal` is all that others use; its thread is explained in `writer`.
"""

from .clock import read_instant
from .front import Journal
from .schema import JournalBusyError, JournalError, JournalVersionError

__all__ = ["Journal", "JournalBusyError", "JournalError", "JournalVersionError", "read_instant"]
