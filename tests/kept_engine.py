"""A process of the engine as its keeper sees it: started, given orders and killed, and says nothing by itself."""

from __future__ import annotations

from edged.engine.messages import Configure, ModelInfo, Order, Ready

READY = Ready(
    ModelInfo("m", "a", "q", 1, 1, 1, None, reasoning=False, kv_bytes_per_token=1), (0,), 1, 1, 1.0, 1.0, 0.1
)
"""What it says once its model is loaded."""


class KeptEngine:
    """The process.

    Attributes:
        run: how often it was started.
        kills: how often it was killed.
    """

    def __init__(self) -> None:
        self.run = self.kills = 0

    def start(self, setup: Configure) -> None:
        """Start."""
        del setup
        self.run += 1

    def send(self, order: Order) -> None:
        """Obey."""

    def kill(self) -> None:
        """End."""
        self.kills += 1
