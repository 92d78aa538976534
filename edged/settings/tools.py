"""The section about tools that run on the node. As in `tree`, a field's docstring is its description."""

from typing import Annotated

from pydantic import Field, StringConstraints

from .leaves import Accepts
from .scalars import Section

ToolName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$"), Accepts("1 to 64 of A-Z a-z 0-9 _ -")
]


class Tools(Section):
    """Functions of the node that a model may call, where a question names them."""

    enabled: Annotated[tuple[ToolName, ...], Field(max_length=16)] = ()
    """Tools that questions may name: `calculate`, `clock`, `vitals`, and those that installed packages bring."""
    limit_s: Annotated[float, Field(strict=True, ge=0.1, le=600)] = 5.0
    """Longest time of one call; then its process is ended, and the model is told so."""
    rounds: Annotated[int, Field(strict=True, ge=1, le=32)] = 4
    """Rounds of calls in one question; after them the model has to answer."""
