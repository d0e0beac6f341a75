"""Whether the weights that a configuration names are there, before any compute. No torch.

Whether they fit is for `prepare_model` to say, the first job that reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nsvit.config import Experiment, ModelConfig, local_dir

#: The files that timm looks for in a repository of the hub, in its order.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class WeightsReport:
    """What was found of the weights of one or more models.

    Attributes:
        slugs: keys under models or evaluate.sources.
        source: a file, a folder or a timm name.
        problem: what is wrong, and what to do; empty if nothing is.
        note: what is worth knowing; empty if nothing is.
    """

    slugs: tuple[str, ...]
    source: str
    problem: str = ""
    note: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the weights are there, or will be fetched."""
        return not self.problem


def check_weights(exp: Experiment) -> list[WeightsReport]:
    """Looks for the weights of every model under test and every source of transferred attacks."""
    users: dict[tuple[str, str | None], list[str]] = {}
    for slug, own in {**exp.models, **exp.evaluate.sources}.items():
        if own.pretrained or own.checkpoint is not None or local_dir(own.timm) is not None:
            users.setdefault(_named(own), []).append(slug)
    return [_look(tuple(slugs), *named) for named, slugs in users.items()]


def _named(own: ModelConfig) -> tuple[str, str | None]:
    """The timm name and the file; of a file the architecture is not looked at."""
    return ("", own.checkpoint) if own.checkpoint is not None else (own.timm, None)


def _look(slugs: tuple[str, ...], name: str, checkpoint: str | None) -> WeightsReport:
    folder = local_dir(name)
    if checkpoint is not None or folder is not None:
        wanted = _files(checkpoint, folder)
        absent = [path for path in wanted if not path.is_file() or not path.stat().st_size]
        problem = ""
        if absent:
            problem = (
                f"{absent[0]}: no such file, or an empty one (relative to {Path.cwd()}); "
                f"{_hint(folder)}"
            )
        return WeightsReport(slugs, checkpoint or name, problem)
    cached = _is_cached(name)
    if cached is not False:
        return WeightsReport(slugs, name, note="" if cached else "timm finds its weights")
    get = f"python -c \"import timm; timm.create_model('{name}', pretrained=True)\""
    if _is_offline():
        problem = (
            "not in the Hugging Face cache, and HF_HUB_OFFLINE forbids the network. Where there is "
            f"one, as the same user or with the same HF_HOME: {get}"
        )
        return WeightsReport(slugs, name, problem)
    note = f"not in the Hugging Face cache: the first job that needs it downloads it, or now: {get}"
    return WeightsReport(slugs, name, note=note)


def _hint(folder: Path | None) -> str:
    if folder is None:
        return "docs/paper_scale.md says where the paper's weights are had"
    if (folder / "pytorch_model.bin").is_file():
        return (
            "pytorch_model.bin beside it is not read: save again with "
            "timm.models.save_for_hf(model, folder, safe_serialization=True)"
        )
    return (
        "a local-dir: folder has timm's config.json and model.safetensors (timm.models.save_for_hf)"
    )


def _files(checkpoint: str | None, folder: Path | None) -> Iterator[Path]:
    if checkpoint is not None:
        yield Path(checkpoint)
    elif folder is not None:
        yield from (folder / "config.json", folder / "model.safetensors")


def _is_cached(name: str) -> bool | None:
    """Whether the weights of a timm name are in the Hugging Face cache; None: timm alone knows.

    Weights with a tag are on the hub in timm's own account, under the same name.
    """
    from huggingface_hub import try_to_load_from_cache

    scheme, _, path = name.rpartition(":")
    repository = path if scheme in ("hf-hub", "hf_hub") else f"timm/{name}"
    if scheme not in ("hf-hub", "hf_hub", "") or ("." not in name and not scheme):
        return None
    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in _HUB_FILES)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
