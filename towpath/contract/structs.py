"""Avro's two forms of floating-point numbers."""

from struct import Struct
from typing import Final

SINGLE: Final = Struct("<f")
DOUBLE: Final = Struct("<d")
