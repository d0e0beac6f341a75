"""Cells: valid or made again, block by block, the same bytes whatever happened meanwhile."""

import io
import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import nsvit.attacks
from nsvit import artifacts, cells, matrix, readings, scoring
from nsvit.attacks.fgsm import fgsm_direction
from nsvit.config import RECIPES, ConditionConfig, ModelConfig, SetConfig
from nsvit.data.layouts import ImageSet, open_set, write_index
from nsvit.errors import NsvitError
from nsvit.evaluation import evaluate
from nsvit.models import PixelModel, save_local_dir, save_model
from nsvit.records import read_doubts, read_records, read_scores, usable
from nsvit.scoring import COLUMNS
from nsvit.specs import EvaluateSpec, ScanSpec
from nsvit.statistics import checks
from tests.small import MEAN, STD, image_tree, small_vit

ROOT = Path(__file__).parents[2]
FGSM = {"name": "fgsm", "radius": "4/255"}
PGD = {"name": "pgd", "radius": "4/255", "steps": 2}

#: 20 pictures in batches of 4, two batches in a block: blocks of 8, 8 and 4. Heavy attacks have
#: one batch in a block: of 5 pictures blocks of 4 and 1.
CONDITIONS = {
    "clean": {"set": "val"},
    "fgsm": {"set": "val", "attack": FGSM},
    "pgd_5": {"set": "val", "attack": PGD, "images": 5},
}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "BLOCK_BATCHES", 2)


@dataclass(frozen=True)
class Job:
    """A job of the verb `evaluate` on one small set, all in one folder."""

    folder: Path
    spec: EvaluateSpec
    sets: dict[str, ImageSet]

    @property
    def models(self) -> list[Path]:
        return [self.folder / f"model{seed}/model.safetensors" for seed in self.spec.seeds]

    @property
    def index(self) -> Path:
        return self.folder / "index/val.parquet"

    def run(self, out: str = "out", **changes: object) -> Path:
        """Runs it, with changes to the spec; returns the manifest."""
        spec = EvaluateSpec.model_validate({**dict(self.spec), **changes})
        manifest = self.folder / out / "main.all.json"
        models = [self.folder / f"model{seed}/model.safetensors" for seed in spec.seeds]
        matrix.run(spec, models, self.sets, manifest, {"val": self.index})
        return manifest


def conditions(**wanted: dict) -> dict[str, ConditionConfig]:
    return {slug: ConditionConfig(label=slug, **value) for slug, value in wanted.items()}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    image_tree(tmp_path / "data/val", per_class=5)
    (tmp_path / "classes.txt").write_text("".join(f"n{k:08d}\n" for k in range(4)))
    scan(tmp_path)
    spec = EvaluateSpec(
        model="small", arm="plain", seeds=(0, 2), batch_size=4, conditions=conditions(**CONDITIONS)
    )
    made = Job(tmp_path, spec, {"val": open_set(tmp_path / "index/val.parquet")})
    for seed, path in zip(spec.seeds, made.models, strict=True):
        save_model(small_vit(seed=seed), path, artifacts.provenance("model", {}))
    return made


def scan(folder: Path) -> None:
    classes = str(folder / "classes.txt")
    data = str(folder / "data")
    spec = ScanSpec(name="val", root=data, classes=classes, set=SetConfig(path="val"))
    write_index(spec, folder / "index/val.parquet")


