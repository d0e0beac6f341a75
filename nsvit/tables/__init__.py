"""Tables, from records and sidecars only: long csv, markdown to read, LaTeX to print. No torch.

Every table is a function to a data frame and a function from that frame to a `Sheet`; `write`
puts both into files. Fractions become per cent here and nowhere else.
"""

from nsvit.tables.claims import claims_sheet
from nsvit.tables.influence import influence_sheet, read_influence, table_influence
from nsvit.tables.main import table1, table1_sheet
from nsvit.tables.nullity import nullity_sheet, table_nullity
from nsvit.tables.paired import paired_sheet, table_paired
from nsvit.tables.runs import runs_sheet, table_runs
from nsvit.tables.sheet import Cell, Part, Sheet, csv_text, markdown, tex, write
from nsvit.tables.verbs import (
    write_claims,
    write_influence,
    write_nullity,
    write_paired,
    write_runs,
    write_table1,
)

__all__ = [
    "Cell",
    "Part",
    "Sheet",
    "claims_sheet",
    "csv_text",
    "influence_sheet",
    "markdown",
    "nullity_sheet",
    "paired_sheet",
    "read_influence",
    "runs_sheet",
    "table1",
    "table1_sheet",
    "table_influence",
    "table_nullity",
    "table_paired",
    "table_runs",
    "tex",
    "write",
    "write_claims",
    "write_influence",
    "write_nullity",
    "write_paired",
    "write_runs",
    "write_table1",
]
