"""The public names, and what importing them costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import nsvit

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


def test_the_library_example_of_the_readme_runs(monkeypatch):
    import torch

    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    torch.manual_seed(0)
    names: dict = {}
    exec(code.replace("max_steps=150", "max_steps=5"), names)
    assert names["logits"].shape == (64, 10)
    assert names["noise"].tensor.shape == (1, 36, 64)
    assert names["basis"].nullity == 128
