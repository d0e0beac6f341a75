"""Weight files that others made: safetensors, AugReg's npz, and pickles of plain weights.

Everything that does not fit is refused with the file and the weight named; nothing is left at its
random start in silence. Pickles are read by torch's restricted reader only, which runs no code.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nsvit.errors import NsvitError

#: Where training scripts keep the weights, first the moving average, then the raw ones.
_AVERAGES = ("state_dict_ema", "model_ema")
_WEIGHTS = ("state_dict", "model")

#: What wrappers put before every name: DistributedDataParallel, torch.compile.
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")


@dataclass(frozen=True)
class Said:
    """The mean and std that weights say they were trained with.

    Attributes:
        mean, std: per channel, in pixels of [0, 1].
        source: where that is written.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    def differs(self, mean: Sequence[float], std: Sequence[float]) -> bool:
        """Whether the model is read with other statistics (beyond rounding)."""
        own, read = np.array([*self.mean, *self.std]), np.array([*mean, *std])
        return not np.allclose(own, read, rtol=0, atol=1e-4)


def load_into(net: nn.Module, architecture: str, path: Path, ema: bool = True) -> Said | None:
    """Puts the weights of a file into a timm model, all or nothing.

    Args:
        net: built without pretrained weights.
        architecture: its name, for messages and for what timm knows of AugReg's files.
        path: .safetensors, .npz, or a pickle (any other ending).
        ema: take the moving average of a checkpoint that has both.

    Returns:
        What the file says of mean and std, if it does. AugReg's .npz do not; timm's settings for
        the architecture stand for them.

    Raises:
        NsvitError: no such file, damaged, not plain weights, or weights of another architecture.
    """
    if not path.is_file():
        raise NsvitError(
            f"{path}: no such checkpoint (models.<model>.checkpoint, relative to "
            f"{Path.cwd()}); docs/paper_scale.md says where to get it"
        )
    if path.suffix == ".npz":
        _load_npz(net, architecture, path)
        return timm_says(net)
    state, said = read_state(path, ema)
    _load_state(net, architecture, state, path)
    return said


def timm_says(net: nn.Module, folder: Path | None = None) -> Said | None:
    """The mean and std in timm's settings of the weights that a model's name stands for.

    Args:
        net: made by timm.
        folder: of a `local-dir:` name, whose config.json they come from.
    """
    known: Mapping[str, Any] = getattr(net, "pretrained_cfg", None) or {}
    if not known.get("mean") or not known.get("std"):
        return None
    tag = ".".join(filter(None, (known.get("architecture"), known.get("tag"))))
    source = f"timm's settings of {tag}" if folder is None else str(folder / "config.json")
    return Said(tuple(known["mean"]), tuple(known["std"]), source)


# --- pickles and safetensors ----------------------------------------------------------------


def read_state(path: Path, ema: bool = True) -> tuple[dict[str, Tensor], Said | None]:
    """The weights in a file by timm's names, and the mean and std stored with them.

    Understands what training scripts put around a state dict, names with the prefix of a wrapper,
    and DAT's models, a sequence of the normalisation (`0.mean`, `0.std`) and the net (`1.*`).

    Raises:
        NsvitError: damaged, or not plain weights.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    found = _inner(content, ema)
    strange = [name for name, value in found.items() if not isinstance(value, Tensor)]
    if strange or not found:
        what = f"{strange[0]!r} is no tensor" if strange else "it is empty"
        raise NsvitError(f"{path}: not a dictionary of weights ({what})")
    state = {_WRAPPERS.sub("", name): value for name, value in found.items()}
    if "0.mean" not in state or "0.std" not in state:
        return state, None
    mean, std = (tuple(state[f"0.{name}"].flatten().tolist()) for name in ("mean", "std"))
    net = {name[2:]: value for name, value in state.items() if name.startswith("1.")}
    return net, Said(mean, std, f"the normalisation in {path.name}")


def _inner(content: Mapping[str, Any], ema: bool) -> Mapping[str, Any]:
    """The state dict inside what a training script saved."""
    order = (*_AVERAGES, *_WEIGHTS) if ema else (*_WEIGHTS, *_AVERAGES)
    for name in order:
        if isinstance(content.get(name), Mapping):
            return content[name]
    return content


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise NsvitError(f"{path}: damaged, or not safetensors ({_first(error)})") from None


def _read_pickle(path: Path) -> Mapping[str, Any]:
    import pickle

    try:
        with _namespaces():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if "Weights only load failed" in str(error) and named:
            raise NsvitError(
                f"{path}: not plain weights: it holds {named[1]}, which would run code; it is not "
                "read. Save its state dict alone (as safetensors) where you trust it"
            ) from None
        # Torch's own text advises to read it as a pickle all the same, which would run its code.
        raise NsvitError(
            f"{path}: damaged, or not weights as torch.save writes them (it begins with "
            f"{_beginning(path)}); get the file again"
        ) from None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, AttributeError) as error:
        raise NsvitError(f"{path}: damaged, or not weights ({_first(error)})") from None
    if not isinstance(content, Mapping):
        raise NsvitError(f"{path}: not a dictionary of weights but {type(content).__name__}")
    return content


def _beginning(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(16)


def _namespaces() -> contextlib.AbstractContextManager[Any]:
    """Lets through what timm's trainer stores beside the weights: the parsed arguments."""
    if hasattr(torch.serialization, "safe_globals"):
        return torch.serialization.safe_globals([argparse.Namespace])
    return contextlib.nullcontext()  # torch 2.4: such files are refused


