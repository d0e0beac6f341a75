"""The public names, and what importing them costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import nsvit
from tests.small import image_tree

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "code",
    [
        "import nsvit; dir(nsvit)",
        "from nsvit.cli import main; main(['check-config', 'config/smoke.yaml'])",
        "from nsvit import tables, figures, statistics, records",
    ],
)
def test_these_do_not_load_torch(code):
    check = f"import sys; sys.modules['torch'] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    for name in nsvit.__all__:
        assert getattr(nsvit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        nsvit.nonsense


def test_the_library_examples_of_the_readme_run(monkeypatch, tmp_path):
    import torch

    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text()
    first, second = (part.split("```")[0] for part in text.split("```python\n")[1:])
    torch.manual_seed(0)
    names: dict = {}
    exec(first.replace("max_steps=150", "max_steps=5"), names)
    assert names["logits"].shape == (64, 10)
    assert names["noise"].tensor.shape == (1, 36, 64)
    assert names["basis"].nullity == 128
    sets = {name: image_tree(tmp_path / name, 3, classes=10, size=48) for name in ("train", "val")}
    monkeypatch.setattr("nsvit.data.layouts.open_set", lambda path: sets[Path(path).stem])
    monkeypatch.chdir(tmp_path)
    for long, short in (
        ("=500", "=10"),
        (": 500", ": 10"),
        ("rounds=4, steps=10", "rounds=1, steps=2"),
    ):
        assert long in second
        second = second.replace(long, short)
    exec(second, names)
    assert len(names["history"]["rounds"]) == 2 and (tmp_path / "my_run/history.json").exists()
    assert names["records"]["condition"].value_counts().to_dict() == {"clean": 30, "fgsm_1": 30}
