"""What a configuration may say of raw pixels."""

from typing import Literal

#: Pixels of a special value: as the format means them, bad, or data like any other.
Meaning = Literal["auto", "bad", "data"]