def _load_state(net: nn.Module, architecture: str, state: dict[str, Tensor], path: Path) -> None:
    own = net.state_dict()
    wrong = [name for name in own if name not in state]
    problem = f"{wrong[0]} is missing" if wrong else ""
    if not problem and (left := [name for name in state if name not in own]):
        wrong, problem = left, f"{left[0]} is left over"
    if not problem:
        wrong = [name for name in own if own[name].shape != state[name].shape]
        if wrong:
            shapes = [tuple(one[wrong[0]].shape) for one in (state, own)]
            problem = f"{wrong[0]} is {shapes[0]}, the model's {shapes[1]}"
    if problem:
        raise _of_another(path, architecture, problem, len(wrong))
    bad = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise NsvitError(f"{path}: {bad[0]} holds values that are not finite; get the file again")
    net.load_state_dict(state, strict=True)


def _of_another(path: Path, architecture: str, problem: str, count: int = 1) -> NsvitError:
    more = f" ({count} weights like that)" if count > 1 else ""
    return NsvitError(
        f"{path}: weights of another architecture than {architecture!r}: {problem}{more}; check "
        "models.<model>.timm and .model_args"
    )


# --- AugReg's npz ---------------------------------------------------------------------------


def _load_npz(net: nn.Module, architecture: str, path: Path) -> None:
    """Reads an .npz as Google published them through timm's own loader.

    That loader skips what it does not find and leaves a head of another width at its random
    start, so this looks whether every weight was given and every block used.
    """
    loader = getattr(net, "load_pretrained", None)
    if loader is None:
        raise NsvitError(f"{path}: timm reads .npz files into ViTs only, not {architecture!r}")
    shapes = _npz_shapes(path)
    blocks = {name.split("/")[1] for name in shapes if "/encoderblock_" in name}
    depth = len(getattr(net, "blocks", ()))
    if len(blocks) != depth:
        raise _of_another(path, architecture, f"{len(blocks)} blocks, the model has {depth}")
    for name, own in _npz_expected(net).items():
        if name not in shapes or shapes[name][: len(own)] != own:
            found = f"is {shapes[name]}, the model's {own}" if name in shapes else "is missing"
            raise _of_another(path, architecture, f"{name} {found}")
    try:
        with _from_nan(net):
            loader(str(path))
    except (KeyError, RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise _of_another(path, architecture, _first(error)) from None
    empty = [name for name, value in net.state_dict().items() if bool(value.isnan().any())]
    if empty:
        raise _of_another(path, architecture, f"no values for {empty[0]}", len(empty))


def _npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every array, all of them read, so that a damaged file is found."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name].shape for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.error) as error:
        raise NsvitError(f"{path}: damaged, or not an .npz of weights ({_first(error)})") from None
    except AttributeError:  # a single array has no files
        raise NsvitError(f"{path}: a single array, not an .npz of weights") from None


def _npz_expected(net: Any) -> dict[str, tuple[int, ...]]:
    """How some shapes begin, of what timm's loader would resample, leave out or fold in silence."""
    kernel = net.patch_embed.proj.weight.shape
    heads, width = int(net.blocks[0].attn.num_heads), int(net.embed_dim)
    attention = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"
    return {
        "embedding/kernel": (kernel[2], kernel[3], kernel[1], kernel[0]),
        attention: (width, heads),
        "head/bias": (int(net.num_classes),),
    }


@contextlib.contextmanager
def _from_nan(net: nn.Module) -> Iterator[None]:
    """Weights not a number at the start, so that those that were not given can be told."""
    with torch.no_grad():
        for weight in net.parameters():
            weight.fill_(torch.nan)
    yield


def _first(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
