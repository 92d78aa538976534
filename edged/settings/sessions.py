"""The section about conversations that the node keeps. As in `tree`, a field's docstring is its description."""

from typing import Annotated

from pydantic import Field

from .scalars import KIB, MIB, Section, at_least


class Sessions(Section):
    """Conversations that go on: questions with a `session`."""

    keep_s: Annotated[int, Field(strict=True, ge=60, le=31_536_000)] = 86_400
    """How long a session is kept after its last question."""
    max_bytes: Annotated[int, Field(strict=True, ge=KIB, le=MIB)] = 64 * KIB
    """Size of one session; a question that finds it full follows its `overflow`."""
    per_client: Annotated[int, Field(strict=True, ge=1, le=1000)] = 16
    """Sessions of one client; beyond them the one that was not used for longest is forgotten."""
    total: Annotated[int, Field(strict=True, ge=1, le=10_000), at_least("sessions.per_client")] = 256
    """Sessions of all clients together; at least `per_client`."""