def contents(manifest: Path) -> dict[str, bytes]:
    """Every file below the manifest's folder, hidden ones too."""
    folder = manifest.parent
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The conditions computed, once for every block, as `seed/condition/block`."""
    found: list[str] = []
    original = scoring.score_blocks

    def noted(subject, reading, todo):
        for number, slugs in enumerate(todo):
            found.extend(f"{subject.seed}/{slug}/{number}" for slug in slugs)
        yield from original(subject, reading, todo)

    monkeypatch.setattr(matrix, "score_blocks", noted)
    return found


ALL = {f"{seed}/{slug}/{k}" for seed in (0, 2) for slug in ("clean", "fgsm") for k in range(3)}
ALL |= {f"{seed}/pgd_5/{k}" for seed in (0, 2) for k in range(2)}


# --- what is written ------------------------------------------------------------------------


def test_cells_hold_what_evaluate_returns_and_the_manifest_lists_them(job: Job) -> None:
    manifest = job.run()
    names = {f"seed{seed}/{slug}.parquet" for seed in (0, 2) for slug in CONDITIONS}
    assert set(contents(manifest)) == names | {"main.all.json"}
    listed = artifacts.read_json(manifest)
    assert listed["kind"] == "manifest" and listed["doubts"] == []
    assert {row["path"] for row in listed["cells"]} == names
    for seed in (0, 2):
        expected = evaluate(small_vit(seed=seed), job.sets, job.spec, seed=seed)
        for slug in CONDITIONS:
            frame, sidecar = artifacts.read_parquet(
                manifest.parent / f"seed{seed}/{slug}.parquet", "records"
            )
            assert tuple(frame.columns) == COLUMNS
            mine = expected[expected["condition"] == slug].reset_index(drop=True)
            pd.testing.assert_frame_equal(
                frame.astype(mine.dtypes.to_dict()), mine, check_exact=True
            )
            assert isinstance(frame["sample"].dtype, pd.CategoricalDtype)
            assert frame["severity"].dtype == np.int8 and frame["confidence"].dtype == np.float32
            assert sidecar["seed"] == seed and list(sidecar["spec"]["conditions"]) == [slug]
            model = job.folder / f"model{seed}/model.safetensors"
            assert set(sidecar["inputs"]) == {str(model), str(job.index)}
            (row,) = [r for r in listed["cells"] if r["path"] == f"seed{seed}/{slug}.parquet"]
            assert row["rows"] == len(frame) == (5 if slug == "pgd_5" else 20)


def test_a_cell_has_the_same_bytes_alone(job: Job) -> None:
    together = contents(job.run())
    for slug, condition in CONDITIONS.items():
        wanted = conditions(**{slug: condition})
        alone = contents(job.run(f"only_{slug}", seeds=(2,), conditions=wanted))
        assert alone[f"seed2/{slug}.parquet"] == together[f"seed2/{slug}.parquet"]


def test_rows_in_memory_do_not_grow_with_the_set(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, peak, written = [0], [0], []
    original, write = scoring._frame, pq.ParquetWriter.write_table

    def counted(*args):
        frame = original(*args)
        rows = len(frame)
        alive[0] += rows
        peak[0] = max(peak[0], alive[0])
        weakref.finalize(frame, lambda: alive.__setitem__(0, alive[0] - rows))
        return frame

    def noted(self, table, *args, **kwargs):
        written.append(len(table))
        return write(self, table, *args, **kwargs)

    monkeypatch.setattr(scoring, "_frame", counted)
    monkeypatch.setattr(pq.ParquetWriter, "write_table", noted)
    manifest = job.run(seeds=(0,), batch_size=1)
    # Ten blocks of two pictures, two conditions in one reading: never more than one block each.
    assert max(written) == 2 and peak[0] <= 2 * 2
    file = pq.ParquetFile(manifest.parent / "seed0/clean.parquet")
    assert file.metadata.num_row_groups == 10


# --- kept or made again ---------------------------------------------------------------------


def test_what_is_there_is_kept(job: Job, computed: list[str], monkeypatch) -> None:
    before = contents(job.run())
    assert set(computed) == ALL and len(computed) == len(ALL)
    stamps = {path: path.stat().st_mtime_ns for path in (job.folder / "out").rglob("*.parquet")}
    (job.folder / "out/main.all.json").unlink()
    monkeypatch.setattr(PixelModel, "forward", lambda *_: pytest.fail("computed"))
    assert contents(job.run()) == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_new_condition_computes_only_its_own_cells(job: Job, computed: list[str]) -> None:
    first = contents(job.run())
    computed.clear()
    (job.folder / "out/seed0/of_another_job.parquet").write_bytes(b"mine")
    more = conditions(**CONDITIONS, f8={"set": "val", "attack": {**FGSM, "radius": "8/255"}})
    del more["clean"]
    after = contents(job.run(conditions=more))
    assert {name.split("/")[1] for name in computed} == {"f8"} and len(computed) == 2 * 3
    assert {name: after[name] for name in first if name.endswith("parquet")} == {
        name: value for name, value in first.items() if name.endswith("parquet")
    }
    assert after["seed0/of_another_job.parquet"] == b"mine"
    listed = {row["condition"] for row in json.loads(after["main.all.json"])["cells"]}
    assert listed == {"fgsm", "pgd_5", "f8"}


def test_one_deleted_cell_is_computed_alone(job: Job, computed: list[str]) -> None:
    before = contents(job.run())
    computed.clear()
    (job.folder / "out/seed2/fgsm.parquet").unlink()
    assert contents(job.run()) == before
    assert computed == ["2/fgsm/0", "2/fgsm/1", "2/fgsm/2"]


def other_weights(job: Job, monkeypatch) -> dict:
    save_model(small_vit(seed=9), job.models[0], artifacts.provenance("model", {}))
    return {}


def read_otherwise(job: Job, monkeypatch) -> dict:
    model = small_vit(seed=0)
    model.mean.add_(0.01)
    save_model(model, job.models[0], artifacts.provenance("model", {}))
    return {}


def another_picture(job: Job, monkeypatch) -> dict:
    path = job.sets["val"].paths[3]
    path.write_bytes(job.sets["val"].paths[12].read_bytes())
    scan(job.folder)
    job.sets["val"] = open_set(job.index)
    return {}


def fewer_pictures(job: Job, monkeypatch) -> dict:
    job.sets["val"] = job.sets["val"].subset(range(19))
    return {}


def another_recipe(job: Job, monkeypatch) -> dict:
    monkeypatch.setitem(RECIPES, "evaluate", 99)
    return {}


def code(*changed: str) -> Callable:
    def change(job: Job, monkeypatch) -> dict:
        original = matrix.code_digest

        def edited(names):
            return original(names) + ("edited" if set(changed) & set(names) else "")

        monkeypatch.setattr(matrix, "code_digest", edited)
        return {}

    return change


def upgraded(*changed: str) -> Callable:
    def change(job: Job, monkeypatch) -> dict:
        original = matrix.version
        monkeypatch.setattr(
            matrix, "version", lambda name: original(name) + ("1" if name in changed else "")
        )
        return {}

    return change


def settings(**changed: dict) -> Callable:
    return lambda *_: {"conditions": conditions(**{**CONDITIONS, **changed})}


EVERY = {f"seed{seed}/{slug}" for seed in (0, 2) for slug in CONDITIONS}
ATTACKED = {name for name in EVERY if "clean" not in name}


@pytest.mark.parametrize(
    ("change", "made_again"),
    [
        (other_weights, {name for name in EVERY if "seed0" in name}),
        (read_otherwise, {name for name in EVERY if "seed0" in name}),
        (another_picture, EVERY),
        (fewer_pictures, {name for name in EVERY if "pgd_5" not in name}),
        (another_recipe, EVERY),
        (upgraded("torch"), EVERY),
        (upgraded("timm"), EVERY),
        (upgraded("pyautoattack"), set()),
        (code("attacks"), ATTACKED),
        (code("scoring.py"), EVERY),
        (lambda *_: {"batch_size": 3}, EVERY),
        (lambda *_: {"model": "renamed"}, EVERY),
        (settings(pgd_5={"set": "val", "attack": {**PGD, "steps": 3}, "images": 5}),
         {"seed0/pgd_5", "seed2/pgd_5"}),
        (settings(clean={"set": "val", "images": 7}), {"seed0/clean", "seed2/clean"}),
        (settings(clean={"set": "val", "restricted": False}), {"seed0/clean", "seed2/clean"}),
        (settings(clean={"set": "val", "paper": "clean", "average": False, "job": "x"}), set()),
        (lambda *_: {"seeds": (2, 0)}, set()),
    ],
)  # fmt: skip
def test_a_cell_is_made_again_where_what_it_depends_on_changed(
    job: Job, computed: list[str], monkeypatch, change: Callable, made_again: set[str]
) -> None:
    job.run()
    computed.clear()
    job.run(**change(job, monkeypatch))
    assert {"seed" + name.rsplit("/", 1)[0] for name in computed} == made_again


def test_another_pyautoattack_makes_its_cells_again(
    job: Job, computed: list[str], monkeypatch
) -> None:
    wanted = {"seeds": (0,), "conditions": conditions(**HEAVY)}
    job.run(**wanted)
    computed.clear()
    job.run(**upgraded("pyautoattack")(job, monkeypatch), **wanted)
    assert {name.split("/")[1] for name in computed} == {"auto", "auto_together"}


def test_cells_of_another_device_are_made_again(job: Job) -> None:
    subject = readings.Subject.of(small_vit(), job.spec, 0, readings.FINAL, {})
    ((reading),) = readings.plan_readings(job.sets, {"clean": job.spec.conditions["clean"]})
    run = matrix._Run(Path("m"), subject, "hash", {})
    here = matrix._cells(job.folder, reading, run, "pictures")["clean"].fingerprint
    subject.model.to("meta")
    there = matrix._cells(job.folder, reading, run, "pictures")["clean"].fingerprint
    assert here != there


def test_other_weights_of_the_source_make_a_transfer_attack_again(
    job: Job, computed: list[str]
) -> None:
    folder = job.folder / "source"
    source = ModelConfig(label="s", timm=f"local-dir:{folder}", mean=MEAN, std=STD)
    attack = {"name": "mi_fgsm", "radius": "4/255", "source": "s", "steps": 1}
    wanted = {
        "conditions": conditions(clean={"set": "val"}, mim={"set": "val", "attack": attack}),
        "sources": {"s": source},
        "seeds": (0,),
    }
    save_local_dir(small_vit(seed=5), folder)
    first = contents(job.run(**wanted))
    computed.clear()
    save_local_dir(small_vit(seed=6), folder)
    second = contents(job.run(**wanted))
    assert {name.split("/")[1] for name in computed} == {"mim"}
    assert first["seed0/mim.parquet"] != second["seed0/mim.parquet"]
    save_local_dir(small_vit(seed=0), folder)  # the target's own weights
    with pytest.raises(NsvitError, match=r"condition 'mim'.*target's own weights"):
        job.run(**wanted)
    assert contents(job.folder / "out/main.all.json") == second


def test_a_job_that_cannot_run_touches_nothing(job: Job, monkeypatch) -> None:
    before = contents(job.run())
    save_model(small_vit(seed=7), job.models[0], artifacts.provenance("model", {}))
    save_model(small_vit(classes=5), job.models[1], artifacts.provenance("model", {}))
    monkeypatch.setattr(PixelModel, "forward", lambda *_: pytest.fail("computed"))
    with pytest.raises(NsvitError, match="'val' has 4 classes"):
        job.run()
    assert contents(job.folder / "out/main.all.json") == before


# --- interrupted and damaged ----------------------------------------------------------------


class Stopped(Exception):
    """What a test raises inside a block."""


@pytest.mark.parametrize("stop", [1, 5, 6, 9])
def test_an_interrupted_job_continues_to_the_same_bytes(
    job: Job, computed: list[str], monkeypatch, stop: int
) -> None:
    expected = contents(job.run("whole"))
    put, calls = cells.Cell.put, [0]

    def failing(self, *args):
        calls[0] += 1
        if calls[0] == stop:
            raise Stopped
        put(self, *args)

    computed.clear()
    monkeypatch.setattr(cells.Cell, "put", failing)
    with pytest.raises(Stopped):
        job.run()
    assert not (job.folder / "out/main.all.json").exists()
    monkeypatch.setattr(cells.Cell, "put", put)
    computed.clear()
    again = contents(job.run())
    assert again == expected
    assert len(computed) < len(ALL) or stop == 1
    assert not any(".parts" in name for name in again)


AUTO = {"name": "autoattack", "radius": "4/255", "parts": ["apgd-ce"], "steps": 1}

#: 11 pictures: heavy blocks of 4, 4 and 3, and alone (readings.ALONE_PICTURES = 2) six of 2 or 1.
HEAVY = {
    "clean": {"set": "val", "images": 11},
    "pgd": {"set": "val", "images": 11, "attack": PGD},
    "patch": {"set": "val", "images": 11, "attack": {"name": "patch_fool", "steps": 1}},
    "auto": {"set": "val", "images": 11, "attack": AUTO},
    "auto_together": {"set": "val", "images": 11, "attack": {**AUTO, "together": True}},
}


@pytest.mark.parametrize(
    ("name", "stop", "again"),
    [
        # In the second batch; the first block of every heavy condition is kept.
        ("pgd", 2, {"pgd": 7, "patch": 7, "auto_together": 7, "auto": 11}),
        # The second condition of a batch: the first one's block is kept, and what came before.
        ("patch_fool", 2, {"pgd": 3, "patch": 7, "auto_together": 7, "auto": 11}),
        # Attacked one by one: only the block of two is lost.
        ("autoattack", 3 + 6, {"auto": 1}),
    ],
)
def test_what_a_stopped_attack_had_finished_is_kept(
    job: Job, monkeypatch, name: str, stop: int, again: dict[str, int]
) -> None:
    monkeypatch.setattr(readings, "ALONE_PICTURES", 2)
    wanted = {"seeds": (0,), "conditions": conditions(**HEAVY)}
    expected = contents(job.run("whole", **wanted))
    start, calls = nsvit.attacks.ATTACKS[name], [0]

    def failing(*args):
        calls[0] += 1
        if calls[0] == stop:
            raise Stopped
        return start(*args)

    with monkeypatch.context() as patch:
        patch.setitem(nsvit.attacks.ATTACKS, name, failing)
        with pytest.raises(Stopped):
            job.run(**wanted)
    assert not (job.folder / "out/main.all.json").exists()
    pictures: dict[str, int] = {}
    original = scoring._frame

    def counted(rows, scores, slug, *args):
        pictures[slug] = pictures.get(slug, 0) + len(rows)
        return original(rows, scores, slug, *args)

    monkeypatch.setattr(scoring, "_frame", counted)
    assert contents(job.run(**wanted)) == expected
    assert pictures == again


KILLED = """
import os, signal, sys
import pyarrow.parquet as pq
from nsvit import cli, readings
readings.BLOCK_BATCHES = 2
write, calls = pq.ParquetWriter.write_table, [0]
def dying(self, table, *args, **kwargs):
    calls[0] += 1
    write(self, table, *args, **kwargs)
    if calls[0] == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)  # in the middle of a file
