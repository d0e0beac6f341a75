"""Tables, from records and sidecars only: long csv, markdown to read, LaTeX to print. No torch.

Every table is a function to a data frame and a function from that frame to a `Sheet`; `write`
puts both into files. Fractions become per cent here and nowhere else.
"""

from nsvit.tables.accuracy import accuracy_table
from nsvit.tables.accuracy_sheet import accuracy_sheet
from nsvit.tables.attacks import attacks_sheet, table_attacks
from nsvit.tables.claims import claims_sheet, with_doubts
from nsvit.tables.cost import cost_sheet, table_cost
from nsvit.tables.influence import influence_sheet, read_influence, table_influence
from nsvit.tables.nullity import nullity_sheet, table_nullity
from nsvit.tables.paired import paired_sheet, table_paired
from nsvit.tables.sheet import Cell, Part, Sheet, csv_text, markdown, tex, write
from nsvit.tables.studies import read_closure, read_lambda, table_closure, table_lambda
from nsvit.tables.studies_sheet import closure_sheet, lambda_sheet
from nsvit.tables.verbs import (
    write_accuracy,
    write_attacks,
    write_claims,
    write_closure,
    write_cost,
    write_influence,
    write_lambda,
    write_nullity,
    write_paired,
)

__all__ = [
    "Cell",
    "Part",
    "Sheet",
    "accuracy_sheet",
    "accuracy_table",
    "attacks_sheet",
    "claims_sheet",
    "closure_sheet",
    "cost_sheet",
    "csv_text",
    "influence_sheet",
    "lambda_sheet",
    "markdown",
    "nullity_sheet",
    "paired_sheet",
    "read_closure",
    "read_influence",
    "read_lambda",
    "table_attacks",
    "table_closure",
    "table_cost",
    "table_influence",
    "table_lambda",
    "table_nullity",
    "table_paired",
    "tex",
    "with_doubts",
    "write",
    "write_accuracy",
    "write_attacks",
    "write_claims",
    "write_closure",
    "write_cost",
    "write_influence",
    "write_lambda",
    "write_nullity",
    "write_paired",
]
