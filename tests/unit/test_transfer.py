"""The embedded counterpart of DAmageNet: inside the radius, in its layout, the same every time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from nsvit import artifacts, cli, config, models, runtime, specs, transfer
from nsvit.data.layouts import open_set, write_index
from nsvit.data.loading import load_pixels, to_float
from nsvit.data.menagerie import render_set, write_classes
from nsvit.data.menagerie.classes import SUBJECTS
from nsvit.errors import NsvitError

COUNT = 60  # more than one batch
SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16], "stem_width": 8}


def save_cnn(folder: Path, classes: int = 10) -> str:
    """A small CNN with random weights, as a `local-dir:` name."""
    with runtime.seeded("cnn"):
        model = models.build("resnet18", {**SMALL, "num_classes": classes}, [0.5] * 3, [0.5] * 3)
    models.save_local_dir(model.eval(), folder)
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """A folder with val, its sidecar and a CNN; tests write beside them."""
    root = tmp_path_factory.mktemp("transfer")
    render = specs.RenderSpec(kind="val", seed=3, size=32, count=COUNT, path="val")
    render_set(render, root / "val")
    write_classes(root / "classes.txt")
    save_cnn(root / "cnn")
    artifacts.write_json(root / "val.json", {"kind": "rendered"})
    return root


def transfer_spec(root: Path, path: str, **changes) -> specs.TransferSpec:
    how = {"cnn": f"local-dir:{root / 'cnn'}", "radius": "8/255", "steps": 3, **changes}
    return specs.TransferSpec(
        count=COUNT, path=path, list=f"{path}/list.txt", val_path="val", transfer=how
    )


def made(root: Path, path: str, **changes) -> Path:
    transfer.render_to(transfer_spec(root, path, **changes), root, root / f"{path}.json")
    return root / path


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {p.name: np.array(Image.open(p)).astype(int) for p in sorted(folder.rglob("*.png"))}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def opened(root: Path, path: str):
    own = config.SetConfig(path=path, layout="list", list=f"{path}/list.txt")
    scan = specs.ScanSpec(name=path, root=str(root), classes=str(root / "classes.txt"), set=own)
    write_index(scan, root / f"{path}.parquet")
    return open_set(root / f"{path}.parquet")


@pytest.mark.parametrize("radius", [0, 1, 8])
def test_pictures_on_disk_are_inside_the_radius_of_val(drawn, radius):
    clean = pixels(drawn / "val")
    attacked = pixels(made(drawn, f"within{radius}", radius=f"{radius}/255"))
    assert attacked.keys() == clean.keys() and len(clean) == COUNT
    largest = [np.abs(attacked[name] - clean[name]).max() for name in clean]
    assert largest == [radius] * COUNT


def test_the_list_says_the_class_that_val_has(drawn):
    folder = made(drawn, "labels")
    lines = (folder / "list.txt").read_text().splitlines()
    order = [subject.wnid for subject in SUBJECTS]
    expected = [f"{p.name} {order.index(p.parent.name)}" for p in (drawn / "val").rglob("*.png")]
    assert lines == sorted(expected)
    found = opened(drawn, "labels")
    assert len(found) == COUNT and np.bincount(found.labels).tolist() == [6] * 10


def test_the_attacked_model_loses_and_its_accuracy_is_recorded(drawn):
    made(drawn, "loses", radius="16/255")
    found = opened(drawn, "loses")
    model = models.load_model(f"local-dir:{drawn / 'cnn'}").eval()
    attacked, labels = to_float(load_pixels(found)), torch.tensor(found.labels)
    plain = pixels(drawn / "val")
    clean = torch.from_numpy(np.stack([plain[name] for name in found.frame["path"]]))
    with torch.inference_mode():
        after, before = model(attacked), model(clean.permute(0, 3, 1, 2).float() / 255)
    loss = [cross_entropy(logits, labels, reduction="none") for logits in (after, before)]
    assert float((loss[0] > loss[1]).float().mean()) > 0.9
    sidecar = artifacts.read_json(drawn / "loses.json")
    right = [float((x.argmax(1) == labels).float().mean()) for x in (after, before)]
    assert sidecar["metrics"] == {
        "files": COUNT,
        "accuracy_before": pytest.approx(right[1]),
        "accuracy_after": pytest.approx(right[0]),
    }
    assert {Path(name).name for name in sidecar["inputs"]} == {"config.json", "model.safetensors"}
    assert sidecar["kind"] == "rendered" and sidecar["spec"]["transfer"]["radius"] == "16/255"


def test_again_gives_the_same_bytes_also_from_the_command_line(drawn):
    first = digests(made(drawn, "again"))
    assert digests(made(drawn, "again")) == first
    own = transfer_spec(drawn, "again").model_dump_json()
    arguments = ["render-transfer", "--spec", own, "--root", drawn, "--val", drawn / "val.json"]
    code = cli.main([str(a) for a in [*arguments, "--out", drawn / "cli.json", "--threads", 1]])
    assert code == 0 and digests(drawn / "again") == first
    assert str(drawn / "val.json") in artifacts.read_json(drawn / "cli.json")["inputs"]


def test_an_interrupted_call_leaves_the_old_folder(drawn, monkeypatch):
    before = digests(made(drawn, "stopped"))
    calls = []

    def stop(image, path):
        calls.append(path)
        if len(calls) == COUNT - 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("nsvit.transfer.save", stop)
    with pytest.raises(KeyboardInterrupt):
        made(drawn, "stopped", radius="4/255")
    assert digests(drawn / "stopped") == before
    assert not list(drawn.glob(".stopped*"))


def test_what_cannot_be_made_is_refused_by_name(drawn, tmp_path):
    few = transfer_spec(drawn, "few").model_copy(update={"count": COUNT + 1})
    with pytest.raises(NsvitError, match=rf"set damagenet needs the first {COUNT + 1} of val"):
        transfer.render_to(few, drawn, tmp_path / "x.json")
    with pytest.raises(NsvitError, match=r"transfer\.cnn: .*7 classes, the embedded benchmark 10"):
        made(drawn, "other", cnn=save_cnn(tmp_path / "seven", classes=7))
    with pytest.raises(NsvitError, match="nowhere"):
        made(drawn, "lost", cnn=f"local-dir:{tmp_path / 'nowhere'}")
    (drawn / "real").mkdir()
    (drawn / "real/ILSVRC2012_val_00000001.png").write_bytes(b"precious")
    with pytest.raises(NsvitError, match="real.*not drawn by nsvit"):
        made(drawn, "real")
    assert (drawn / "real/ILSVRC2012_val_00000001.png").read_bytes() == b"precious"
    assert not (tmp_path / "x.json").exists()