pq.ParquetWriter.write_table = dying
sys.exit(cli.main(sys.argv[2:]))
"""


def test_a_killed_job_continues_to_the_same_bytes(job: Job, computed: list[str]) -> None:
    stop = 9  # the second table of the second cell: the first is whole, the parts are there
    expected = contents(job.run("whole"))
    manifest = job.folder / "out/main.all.json"
    arguments = ["evaluate", "--spec", job.spec.model_dump_json(), "--threads", "1"]
    arguments += ["--models", *map(str, job.models), "--indices", str(job.index)]
    command = [sys.executable, "-c", KILLED, str(stop), *arguments, "--out", str(manifest)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NSVIT_DEVICE": "cpu"}, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    (manifest.parent / ".main.all.json.lock").unlink()  # the next command would, too
    left = contents(manifest)
    assert left["seed0/clean.parquet"] == expected["seed0/clean.parquet"]
    assert "main.all.json" not in left and any(".fgsm.parquet." in name for name in left)
    computed.clear()
    assert contents(job.run()) == expected
    assert {name for name in computed if name.startswith("0")} == {
        *("0/fgsm/2", "0/pgd_5/0", "0/pgd_5/1")
    }


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    """One bit of the first column's last page, which nothing but its checksum notices."""
    column = pq.read_metadata(io.BytesIO(content)).row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    position = start + column.total_compressed_size - 1
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda _: b""])
def test_a_damaged_cell_is_made_again_with_a_warning(
    job: Job, computed: list[str], caplog, damage: Callable
) -> None:
    before = contents(job.run())
    computed.clear()
    cell = job.folder / "out/seed0/clean.parquet"
    cell.write_bytes(damage(cell.read_bytes()))
    assert contents(job.run()) == before
    assert computed == ["0/clean/0", "0/clean/1", "0/clean/2"]
    (warning,) = [one for one in caplog.messages if "damaged" in one]
    assert str(cell) in warning


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_part_is_made_again_with_a_warning(
    job: Job, computed: list[str], caplog, monkeypatch, damage: Callable
) -> None:
    expected = contents(job.run("whole"))
    put = cells.Cell.put

    def failing(self, number, *args):
        if number == 2:
            raise Stopped
        put(self, number, *args)

    monkeypatch.setattr(cells.Cell, "put", failing)
    with pytest.raises(Stopped):
        job.run()
    monkeypatch.setattr(cells.Cell, "put", put)
    computed.clear()
    part = job.folder / "out/seed0/.clean.parts/1.parquet"
    part.write_bytes(damage(part.read_bytes()))
    assert contents(job.run()) == expected
    first = [name for name in computed if name.startswith("0/") and "pgd" not in name]
    assert sorted(first) == ["0/clean/1", "0/clean/2", "0/fgsm/2"]
    (warning,) = [one for one in caplog.messages if "damaged" in one]
    assert str(part) in warning


