"""Tables, from records and sidecars only: long csv, markdown to read, LaTeX to print. No torch.

Every table is a function to a data frame and a function from that frame to a `Sheet`; `write`
puts both into files. Fractions become per cent here and nowhere else.
"""

from nsvit.tables.influence import influence_sheet, read_influence, table_influence
from nsvit.tables.main import table1, table1_sheet
from nsvit.tables.nullity import nullity_sheet, table_nullity
from nsvit.tables.runs import runs_sheet, table_runs
from nsvit.tables.sheet import Cell, Part, Sheet, csv_text, markdown, tex, write
from nsvit.tables.studies import read_closure, read_lambda, table_closure, table_lambda
from nsvit.tables.studies_sheet import closure_sheet, lambda_sheet
from nsvit.tables.verbs import (
    write_closure,
    write_influence,
    write_lambda,
    write_nullity,
    write_runs,
    write_table1,
)

__all__ = [
    "Cell",
    "Part",
    "Sheet",
    "closure_sheet",
    "csv_text",
    "influence_sheet",
    "lambda_sheet",
    "markdown",
    "nullity_sheet",
    "read_closure",
    "read_influence",
    "read_lambda",
    "runs_sheet",
    "table1",
    "table1_sheet",
    "table_closure",
    "table_influence",
    "table_lambda",
    "table_nullity",
    "table_runs",
    "tex",
    "write",
    "write_closure",
    "write_influence",
    "write_lambda",
    "write_nullity",
    "write_runs",
    "write_table1",
]
