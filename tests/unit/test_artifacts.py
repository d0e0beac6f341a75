"""Artefacts: atomic, self-describing, and refused when they are not what is expected."""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from nsvit import artifacts
from nsvit.errors import NsvitError


def test_atomic_leaves_nothing_after_a_failure(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with pytest.raises(RuntimeError), artifacts.atomic(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []


def test_atomic_keeps_the_old_file_after_a_failure(tmp_path):
    target = tmp_path / "file.txt"
    artifacts.write_text(target, "old")
    with pytest.raises(RuntimeError), artifacts.atomic(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_tensors_round_trip_with_their_sidecar(tmp_path):
    path = tmp_path / "x.safetensors"
    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.int64(3)}
    source = tmp_path / "in.txt"
    source.write_text("input")
    sidecar = artifacts.provenance("noise", {"limit": 3}, [source], seed=4, metrics={"norm": 1.5})
    artifacts.write_tensors(path, values, sidecar)
    found, says = artifacts.read_tensors(path, "noise")
    assert np.array_equal(found["a"], values["a"])
    assert np.array_equal(load_file(path)["a"], values["a"])  # any reader can open it
    assert says["spec"] == {"limit": 3}
    assert says["seed"] == 4
    assert says["metrics"] == {"norm": 1.5}
    assert says["inputs"] == {str(source): artifacts.sha256(source)}
    assert {"nsvit", "git_commit", "schema_version"} <= set(says)


def test_parquet_round_trip(tmp_path):
    path = tmp_path / "x.parquet"
    frame = pd.DataFrame({"sample": ["a", "b"], "correct": [True, False]})
    artifacts.write_parquet(path, frame, artifacts.provenance("records", {"n": 2}))
    found, says = artifacts.read_parquet(path, "records")
    pd.testing.assert_frame_equal(found, frame)
    assert says["spec"] == {"n": 2}


def test_wrong_kind_and_damage_are_named(tmp_path):
    path = tmp_path / "x.parquet"
    artifacts.write_parquet(path, pd.DataFrame({"a": [1]}), artifacts.provenance("index", {}))
    with pytest.raises(NsvitError, match=r"x\.parquet: expected a 'records' file, found 'index'"):
        artifacts.read_parquet(path, "records")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(NsvitError, match=r"x\.parquet: damaged"):
        artifacts.read_parquet(path, "index")
    with pytest.raises(NsvitError, match="no such file"):
        artifacts.read_parquet(tmp_path / "none.parquet", "index")


def test_half_written_tensors_are_named(tmp_path):
    path = tmp_path / "x.safetensors"
    artifacts.write_tensors(path, {"a": np.ones(100)}, artifacts.provenance("model", {}))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(NsvitError, match=r"x\.safetensors: damaged"):
        artifacts.read_tensors(path, "model")
    artifacts.sidecar_path(path).unlink()
    with pytest.raises(NsvitError, match=r"x\.json: no such file"):
        artifacts.read_tensors(path, "model")


def test_another_schema_version_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    sidecar = {**artifacts.provenance("model", {}), "schema_version": 0}
    artifacts.write_tensors(path, {"a": np.ones(1)}, sidecar)
    with pytest.raises(NsvitError, match="schema version 0"):
        artifacts.read_tensors(path, "model")