# --- doubts, and reading --------------------------------------------------------------------


def test_doubts_are_kept_in_cells_and_manifest(job: Job, monkeypatch, caplog) -> None:
    monkeypatch.setitem(nsvit.attacks.ATTACKS, "pgd", lambda model, x, *_: lambda threat: x)
    wanted = conditions(**CONDITIONS, pgd={"set": "val", "attack": PGD})
    manifest = job.run(seeds=(0,), conditions=wanted)
    found = read_doubts([manifest])
    # Of pgd_5 one picture contradicts, which is left to chance.
    assert {doubt.split(":")[0].rsplit(" ", 1)[1] for doubt in found} == {"pgd"}
    for doubt in found:
        assert "weaker_than_smaller" in doubt and "small/plain/seed0" in doubt
        assert doubt in caplog.text

    def sure(self, images):  # outputs that are probabilities
        return self.net((images - self.mean) / self.std).softmax(1)

    monkeypatch.setattr(PixelModel, "forward", sure)
    manifest = job.run("sure", seeds=(0,), conditions=wanted)
    folder = manifest.parent / "seed0"
    sidecars = {s: artifacts.read_parquet(folder / f"{s}.parquet", "records")[1] for s in wanted}
    stored = {slug: sidecar["doubts"] for slug, sidecar in sidecars.items()}
    assert stored["clean"] == []
    for slug in ("fgsm", "pgd", "pgd_5"):
        assert len(stored[slug]) == 1 and "[probabilities]" in stored[slug][0]
    listed = artifacts.read_json(manifest)["doubts"]
    assert stored["fgsm"][0] in listed and listed == read_doubts([manifest])
    assert len(listed) == len(set(listed))


