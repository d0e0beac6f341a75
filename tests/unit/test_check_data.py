"""What `nsvit check-data` finds: of every set removed or damaged in turn, exactly that."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from nsvit import cli, config
from nsvit.data import advice, checks
from nsvit.data.layouts import read_classes
from nsvit.data.published import PUBLISHED, class_subset
from tests import miniature

SETS = miniature.sections()
FOLDERS = {slug: str(own["path"]) for slug, own in SETS.items()}
EVERY, _ = read_classes("imagenet-1k")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    miniature.build(folder)
    return folder


@pytest.fixture
def root(whole, tmp_path) -> Path:
    return miniature.copy(whole, tmp_path / "root")


def section(root: Path, **changes: dict[str, object]) -> config.DataConfig:
    sets = {slug: {**own, **changes.get(slug, {})} for slug, own in SETS.items()}
    return config.DataConfig.model_validate(
        {"root": str(root), "classes": "imagenet-1k", "sets": sets}
    )


def bad(data: config.DataConfig, sample: int | None = None) -> dict[str, list[str]]:
    reports = checks.check(data, sample, threads=1)
    assert [report.slug for report in reports] == list(data.sets)
    return {report.slug: report.problems for report in reports if not report.is_good}


def test_a_whole_miniature_is_good(root):
    reports = checks.check(section(root), sample=3, threads=2)
    assert all(report.is_good for report in reports)
    found = {report.slug: (report.pictures, report.classes, report.decoded) for report in reports}
    assert found == {slug: (300 if slug == "c" else 4, 2, 3) for slug in SETS}


def pictures(root: Path, slug: str) -> list[Path]:
    kinds = (".jpeg", ".jpg", ".png")
    return sorted(p for p in (root / FOLDERS[slug]).rglob("*") if p.suffix.lower() in kinds)


def remove(root: Path, slug: str) -> str:
    (root / FOLDERS[slug]).rename(root / "moved")
    return f"{root / FOLDERS[slug]}: no such folder"


def truncate(root: Path, slug: str) -> str:
    path = miniature.cut(pictures(root, slug)[1])
    return f"{path}: not an image"


def text_for_picture(root: Path, slug: str) -> str:
    path = pictures(root, slug)[0]
    path.unlink()
    path.write_text("<html>quota exceeded</html>")
    return f"{path}: not an image (unknown format)"


def lose(root: Path, slug: str) -> str:
    """A picture that others say is there; elsewhere, one more than a folder should hold."""
    path = pictures(root, slug)[0]
    if slug in ("c", "damagenet"):
        path.unlink()
        listed = path.with_suffix(".JPEG")  # as the list of DAmageNet calls it
        return f"{path}: every" if slug == "c" else f"{listed}: no such picture"
    folder = path.parent / "more"
    folder.mkdir()
    return f"{folder}: a folder where only pictures"


def rename_class(root: Path, slug: str) -> str:
    if slug == "damagenet":
        listing = root / miniature.DAMAGENET_LIST
        text = listing.read_text().replace(" 6\n", " 1000\n", 1)
        listing.unlink()
        listing.write_text(text)
        return f"{listing}, line 1: label '1000' is no class (0 to 999)"
    folder = pictures(root, slug)[0].parent
    folder.rename(folder.with_name("1000" if slug == "v2" else "n99999999"))
    name = folder.with_name("1000" if slug == "v2" else "n99999999")
    return (
        f"{name}: not a class folder (none of the 1000 classes); remove it, or correct "
        "data.classes or the set's `layout`"
    )


def empty_class(root: Path, slug: str) -> str:
    if slug == "damagenet":
        (root / miniature.DAMAGENET_LIST).unlink()
        return f"{root / miniature.DAMAGENET_LIST}: no such list file"
    folder = pictures(root, slug)[0].parent
    for path in folder.iterdir():
        path.unlink()
    return f"{folder}: empty"


DAMAGES = (remove, truncate, text_for_picture, lose, rename_class, empty_class)


@pytest.mark.parametrize("slug", SETS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_set_is_named_and_no_other(
    damage: Callable[[Path, str], str], slug: str, root: Path
):
    message = damage(root, slug)
    # Twelve are all that the other sets have; of ImageNet-C, all only where they matter.
    found = bad(section(root), None if slug == "c" else 12)
    assert list(found) == [slug] and len(found[slug]) == 1
    assert found[slug][0].startswith(message)


def test_a_corruption_that_is_missing_is_named(root):
    (root / "imagenet-c/frost").rename(root / "moved")
    assert bad(section(root), 12) == {"c": [f"{root / 'imagenet-c/frost'}: no such folder"]}


def test_damaged_pictures_that_will_be_skipped_are_counted_only(root):
    for path in pictures(root, "val")[:2]:
        miniature.cut(path)
    data = section(root, val={"damaged": "skip"})
    (report,) = [one for one in checks.check(data, None) if one.slug == "val"]
    assert report.is_good and report.notes[1].startswith("2 of 4 pictures read are damaged")


def test_many_damaged_pictures_are_not_all_listed(root):
    for path in pictures(root, "c")[:20]:
        miniature.cut(path)
    (problems,) = bad(section(root)).values()
    assert len(problems) == 6 and problems[-1].endswith("15 more such pictures")


def test_a_sample_is_drawn_from_all_of_a_set_and_stays_the_same(root, monkeypatch):
    seen: list[Path] = []
    monkeypatch.setattr(checks, "check_image", seen.append)
    checks.check(section(root), 40, threads=1)
    first = [path for path in seen if "imagenet-c" in path.parts]
    seen.clear()
    checks.check(section(root), 40, threads=3)
    assert sorted(first) == sorted(path for path in seen if "imagenet-c" in path.parts)
    assert len(first) == 40 and len({path.parts[-4] for path in first}) > 7


# --- numbers --------------------------------------------------------------------------------


def tree(folder: Path, counts: dict[str, int], source: Path) -> None:
    """Folders with so many links to one picture."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            os.link(source, folder / name / f"{number}.jpeg")


