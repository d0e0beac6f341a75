"""What `nsvit check-data` says of weights: those that a job would miss, before any compute."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nsvit import cli, config
from nsvit.data import advice
from nsvit.data.weights import check_weights

ROOT = Path(__file__).parents[2]
DEIT = "deit_tiny_patch16_224.fb_in1k"
DAT = "data/weights/vit_base_patch16_224-dat.pth.tar"
SMALL = ("vit_s", "vit_s_wrong_norm")


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """An empty Hugging Face cache, and a working folder with nothing in it."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


def paper(**changes: object) -> config.Experiment:
    raw = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
    raw["models"]["vit_b_dat"].update(changes)
    return config.validate(raw)


def found(exp: config.Experiment) -> dict[tuple[str, ...], tuple[str, str]]:
    return {one.slugs: (one.problem, one.note) for one in check_weights(exp)}


def put(cache: Path, name: str, file: str) -> None:
    """A file in the cache as the hub's own client lays it down."""
    folder = cache / f"models--timm--{name}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "snapshots/abc" / file).write_bytes(b"weights")


def test_every_model_and_source_of_the_paper_is_looked_for(cache):
    told = found(paper())
    assert set(told) == {SMALL, ("vit_b", "vit_b_wrong_norm"), ("vit_b_dat",), ("deit_tiny",)}
    problems = {slugs: problem for slugs, (problem, _) in told.items() if problem}
    assert set(problems) == {("vit_b_dat",)}
    assert problems["vit_b_dat",].startswith(f"{DAT}: no such file")
    assert str(Path.cwd()) in problems["vit_b_dat",]
    assert "create_model('deit_tiny_patch16_224.fb_in1k'" in told["deit_tiny",][1]


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_what_is_in_the_cache_or_on_disk_is_good(file, cache):
    put(cache, DEIT, file)
    Path(DAT).parent.mkdir(parents=True)
    Path(DAT).write_bytes(b"")
    assert "an empty one" in found(paper())["vit_b_dat",][0]
    Path(DAT).write_bytes(b"weights")
    told = found(paper())
    assert told["deit_tiny",] == told["vit_b_dat",] == ("", "")
    assert told[SMALL][1]


def test_without_a_network_what_is_not_in_the_cache_is_missing(cache, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    put(cache, DEIT, "model.safetensors")
    problems = {slugs for slugs, (problem, _) in found(paper()).items() if problem}
    assert problems == {SMALL, ("vit_b", "vit_b_wrong_norm"), ("vit_b_dat",)}


@pytest.mark.parametrize(
    ("changes", "problem", "note"),
    [
        ({"checkpoint": None, "pretrained": False}, None, None),
        ({"checkpoint": None}, "", "timm finds its weights"),
        ({"checkpoint": None, "timm": "hf-hub:own/vit"}, "", "not in the Hugging Face cache"),
        ({"checkpoint": None, "timm": "local-dir:own"}, "own/config.json: no such file", ""),
    ],
)
def test_other_names(changes, problem, note, cache):
    told = found(paper(**changes)).get(("vit_b_dat",))
    if problem is None:
        assert told is None
    else:
        assert told is not None and told[0].startswith(problem) and told[1].startswith(note)
        assert bool(told[0]) == bool(problem) and bool(told[1]) == bool(note)


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_local_folder_says_what_it_lacks(pretrained, cache):
    own = {"timm": "local-dir:mine", "checkpoint": None, "pretrained": pretrained}
    assert "mine/config.json: no such file" in found(paper(**own))["vit_b_dat",][0]
    Path("mine").mkdir()
    Path("mine/config.json").write_text("{}")
    assert "has timm's config.json and model.safetensors" in found(paper(**own))["vit_b_dat",][0]
    Path("mine/pytorch_model.bin").write_bytes(b"x")
    assert "safe_serialization=True" in found(paper(**own))["vit_b_dat",][0]
    Path("mine/model.safetensors").write_bytes(b"x")
    assert found(paper(**own))["vit_b_dat",] == ("", "")


def test_a_file_that_is_missing_ends_the_verb_with_an_error(cache, capsys):
    """With sets that are drawn, so that nothing but the weights is wrong."""
    raw = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    own = next(iter(raw["models"]))
    raw["models"] = {own: {**raw["models"][own], "timm": "vit_tiny_patch16_224"}}
    raw["models"][own] |= {"checkpoint": "w.pth", "model_args": {}}
    raw = {key: raw[key] for key in ("experiment", "data", "models", "evaluate")}
    raw["arms"] = {"none": {"label": "none", "kind": "none"}}
    raw["evaluate"] = {"conditions": {"clean": {"label": "Clean", "set": "val"}}}
    Path("own.yaml").write_text(yaml.safe_dump(raw))
    assert cli.main(["check-data", "--config", "own.yaml"]) == 1
    out, err = capsys.readouterr()
    assert f"whose weights are missing: {own}" in err and "w.pth: no such file" in out
    assert f"Weights of {own} are missing." in out
    assert cli.main(["check-data", "--config", "own.yaml", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["good"] and told["weights"][0]["slugs"] == [own]
    Path("w.pth").write_bytes(b"weights")
    assert cli.main(["check-data", "--config", "own.yaml"]) == 0


def test_room_for_the_results_is_told(cache, capsys, monkeypatch):
    monkeypatch.setattr(advice, "free_bytes", lambda _: 10**11)
    assert cli.main(["check-data", "--config", str(ROOT / "config/paper.yaml")]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "Results will take about 401" in told and "100.0 GB are free. THAT MAY BE TOO" in told


def test_torch_stays_out(cache):
    code = (
        f"import sys; from nsvit import config; from nsvit.data.weights import check_weights\n"
        f"check_weights(config.load({str(ROOT / 'config/paper.yaml')!r}))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