def test_comparing_cells_finds_what_comparing_all_records_at_once_does(
    job: Job, monkeypatch
) -> None:
    for name in ("pgd", "cw"):  # attacks that do nothing
        monkeypatch.setitem(nsvit.attacks.ATTACKS, name, lambda model, x, *_: lambda threat: x)
    other = image_tree(job.folder / "data/other", per_class=3, seed=3, name="other")
    job.sets["other"] = other
    large = {**FGSM, "radius": "8/255"}
    wanted = {
        f"{kind}_{set_}": {"set": set_, "attack": attack}
        for kind, attack in {
            "fgsm": FGSM, "large": large, "pgd": PGD, "pgd_8": {**PGD, "radius": "8/255"},
            "cw": {"name": "cw", "radius": 0.5},
        }.items()
        for set_ in ("other", "val")
    }  # fmt: skip
    wanted["pgd_7"] = {"set": "val", "images": 7, "attack": PGD}
    manifest = job.run(conditions=conditions(**wanted))
    at_once = []
    for seed in job.spec.seeds:
        records = read_records([manifest], COLUMNS)
        at_once += checks.doubts(records[records["seed"] == seed])
    found = read_doubts([manifest])
    assert found == [str(doubt) for doubt in at_once] and len(found) >= 4
    listed, _ = cells.read_manifest(manifest)
    group = [cell for cell in listed if cell.run[2] == 0 and cell.set == "val"]
    frame = cells._checked(group)
    assert len(frame) == 5 * 20 + 7
    assert frame.memory_usage(index=False, deep=True).sum() < 40 * len(frame) + 5000


