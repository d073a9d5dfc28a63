"""What a profile may ask of one dimension of an operand."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class Dimension(Struct, frozen=True, forbid_unknown_fields=True):
    """A dimension, as a condition wants it. All that is said must hold.

    Attributes:
        above, below: bounds, themselves left out.
        multiple_of, not_multiple_of: numbers that divide it, or do not.
    """

    above: int | None = None
    below: int | None = None
    multiple_of: Annotated[int, Meta(ge=2)] | None = None
    not_multiple_of: Annotated[int, Meta(ge=2)] | None = None

    def holds(self, size: int) -> bool:
        """Whether a dimension of this size is as wanted."""
        return (
            (self.above is None or size > self.above)
            and (self.below is None or size < self.below)
            and (self.multiple_of is None or size % self.multiple_of == 0)
            and (self.not_multiple_of is None or size % self.not_multiple_of != 0)
        )

    def words(self) -> str:
        """In a few words: "above 3, no multiple of 4"."""
        said = (
            ("above", self.above),
            ("below", self.below),
            ("a multiple of", self.multiple_of),
            ("no multiple of", self.not_multiple_of),
        )
        return ", ".join(f"{what} {number}" for what, number in said if number is not None)
