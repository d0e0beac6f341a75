"""Corrupted sets made from clean ones, and config/imagenette.yaml on a small tree of its layout."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from nsvit import artifacts, cli, config, models, specs
from nsvit.data import checks
from nsvit.data.corrupted import corrupt_set
from nsvit.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from nsvit.data.layouts import open_set, read_classes
from nsvit.data.menagerie.render import picture
from nsvit.data.pictures import evaluation_picture
from nsvit.errors import NsvitError
from nsvit.runtime import seed_for

ROOT = Path(__file__).parents[2]
WNIDS = (
    *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
    *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
)
SIDE = 32


def tree(root: Path) -> None:
    """Drawn pictures in the layout of imagenette2-320: rectangular JPEG files, few per class."""
    for part, each in (("train", 2), ("val", 1)):
        for number, wnid in enumerate(WNIDS):
            folder = root / "imagenette2-320" / part / wnid
            folder.mkdir(parents=True)
            for index in range(each):
                pixels = picture(3, "val", number + 10 * index, 56)[:48]
                Image.fromarray(pixels).save(folder / f"{wnid}_{index}.JPEG", quality=90)


@pytest.fixture
def exp(tmp_path, monkeypatch) -> config.Experiment:
    """config/imagenette.yaml with a tiny model of 1000 classes, on the small tree."""
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "pictures")
    raw = yaml.safe_load((ROOT / "config/imagenette.yaml").read_text())
    raw["data"].update(root="pictures", dev_images=5)
    for name in ("train", "val"):
        raw["data"]["sets"][name].update(resize=40, crop=SIDE, published=None)
    raw["data"]["sets"]["c"]["corrupt"]["images"] = 1
    args = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    net = models.build("vit_tiny_patch16_224", {**args, "num_classes": 1000}, [0.5] * 3, [0.5] * 3)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    models.save_local_dir(net, tmp_path / "tiny")
    raw["models"] = {"vit_s": {**raw["models"]["vit_s"], "timm": "local-dir:tiny"}}
    wanted = ("clean", "clean_1000", "fgsm_1", "c")
    conditions = raw["evaluate"]["conditions"]
    raw["evaluate"].update(conditions={k: conditions[k] for k in wanted}, robust={})
    raw["tables"] = {"table1": {"title": "Table 1", "arms": ["none"]}}
    return config.validate(raw)


def run(verb: str, spec: config.Section, *arguments: object, out: str) -> None:
    command = [verb, "--spec", spec.model_dump_json(), *map(str, arguments), "--out", out]
    assert cli.main(command) == 0


def scan(exp: config.Experiment, name: str) -> str:
    run("scan", specs.scan(exp, name), out=f"{name}.parquet")
    return f"{name}.parquet"


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.JPEG")
    }


def test_imagenette_runs_from_pictures_to_a_table(exp, tmp_path):
    before = digests(tmp_path / "pictures")
    assert not any(one.problems for one in checks.check(exp.data))  # set c is not asked for
    indices = [scan(exp, name) for name in ("train", "val")]
    root = specs.made_root(exp)
    run(
        *("corrupt", specs.corrupt(exp, "c"), "--index", "val.parquet", "--root", root),
        out="corrupted.json",
    )
    indices.append(scan(exp, "c"))
    assert digests(tmp_path / "pictures") == before  # nothing is made among a user's pictures
    c = open_set("c.parquet")
    assert len(c) == len(CORRUPTIONS) * len(SEVERITIES)
    ten = sorted(read_classes("imagenet-1k")[0].index(wnid) for wnid in WNIDS)
    assert list(open_set("val.parquet").allowed or ()) == ten
    start, manifest = "model/model.safetensors", "records/vit_s/none/main.all.json"
    run("prepare-model", specs.prepare_model(exp, "vit_s"), "--index", indices[0], out=start)
    files = "--model", start, "--index", indices[0]
    run("finetune", specs.finetune(exp, "vit_s", "none", 0), *files, out="run/history.json")
    (part,) = specs.parts(exp, "vit_s", "none")
    spec = specs.evaluate(exp, "vit_s", "none", "main", part)
    files = "--models", "run/model.safetensors", "--indices", *indices[1:]
    run("evaluate", spec, *files, out=manifest)
    among = {
        slug: set(
            artifacts.read_parquet(f"records/vit_s/none/seed0/{slug}.parquet", "records")[0][
                "prediction"
            ]
        )
        for slug in spec.conditions
    }
    assert all(among[slug] <= set(ten) for slug in ("clean", "fgsm_1", "c"))
    assert not among["clean_1000"] <= set(ten)
    run("scores", specs.table(exp), "--records", manifest, out="scores.parquet")
    given = "--scores", "scores.parquet"
    run("table", specs.accuracy(exp, "table1"), *given, out="tables/table1.csv")
    table = pd.read_csv("tables/table1.csv").set_index("column")
    assert {"clean", "clean_1000", "fgsm_1", "c", "average"} <= set(table.index)
    assert table.loc["clean", "n"] == 10
    assert ((table["value"] >= 0) & (table["value"] <= 100)).all()


def test_a_picture_is_what_the_library_makes_of_it_at_quality_85(exp, tmp_path):
    scan(exp, "val")
    val = open_set("val.parquet")
    assert corrupt_set(val, tmp_path / "one", 1, seed=4) == 75
    name = val.take(1).frame["path"][0]
    clean = evaluation_picture(val.root / name, 40, SIDE)
    for corruption, severity in (("shot_noise", 3), ("fog", 1), ("impulse_noise", 5)):
        seed = seed_for(4, "corrupt", name, corruption, severity)
        expected = io.BytesIO()
        changed = Image.fromarray(corrupt(clean, corruption, severity, seed))
        changed.save(expected, format="JPEG", quality=85)
        found = tmp_path / "one" / corruption / str(severity) / name
        assert found.read_bytes() == expected.getvalue()
        assert np.asarray(Image.open(found)).shape == (SIDE, SIDE, 3)


def test_processes_and_other_pictures_change_nothing(exp, tmp_path):
    scan(exp, "val")
    val = open_set("val.parquet")
    corrupt_set(val, tmp_path / "one", 1, seed=0)
    corrupt_set(val, tmp_path / "two", 2, seed=0)
    few, many = digests(tmp_path / "one"), digests(tmp_path / "two")
    assert len(many) == 2 * len(few)
    assert few.items() <= many.items()
    corrupt_set(val, tmp_path / "spread", 1, seed=0, processes=2)
    assert digests(tmp_path / "spread") == few


def test_what_is_there_and_was_not_made_here_is_kept(exp, tmp_path):
    scan(exp, "val")
    (tmp_path / "mine").mkdir()
    with pytest.raises(NsvitError, match="was not drawn by nsvit"):
        corrupt_set(open_set("val.parquet"), tmp_path / "mine", 1, seed=0)


def refused(change: dict, menagerie: dict | None = None) -> str:
    sets = {
        "train": {"path": "train"},
        "val": {"path": "val"},
        "c": {"path": "c", "layout": "corruption", "corrupt": {"source": "val"}, **change},
    }
    with pytest.raises(ValueError) as error:
        config.DataConfig(root=".", classes="imagenet-1k", sets=sets, menagerie=menagerie)
    return str(error.value)


def test_a_set_that_cannot_be_made_is_refused():
    assert "needs layout 'corruption'" in refused({"layout": "wnid"})
    assert "a set of clean pictures" in refused({"corrupt": {"source": "nowhere"}})
    assert "a set of clean pictures" in refused({"corrupt": {"source": "c"}})
    assert "leave resize and crop out" in refused({"crop": 224})
    assert "draws its own set c" in refused({}, menagerie={})