def test_attacks_are_compared_with_none_also_in_another_job(job: Job, monkeypatch) -> None:
    def helping(model, x, y, *_):
        return lambda threat: threat.move(x, -fgsm_direction(model, x, y))

    monkeypatch.setitem(nsvit.attacks.ATTACKS, "fgsm", helping)
    large = {"set": "val", "attack": {**FGSM, "radius": "64/255"}}
    together = job.run(seeds=(0,), conditions=conditions(clean={"set": "val"}, fgsm=large))
    (doubt,) = read_doubts([together])
    assert "seed0 round -1 set val fgsm:" in doubt and "[better_than_clean]" in doubt
    parts = [job.folder / f"out/{name}.all.json" for name in ("plain", "strong")]
    for part, own in zip(parts, ({"clean": {"set": "val"}}, {"fgsm": large}), strict=True):
        spec = job.spec.model_copy(update={"seeds": (0,), "conditions": conditions(**own)})
        matrix.run(spec, job.models[:1], job.sets, part)
    assert [read_doubts([part]) for part in parts] == [[], []]
    assert read_doubts(parts) == [doubt]


def test_attacks_of_different_jobs_are_compared(job: Job, monkeypatch) -> None:
    monkeypatch.setitem(nsvit.attacks.ATTACKS, "pgd", lambda model, x, *_: lambda threat: x)
    parts = []
    for name, attack in (("main", FGSM), ("slow", PGD)):
        spec = job.spec.model_copy(
            update={"conditions": conditions(**{name: {"set": "val", "attack": attack}})}
        )
        parts.append(job.folder / f"out/{name}.all.json")
        matrix.run(spec, job.models, job.sets, parts[-1])
    assert [read_doubts([part]) for part in parts] == [[], []]
    found = read_doubts(parts)
    assert found and all("weaker_than_smaller" in doubt for doubt in found)
    # The same attack among all classes is another question.
    spec = job.spec.model_copy(
        update={"conditions": conditions(open={"set": "val", "attack": PGD, "restricted": False})}
    )
    matrix.run(spec, job.models, job.sets, job.folder / "out/open.all.json")
    assert read_doubts([parts[0], job.folder / "out/open.all.json"]) == []


