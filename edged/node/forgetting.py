"""Prompts that the engine is to forget: an order that stands until the engine has said that it is done.

Belongs to the dispatcher thread. The engine may be away, or end before it has read the order, and the daemon with
it: so what is due is noted where a new life finds it, and ordered again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edged.engine.messages import ForgetPrompts
from edged.node.sharing import Orders


@dataclass(slots=True)
class Forgetting:
    """What the engine keeps of prompts, and whether it is to go.

    Attributes:
        engine: takes orders.
        due: prompts that it keeps are to be forgotten, and it has not said that they are.
        note: has a text remembered over the end of the daemon, so that a new life knows `due`.
    """

    engine: Orders
    due: bool = False
    note: Callable[[str], None] = lambda _text: None
    _ordered: int = 0

    def forget_prompts(self) -> None:
        """Have the engine drop every prompt that no running question needs; if it is away, once it is back."""
        if not self.due:
            self.due = True
            self.note("due")
        if self.engine.ready:
            self._order()

    def prompts_forgotten(self) -> None:
        """The engine has dropped them; an order that it did not read yet may be for later ones."""
        self._ordered -= 1
        if not self._ordered:
            self.due = False
            self.note("")

    def engine_ready(self) -> None:
        """There is an engine again."""
        if self.due:
            self._order()

    def engine_gone(self) -> None:
        """What it had not said yet, it will not say any more."""
        self._ordered = 0

    def _order(self) -> None:
        self._ordered += 1
        self.engine.send(ForgetPrompts())
