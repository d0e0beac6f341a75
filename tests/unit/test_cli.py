"""The command line: errors for people, exit codes, nothing written after a refusal."""

import json
import shutil
from pathlib import Path

import pytest

from nsvit import cli, config, models, specs
from tests.small import image_tree

ROOT = Path(__file__).parents[2]


def run(capsys, *arguments: object) -> tuple[int, str]:
    code = cli.main([str(a) for a in arguments])
    return code, capsys.readouterr().err


def test_a_bad_spec_is_named(capsys, tmp_path):
    code, err = run(capsys, "scan", "--spec", '{"nam": "val"}', "--out", tmp_path / "x.parquet")
    assert code == 1
    assert "nam: no such key" in err
    assert list(tmp_path.iterdir()) == []


def test_a_bad_config_is_named(capsys, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("experiment: Bad-Name\n")
    code, err = run(capsys, "check-config", bad)
    assert code == 1
    assert "bad.yaml" in err and "lower-case" in err


def test_overlays_are_checked_on_top(capsys, tmp_path):
    bad = tmp_path / "over.yaml"
    bad.write_text("finetune: {lrr: 1}\n")
    assert run(capsys, "check-config", ROOT / "config/smoke.yaml")[0] == 0
    code, err = run(capsys, "check-config", ROOT / "config/smoke.yaml", bad)
    assert code == 1
    assert "smoke.yaml + " in err and "finetune.lrr: no such key (did you mean lr" in err


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("stats", "did you mean status?"),
        ("check_config", "did you mean check-config?"),
        ("fine-tune", "did you mean finetune?"),
        ("zzz", "no verb 'zzz'; nsvit --help"),
    ],
)
def test_a_misspelt_verb_is_answered_with_the_right_one(capsys, typed, says):
    with pytest.raises(SystemExit) as ended:
        cli.main([typed])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert says in err and "choose from" not in err


def prepare(capsys, tmp_path, **model) -> tuple[int, str]:
    index = image_tree(tmp_path / "pictures", per_class=1, classes=3)
    path = write_index(tmp_path, index)
    wanted = {"pretrained": True, "model_args": {}, "mean": [0.5] * 3, "std": [0.5] * 3, **model}
    spec = specs.PrepareSpec.model_validate({"name": "mine", **wanted})
    out = tmp_path / "out/model.safetensors"
    result = run(
        capsys, "prepare-model", "--spec", spec.model_dump_json(), "--index", path, "--out", out
    )
    assert out.exists() == (result[0] == 0)
    return result


def write_index(tmp_path, image_set) -> Path:
    from nsvit.data import layouts

    classes = tmp_path / "classes.txt"
    classes.write_text("".join(f"{c}\t{c}\n" for c in image_set.classes))
    spec = specs.ScanSpec(
        name="train",
        root=str(image_set.root.parent),
        classes=str(classes),
        set=config.SetConfig(path=image_set.root.name),
    )
    layouts.write_index(spec, tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def test_a_model_without_a_linear_patch_embedding_is_refused(capsys, tmp_path):
    code, err = prepare(
        capsys, tmp_path, timm="resnet10t", pretrained=False, model_args={"num_classes": 3}
    )
    assert code == 1
    assert "resnet10t" in err and "not a plain ViT" in err


@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "xcit_nano_12_p8_224"])
def test_a_convolution_stem_is_refused(capsys, tmp_path, name):
    code, err = prepare(
        capsys, tmp_path, timm=name, pretrained=False, model_args={"num_classes": 3}
    )
    assert code == 1
    assert name in err and "linear patch embedding" in err


def test_a_model_with_other_classes_is_refused(capsys, tmp_path):
    code, err = prepare(
        capsys, tmp_path, timm="test_vit", pretrained=False, model_args={"num_classes": 7}
    )
    assert code == 1
    assert "7 classes" in err and "3" in err


def test_weights_that_do_not_fit_are_refused(capsys, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(ROOT / "nsvit/pretrained/vit_s", folder)
    content = json.loads((folder / "config.json").read_text())
    content["model_args"]["embed_dim"] = 32
    (folder / "config.json").write_text(json.dumps(content))
    code, err = prepare(capsys, tmp_path, timm=f"local-dir:{folder}")
    assert code == 1
    assert "broken" in err and "shape" in err.lower()


def test_a_good_model_is_stored(capsys, tmp_path):
    code, _ = prepare(
        capsys, tmp_path, timm="test_vit", pretrained=False, model_args={"num_classes": 3}
    )
    assert code == 0
    model = models.load_model(tmp_path / "out/model.safetensors")
    assert model.num_classes == 3
    assert model.mean.flatten().tolist() == [0.5] * 3


def test_noise_of_another_model_is_refused(capsys, tmp_path):
    import torch

    from nsvit.errors import NsvitError

    model = models.load_model(f"local-dir:{ROOT}/nsvit/pretrained/vit_s")
    with (
        pytest.raises(NsvitError, match=r"\(1, 36, 96\).*expected \(1, 36, 64\)"),
        models.inject(model, torch.zeros(1, 36, 96)),
    ):
        pass


def test_every_verb_has_help(capsys):
    for function in cli.RULE_VERBS:
        with pytest.raises(SystemExit) as stopped:
            cli.main([cli.verb_name(function), "--help"])
        assert stopped.value.code == 0
        assert "--out" in capsys.readouterr().out
