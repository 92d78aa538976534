"""The board as Linux shows it: `VitalsReader` reads, `files` knows how such files can be broken."""

from .reader import VitalsReader

__all__ = ["VitalsReader"]