@pytest.fixture
def complete(tmp_path) -> Path:
    """ImageNet-A and -V2 with all their pictures, which are one and the same."""
    Image.new("RGB", (8, 8)).save(tmp_path / "one.jpeg")
    of_a = {wnid: 37 + (k < 100) for k, wnid in enumerate(class_subset("imagenet-a"))}
    tree(tmp_path / miniature.A, of_a, tmp_path / "one.jpeg")
    tree(tmp_path / miniature.V2, {str(k): 10 for k in range(1000)}, tmp_path / "one.jpeg")
    return tmp_path


def two_sets(root: Path) -> config.DataConfig:
    sets = {slug: {**SETS[slug], "partial": False} for slug in ("a", "v2")}
    return config.DataConfig.model_validate(
        {"root": str(root), "classes": "imagenet-1k", "sets": sets, "train": "a", "val": "v2"}
    )


def test_counts_and_classes_are_those_that_are_documented(complete):
    data = two_sets(complete)
    assert bad(data, 2) == {}
    a, v2 = complete / miniature.A, complete / miniature.V2
    (v2 / "3/0.jpeg").rename(v2 / "4/new.jpeg")
    assert bad(data, 2) == {
        "v2": [
            f"{v2}: 2 classes have not 10 pictures each, as in ImageNet-V2, matched frequency "
            f"({EVERY[3]}: 9, {EVERY[4]}: 11)"
        ]
    }
    (v2 / "4/new.jpeg").rename(v2 / "3/0.jpeg")
    first = class_subset("imagenet-a")[0]
    (a / first / "0.jpeg").unlink()
    assert bad(data, 2) == {"a": [f"{a}: 7,499 pictures, ImageNet-A has 7,500"]}
    (a / first).rename(a / "n01440764")  # the tench, which is not in A
    assert bad(data, 2)["a"][1:] == [
        f"{a}: no pictures of class {first}, which ImageNet-A has",
        f"{a}: pictures of class n01440764, which ImageNet-A has none of",
    ]


