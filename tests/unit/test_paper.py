"""The paper's numbers: the loader, and the averages the paper prints."""

from pathlib import Path

import pytest

from nsvit import config, paper
from nsvit.errors import NsvitError


@pytest.mark.parametrize(
    ("model", "method", "printed"),
    [
        ("ViT-S", "none", 26.54),
        ("ViT-S", "NS", 34.45),
        ("ViT-B", "none", 34.01),
        ("ViT-B", "NS", 39.39),
        ("ViT-B", "DAT", 43.41),
        ("ViT-B", "DAT+NS", 43.616),
    ],
)
def test_recomputed_average_is_the_printed_one(model: str, method: str, printed: float) -> None:
    numbers = paper.row(model, method)
    average = paper.recomputed_average(numbers, paper.COLUMNS)
    # The paper rounds 34.0145 down; the row DAT+NS it truncates (printed 43.61).
    assert average == pytest.approx(printed, abs=0.0055)
    expected = 43.61 if method == "DAT+NS" else printed
    assert paper.average(model, method, paper.COLUMNS) == expected


def test_average_over_fewer_columns_is_recomputed() -> None:
    assert paper.average("ViT-S", "none", ["clean", "c_mce"]) == pytest.approx(
        (74.19 + 100 - 71.13) / 2
    )


def test_average_is_absent_where_a_column_is() -> None:
    assert paper.average("ViT-S", "Random eps=0.03", ["clean", "fgsm"]) is None
    assert paper.average("ViT-S", "NS", ["clean", None]) is None
    assert paper.average("ViT-S", "NS", []) is None


def test_random_row_comes_from_table_3() -> None:
    numbers = paper.row("ViT-S", "Random eps=0.03")
    assert numbers["fgsm"] == 23.18
    assert "clean" not in numbers


@pytest.mark.parametrize(
    ("method", "fgsm", "absent"),
    [
        ("Madry", 39.37, "cw"),
        ("TRADES", 38.85, "cw"),
        ("NS eps=0.01", 26.04, "cw"),
        ("NS eps=0.1", 25.38, "cw"),
        ("Random eps=0.01", 21.54, "clean"),
        ("Random eps=0.1", 23.93, "clean"),
        ("NS fixed iterations (no early stop)", 28.84, "patchfool"),
    ],
)
def test_rows_of_the_other_tables_are_found(method: str, fgsm: float, absent: str) -> None:
    numbers = paper.row("ViT-S", method)
    assert numbers["fgsm"] == fgsm
    assert absent not in numbers and "average" not in numbers


def test_rows_that_stand_in_several_tables_agree() -> None:
    same = {"NS eps=0.03": "NS", "NS eps=0.03 early-stop": "NS"}
    compared = 0
    for name in ("table2", "table3_epsilon", "table4_rebuttal"):
        for row in paper.table(name).to_dict("records"):
            method = str(row["method"])
            known = paper.row(str(row["model"]), same.get(method, method))
            for column in paper.COLUMNS:
                if row[column] == row[column]:
                    assert known[column] == row[column], (name, method, column)
                    compared += method in same
    assert compared == 2 * 9


def test_an_average_over_nine_columns_is_not_one_over_eleven() -> None:
    assert paper.average("ResNet18", "none", paper.COLUMNS) is None
    nine = [column for column in paper.COLUMNS if column not in ("patchfool", "cw")]
    assert paper.average("ResNet18", "none", nine) == pytest.approx(26.09, abs=0.0055)


def test_every_row_that_the_shipped_configs_name_is_there() -> None:
    root = Path(__file__).parents[2]
    for name in ("config", "smoke"):
        exp = config.load(root / f"config/{name}.yaml")
        for arm in exp.arms.values():
            if arm.paper is not None:
                assert paper.row("ViT-S", arm.paper), arm.paper


def test_unknown_rows_are_empty() -> None:
    assert paper.row("ViT-B", "Random eps=0.03") == {}
    assert paper.row(None, None) == {}


def test_tables_are_copies() -> None:
    frame = paper.table("table1")
    frame.loc[0, "clean"] = 0.0
    assert paper.row("ViT-S", "none")["clean"] == 74.19


def test_unknown_table_is_named() -> None:
    with pytest.raises(NsvitError, match="table9"):
        paper.table("table9")


def test_every_file_opens() -> None:
    for name in paper.FILES:
        assert len(paper.table(name)) > 3
