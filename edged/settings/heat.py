"""The section about heat. As in `tree`, a field's docstring is its description.

All margins are degrees below a zone's own trip points, which boards tell themselves. They must keep an order
that makes sense: a target that the board calls hot already would have it in and out of its pools all day.
"""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from .scalars import Section, refuse

ROOM_C = 25.0
"""Air around a board; none in a room is ever cooler than that."""

Degrees = Annotated[float, Field(strict=True, ge=0.5, le=60)]


class Heat(Section):
    """How near the board may come to its trip points."""

    interval_s: Annotated[float, Field(strict=True, ge=0.2, le=10)] = 2.0
    """Time between two readings of the board's sensors."""
    hot_c: Degrees = 1.0
    """Degrees below its first throttling trip at which a zone is hot."""
    target_c: Degrees = 2.5
    """Degrees below that trip that the controller holds; more than `hot_c`."""
    warm_c: Degrees = 15.0
    """Degrees below that trip at which a zone is warm; more than `target_c`."""
    critical_c: Degrees = 5.0
    """Degrees below a trip that switches the board off at which answers pause."""
    hysteresis_c: Annotated[float, Field(strict=True, ge=0, le=20)] = 3.0
    """How far below its beginning a level ends, at most; hot always ends above the held temperature."""
    dwell_s: Annotated[float, Field(strict=True, ge=0, le=3600)] = 30.0
    """How long the board must have been cooler before a level ends, or throttling and a low supply gone."""
    trip_c: Annotated[float, Field(strict=True, ge=40, le=120)] | None = None
    """Temperature at which the board throttles, where its kernel does not tell; known for Raspberry Pis. It leaves
    room for `warm_c` and `hysteresis_c` above 25 C."""
    clocks: Literal["auto", "off"] = "auto"
    """Whether heat lowers the clocks of the engine's cores first; `auto`: where their caps may be written."""

    @field_validator("target_c")
    @classmethod
    def _cooler_than_hot(cls, value: float, info: ValidationInfo) -> float:
        hot_c = info.data.get("hot_c")
        if hot_c is not None and value <= hot_c:
            raise refuse(
                f"more than heat.hot_c ({hot_c:g}) is accepted, or the held temperature would be hot"
            )
        return value

    @field_validator("warm_c")
    @classmethod
    def _warm_before_target(cls, value: float, info: ValidationInfo) -> float:
        target_c = info.data.get("target_c")
        if target_c is not None and value <= target_c:
            raise refuse(
                f"more than heat.target_c ({target_c:g}) is accepted, or the board would hold it unseen"
            )
        return value

    @field_validator("trip_c")
    @classmethod
    def _ever_cool(cls, value: float | None, info: ValidationInfo) -> float | None:
        warm_c, hysteresis_c = info.data.get("warm_c"), info.data.get("hysteresis_c")
        if value is not None and warm_c is not None and hysteresis_c is not None:
            least_c = ROOM_C + warm_c + hysteresis_c
            if value < least_c:
                raise refuse(
                    f"{least_c:g} or more is accepted with heat.warm_c ({warm_c:g}) and heat.hysteresis_c "
                    f"({hysteresis_c:g}), or the board would be warm for ever in a room of {ROOM_C:g} C"
                )
        return value