def test_imagenette_is_counted_and_its_classes_are_torchvisions(complete, capsys):
    from torchvision.datasets import Imagenette

    wnids = class_subset("imagenette-val")
    assert set(wnids) == set(Imagenette._WNID_TO_CLASS) == set(class_subset("imagenette-train"))
    assert list(wnids) == sorted(wnids, key=EVERY.index)
    url, md5 = Imagenette._ARCHIVES["320px"]
    assert PUBLISHED["imagenette-val"].place == url and md5 in PUBLISHED["imagenette-val"].how
    each = {wnid: 392 + (k < 5) for k, wnid in enumerate(wnids)}
    tree(complete / "val", each, complete / "one.jpeg")
    own = {"path": "val", "published": "imagenette-val", "restrict": True}
    data = config.DataConfig.model_validate(
        {"root": str(complete), "classes": "imagenet-1k", "sets": {"val": own}, "train": "val"}
    )
    assert bad(data, 2) == {}
    (complete / f"val/{wnids[0]}/0.jpeg").unlink()
    assert bad(data, 2) == {
        "val": [f"{complete}/val: 3,924 pictures, Imagenette, 320 px, val has 3,925"]
    }


def test_imagenette_yaml_says_where_its_pictures_are_had(capsys, monkeypatch, tmp_path):
    path = Path(__file__).parents[2] / "config/imagenette.yaml"
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check-data", "--config", str(path)]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("download imagenette2-320.tgz") == 2 and "Not in this config" not in told


def test_counts_of_other_peoples_sets_are_not_compared(complete):
    sets = {slug: {**SETS[slug], "published": None, "partial": False} for slug in ("a", "v2")}
    data = two_sets(complete).model_copy(
        update={"sets": {k: config.SetConfig.model_validate(v) for k, v in sets.items()}}
    )
    (complete / miniature.V2 / "3/0.jpeg").unlink()
    assert bad(data, 2) == {}


def test_a_corruption_set_is_counted_in_each_cell(root, monkeypatch):
    known = PUBLISHED["imagenet-c"]
    own = type(known)(**{**vars(known), "pictures": 5, "each": None})
    monkeypatch.setitem(PUBLISHED, "imagenet-c", own)
    monkeypatch.setattr(checks, "class_subset", lambda _: tuple(miniature.shown_wnids(2)))
    monkeypatch.setattr(checks, "find_rows", lambda *a: rows)
    rows = [(f"{c}/{s}/{w}/{i}", EVERY.index(w), c, s) for c in "ab" for s in (1, 2)
            for w in miniature.shown_wnids(2) for i in range(2)]  # fmt: skip
    found = bad(section(root, c={"partial": False}), 0)["c"]
    folder = root / miniature.C
    assert found == [
        f"{folder}: 4 pictures in each corruption and severity, ImageNet-C has 5",
    ]


def test_published_sets_need_imagenets_classes(complete):
    few = complete / "few.txt"
    few.write_text("\n".join(reversed(EVERY)))
    data = two_sets(complete).model_copy(update={"classes": str(few)})
    assert all("not ImageNet's 1000 classes" in p for (p,) in bad(data, 2).values())
    assert set(bad(data, 2)) == {"a", "v2"}


# --- the verb -------------------------------------------------------------------------------

REST = {
    "experiment": "mini",
    "models": {
        "m": {
            "label": "m",
            "timm": "vit_tiny_patch16_224",
            "pretrained": False,
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
        }
    },
    "arms": {"none": {"label": "none", "kind": "none"}},
    "evaluate": {"conditions": {"clean": {"label": "Clean", "set": "val"}}},
}


