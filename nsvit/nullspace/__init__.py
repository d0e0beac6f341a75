"""The exact nullspace of the patch embedding: mathematics, demonstration, table."""

from nsvit.nullspace.basis import NullspaceBasis, nullspace_basis
from nsvit.nullspace.demonstration import Demonstration, demonstrate, save_nullspace
from nsvit.nullspace.table import nullity_row, nullity_table
from nsvit.nullspace.verbs import run, write_nullity

__all__ = [
    "Demonstration",
    "NullspaceBasis",
    "demonstrate",
    "nullity_row",
    "nullity_table",
    "nullspace_basis",
    "run",
    "save_nullspace",
    "write_nullity",
]
