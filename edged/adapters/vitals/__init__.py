"""The board as Linux shows it: `VitalsReader` reads, `Caps` writes too, `files` knows how such files can break."""

from .caps import Caps
from .reader import VitalsReader

__all__ = ["Caps", "VitalsReader"]
