"""Pictures that the scan left out are counted in the records and under the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsvit import artifacts, config, matrix, specs
from nsvit.config import ConditionConfig
from nsvit.data.layouts import open_set, write_index
from nsvit.models import save_model
from nsvit.records import read_doubts
from nsvit.statistics.checks import Doubt
from nsvit.tables.accuracy_notes import doubt_notes
from tests import miniature
from tests.small import image_tree, small_vit


@pytest.fixture
def data(tmp_path: Path) -> Path:
    image_tree(tmp_path / "data/val", per_class=3)
    (tmp_path / "classes.txt").write_text("".join(f"n{k:08d}\n" for k in range(4)))
    miniature.cut(tmp_path / "data/val/n00000001/002.png")
    return tmp_path


def test_skipped_pictures_are_told_in_records_and_tables(data):
    own = config.SetConfig(path="val", damaged="skip")
    scan = specs.ScanSpec(
        name="val", root=str(data / "data"), classes=str(data / "classes.txt"), set=own
    )
    write_index(scan, data / "val.parquet", threads=2)
    _, sidecar = artifacts.read_parquet(data / "val.parquet", "index")
    assert sidecar["metrics"] == {"pictures": 11, "skipped": 1}
    found = open_set(data / "val.parquet")
    model = data / "model/model.safetensors"
    save_model(small_vit(), model, artifacts.provenance("model", {}))
    conditions = {
        "clean": ConditionConfig(label="Clean", set="val"),
        "fgsm": ConditionConfig(
            label="FGSM", set="val", attack={"name": "fgsm", "radius": "1/255"}
        ),
    }
    spec = specs.EvaluateSpec(
        model="small", arm="none", seeds=(0,), batch_size=4, conditions=conditions
    )
    matrix.run(spec, [model], {"val": found}, data / "out/main.all.json")
    doubts = read_doubts([data / "out/main.all.json"])
    told = [one for one in doubts if "n00000001/002.png" in one]
    assert told == [
        "set 'val': 1 picture is damaged and left out (data.sets.val.damaged is 'skip'), such as "
        "n00000001/002.png [damaged]"
    ]
    statistics = config.StatisticsConfig()
    none = {"none": config.ArmConfig(label="none", kind="none")}
    model_config = config.ModelConfig(
        label="S", timm="vit_tiny_patch16_224", pretrained=False, mean=[0.5] * 3, std=[0.5] * 3
    )
    table = specs.AccuracySpec.model_validate(
        {
            "title": "t", "columns": ["clean"], "robust": {},
            "models": {"small": model_config}, "arms": none, "conditions": conditions,
            "statistics": statistics,
        }
    )  # fmt: skip
    notes = doubt_notes([Doubt.parse(text) for text in told], table)
    assert notes[1].startswith(
        "‡ set 'val' (no cell is marked for it): 1 picture is damaged and left"
    )