@pytest.fixture
def verb(root, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """The verb, run beside a folder `root`, so that paths are short."""
    monkeypatch.chdir(root.parent)
    data = {"root": "root", "classes": "imagenet-1k", "sets": SETS}
    Path("mini.yaml").write_text(yaml.safe_dump({**REST, "data": data}))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["check-data", "--config", "mini.yaml", *arguments])
        return code, *capsys.readouterr()

    return run


def test_the_verb_says_that_all_is_good(verb):
    code, out, _ = verb()
    assert code == 0 and out.endswith("All 9 sets are good.\n")
    assert "c  ImageNet-C" in out and "300 pictures of 2 classes, 200 of them decoded" in out


def test_the_verb_takes_a_second_file_on_top(verb, root):
    root.rename(root.parent / "elsewhere")
    Path("own.yaml").write_text("data: {root: elsewhere}")
    assert verb("own.yaml")[0] == 0
    code, out, err = verb()
    assert code == 1 and "mini.yaml uses" in err
    Path("own.yaml").write_text("data: {root: nowhere}")
    code, out, err = verb("own.yaml")
    assert code == 1 and "mini.yaml + own.yaml uses" in err and "nowhere/imagenet-a" in out
    assert "nsvit fetch-data --config mini.yaml --config own.yaml a" in " ".join(out.split())


@pytest.mark.parametrize("slug", SETS)
def test_the_verb_says_what_is_missing_and_where_it_is_had(slug, verb, root):
    (root / FOLDERS[slug]).rename(root / "moved")
    code, out, err = verb()
    own = PUBLISHED[SETS[slug]["published"]]
    told = " ".join(out.split())
    assert code == 1 and err.rstrip().endswith(f"that are not good: {slug}")
    assert f"* root/{FOLDERS[slug]}: no such folder" in told and "MISSING" in out
    for text in (own.place, own.licence, f"{own.pictures:,} pictures", own.title):
        assert text in told
    if own.archives:
        assert f"nsvit fetch-data --config mini.yaml {slug}" in told
    else:
        assert own.how in told
    assert "1 of 9 sets are not good" in told
    assert max(map(len, out.splitlines())) <= advice.WIDTH


def test_the_verb_in_json(verb, root):
    miniature.cut(pictures(root, "r")[0])
    code, out, _ = verb("--json", "--full")
    told = json.loads(out)
    assert code == 1 and not told["good"] and told["free_bytes"] > 0
    assert [slug for slug, own in told["sets"].items() if not own["good"]] == ["r"]
    assert told["sets"]["c"]["decoded"] == 300
    assert told["sets"]["r"]["published"]["can_be_fetched"] is True
    assert "not an image" in told["sets"]["r"]["problems"][0]


def test_too_little_room_for_what_is_missing_is_said(verb, root, monkeypatch):
    for slug in ("c", "stylized"):
        (root / FOLDERS[slug]).rename(root / f"moved-{slug}")
    monkeypatch.setattr(advice, "free_bytes", lambda _: 10**9)
    told = " ".join(verb()[1].split())
    assert "The missing sets take 47.0 GB" in told and "THAT IS TOO LITTLE ROOM" in told
    assert "Sizes of stylized are not documented" in told


def test_sets_that_the_workflow_draws_need_nothing(capsys):
    path = Path(__file__).parents[2] / "config/config.yaml"
    assert cli.main(["check-data", "--config", str(path)]) == 0
    assert "drawn by the workflow" in capsys.readouterr().out


def test_nothing_here_loads_torch(root):
    import subprocess
    import sys

    code = (
        "import sys; from nsvit import config; from nsvit.data import checks, advice, fetch\n"
        f"data = config.DataConfig(root={str(root)!r}, classes='imagenet-1k', train='v', val='v',"
        f" sets={{'v': {{'path': {FOLDERS['val']!r}, 'partial': True}}}})\n"
        "assert all(r.is_good for r in checks.check(data)); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