def test_manifests_are_read_like_files_of_records(job: Job) -> None:
    manifest = job.run()
    paths = [manifest.parent / row["path"] for row in artifacts.read_json(manifest)["cells"]]
    records = read_records([manifest], COLUMNS)
    pd.testing.assert_frame_equal(records, read_records(paths, COLUMNS))
    assert len(records) == 2 * (20 + 20 + 5)
    columns = ["model", "arm", "seed", "condition", "picture", "score", "error"]
    scores = read_scores([manifest])[columns].astype({"condition": str})
    whole = read_scores(records)[columns].astype({"condition": str, "model": str, "arm": str})
    pd.testing.assert_frame_equal(scores, whole, check_dtype=False, check_categorical=False)
    assert read_doubts(paths) == []


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
def test_a_cell_that_is_not_the_listed_one_is_named(job: Job, damage: Callable) -> None:
    manifest = job.run()
    damage(manifest.parent / "seed2/fgsm.parquet")
    for read in (read_records, read_scores, read_doubts):
        with pytest.raises(NsvitError, match=r"seed2/fgsm\.parquet.*delete .*main\.all\.json"):
            read([manifest])
    job.run()
    assert len(read_records([manifest])) == 2 * (20 + 20 + 5)


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NsvitError, match="no such file"):
        read_records([tmp_path / "main.all.json"])
    artifacts.write_json(tmp_path / "h.json", artifacts.provenance("history", {}))
    with pytest.raises(NsvitError, match=r"h\.json: expected a 'manifest' file"):
        read_scores([tmp_path / "h.json"])


def test_the_set_is_decoded_once_for_all_seeds(job: Job, monkeypatch) -> None:
    decoded: list[int] = []
    original = nsvit.inputs.load_pixels
    monkeypatch.setattr(
        nsvit.inputs,
        "load_pixels",
        lambda image_set: decoded.append(len(image_set)) or original(image_set),
    )
    job.run()
    assert sorted(n for n in decoded if n > 1) == [5, 20]


def test_digests_are_of_what_counts() -> None:
    one, two = small_vit(seed=1), small_vit(seed=1)
    assert matrix._model_digest(one) == matrix._model_digest(two)
    with torch.no_grad():
        two.net.head.bias[0] += 1e-6
    assert matrix._model_digest(one) != matrix._model_digest(two)
    assert matrix._pictures_digest(
        replace(image_set := ImageSet("a", Path("x"), FRAME, ("n",), ("n",)), root=Path("y"))
    ) == matrix._pictures_digest(image_set)


FRAME = pd.DataFrame({"path": ["p"], "label": [0], "corruption": [""], "severity": [0]})


# --- what can be used -----------------------------------------------------------------------


def relist(manifest: Path, name: str) -> None:
    """Lists a cell as it is now."""
    content = artifacts.read_json(manifest)
    for row in content["cells"]:
        if row["path"] == name:
            row["sha256"] = artifacts.sha256(manifest.parent / name)
            row["rows"] = pq.read_metadata(manifest.parent / name).num_rows
    artifacts.write_json(manifest, content)


def lost_in(manifest: Path) -> tuple[set[str], str]:
    """The cells that can be used, and the one text about what cannot."""
    found = usable([manifest])
    left = {f"seed{one.run[2]}/{one.condition}" for one in found.paths}
    assert len(read_records(found.paths, COLUMNS)) == sum(one.rows for one in found.paths)
    assert len(found.lost) == 1
    return left, found.lost[0]


CELLS = {f"seed{seed}/{slug}" for seed in (0, 2) for slug in CONDITIONS}


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
def test_a_lost_cell_is_named_and_the_others_are_used(
    job: Job, damage: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = job.run()
    assert usable([manifest]).lost == ()
    damage(manifest.parent / "seed2/fgsm.parquet")
    left, text = lost_in(manifest)
    assert left == CELLS - {"seed2/fgsm"}
    assert "seed2/fgsm.parquet" in text and "delete" in text and text in caplog.text
    whole = read_records(usable([manifest]).paths, COLUMNS, conditions=["clean"])
    assert set(whole["condition"]) == {"clean"} and len(whole) == 40


def test_a_cell_with_an_unknown_column_is_named(job: Job) -> None:
    manifest = job.run()
    path = manifest.parent / "seed0/clean.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("colour", table["attack"]), path)
    relist(manifest, "seed0/clean.parquet")
    left, text = lost_in(manifest)
    assert left == CELLS - {"seed0/clean"} and "clean.parquet: unknown column colour" in text


def test_seeds_with_different_pictures_are_named(job: Job) -> None:
    manifest = job.run()
    path = manifest.parent / "seed2/clean.parquet"
    pq.write_table(pq.read_table(path).slice(0, 15), path)
    relist(manifest, "seed2/clean.parquet")
    left, text = lost_in(manifest)
    assert left == CELLS - {"seed0/clean", "seed2/clean"}
    assert text.startswith("small, plain, clean: seeds have different") and "seed 2: 15" in text


def test_where_nothing_can_be_used_the_first_file_is_named(job: Job, tmp_path: Path) -> None:
    manifest = job.run()
    found = usable([manifest, tmp_path / "gone.json", tmp_path / "gone.parquet"])
    assert len(found.paths) == len(CELLS)
    assert [text.split(": ")[0] for text in found.lost] == [
        str(tmp_path / "gone.json"), str(tmp_path / "gone.parquet"),
    ]  # fmt: skip
    with pytest.raises(NsvitError, match=r"gone\.json: no such file"):
        usable([tmp_path / "gone.json", tmp_path / "gone.parquet"])
