"""timm models behind one wrapper that takes pixels, and the places where noise enters them.

Outside `PixelModel` every image tensor is pixels in [0, 1], shape (B, 3, H, W); only the
wrapper knows mean and std. Noise is added by hooks on timm's own modules, so the forward pass
is always timm's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from torch import Tensor, nn

from nsvit import artifacts
from nsvit.checkpoints import Said, load_into, timm_says
from nsvit.config import ModelConfig, local_dir
from nsvit.errors import NsvitError
from nsvit.specs import PrepareSpec

if TYPE_CHECKING:
    from nsvit.data.layouts import ImageSet

log = logging.getLogger(__name__)


class PixelModel(nn.Module):
    """A timm classifier that takes pixels in [0, 1] and normalises them itself.

    Attributes:
        net: the timm model; expects normalised input.
        mean, std: buffers of shape (1, 3, 1, 1), in pixels.
        architecture: timm's name for `net`, enough with `model_args` to build it again.
        model_args: what `timm.create_model` was given beside the name.
        said: the mean and std that the weights were trained with, where that is known.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        architecture: str = "unknown",
        model_args: Mapping[str, Any] | None = None,
        said: Said | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.said = said
        self.architecture = architecture
        self.model_args = dict(model_args or {})
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of pixels in [0, 1], shape (B, 3, H, W)."""
        return self.net((images - self.mean) / self.std)

    @property
    def warnings(self) -> list[str]:
        """What is odd about the model: read with other statistics than it was trained with."""
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        if self.said is None or not self.said.differs(mean, std):
            return []
        (own_mean, own_std), read = map(_shown, (self.said.mean, self.said.std)), (mean, std)
        return [
            f"read with mean {_shown(read[0])} and std {_shown(read[1])}, but {self.said.source} "
            f"has mean {own_mean} and std {own_std}"
        ]

    @property
    def num_classes(self) -> int:
        """The width of the logits."""
        return int(self.net.num_classes)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        size = getattr(getattr(self.net, "patch_embed", None), "img_size", None)
        if size is None:
            size = getattr(self.net, "pretrained_cfg", {}).get("input_size", (3, 224, 224))[1:]
        return int(size[0]), int(size[1])

    @property
    def projection(self) -> nn.Conv2d:
        """The linear patch embedding: a convolution whose kernel equals its stride.

        Raises:
            NsvitError: the model embeds patches another way (convolution stem, overlap, ...).
        """
        name = self.architecture
        embed = getattr(self.net, "patch_embed", None)
        proj = getattr(embed, "proj", None)
        if getattr(embed, "backbone", None) is not None or not isinstance(proj, nn.Conv2d):
            raise NsvitError(
                f"model {name!r}: no linear patch embedding (found "
                f"{type(embed).__name__ if embed is not None else 'no patch_embed'}); the exact "
                "nullspace and noise on patch tokens need a ViT with one convolution as patch_embed"
            )
        if proj.kernel_size != proj.stride or any(proj.padding) or proj.groups != 1:
            raise NsvitError(
                f"model {name!r}: patches overlap or are padded (kernel {proj.kernel_size}, stride "
                f"{proj.stride}, padding {proj.padding}); a patch embedding needs kernel = stride"
            )
        return proj

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The encoder blocks.

        Raises:
            NsvitError: the model has none, or does not say how many tokens come before the patches.
        """
        blocks = getattr(self.net, "blocks", None)
        if blocks is None or getattr(self.net, "num_prefix_tokens", None) is None:
            raise NsvitError(
                f"model {self.architecture!r}: not a plain ViT (needs timm's `blocks` and "
                "`num_prefix_tokens`)"
            )
        return blocks

    @property
    def token_shape(self) -> tuple[int, int]:
        """(N, D): patch tokens per image and their width."""
        self.blocks  # noqa: B018 - refuses what is not a plain ViT
        patch = self.projection.kernel_size
        height, width = self.image_size
        return (height // patch[0]) * (width // patch[1]), self.projection.out_channels


def _shown(values: Sequence[float]) -> str:
    return "/".join(f"{value:.4g}" for value in dict.fromkeys(values))


@contextmanager
def inject(model: PixelModel, noise: Tensor, block: int = 0) -> Iterator[None]:
    """Adds noise to the patch tokens of every forward pass inside the block.

    Args:
        model: a plain ViT.
        noise: (1, N, D) for every image alike, or (B, N, D).
        block: 0 adds at the output of the patch embedding, before class token and position
            embedding; k >= 1 adds to the patch tokens at the input of encoder block k (timm's
            `blocks[k]`); class and register tokens are left alone.

    Raises:
        NsvitError: the noise does not fit the model, or there is no such block.
    """
    check_noise_shape(model, noise, block)
    if block == 0:

        def add_to_patches(module: nn.Module, args: Any, tokens: Tensor) -> Tensor:
            return tokens + (noise if tokens.ndim == 3 else noise.reshape(-1, *tokens.shape[1:]))

        handle = model.net.patch_embed.register_forward_hook(add_to_patches)  # type: ignore[union-attr, operator]
    else:

        def add_to_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            tokens = args[0]
            prefix = _prefix_tokens(model, tokens, noise, block)
            return torch.cat([tokens[:, :prefix], tokens[:, prefix:] + noise], dim=1), *args[1:]

        handle = model.blocks[block].register_forward_pre_hook(add_to_input)
    try:
        yield
    finally:
        handle.remove()


def _prefix_tokens(model: PixelModel, tokens: Tensor, noise: Tensor, block: int) -> int:
    """Class and register tokens before the patch tokens at the input of a block.

    Counted on the tokens, since some models (CaiT, ConViT) add their class token between blocks.
    """
    prefix = tokens.shape[1] - noise.shape[1]
    if tokens.ndim != 3 or not 0 <= prefix <= int(model.net.num_prefix_tokens):  # type: ignore[arg-type]
        raise NsvitError(
            f"model {model.architecture!r}: block {block} gets tokens of shape "
            f"{tuple(tokens.shape)}, to which noise of shape {tuple(noise.shape)} cannot be added "
            "(patch dropout, windows or merged tokens?)"
        )
    return prefix


def check_noise_shape(model: PixelModel, noise: Tensor, block: int) -> None:
    """Refuses noise that does not fit the model's patch tokens, and blocks that do not exist.

    Raises:
        NsvitError: naming both shapes, or the number of blocks.
    """
    tokens, width = model.token_shape
    if noise.ndim != 3 or tuple(noise.shape[1:]) != (tokens, width):
        raise NsvitError(
            f"noise of shape {tuple(noise.shape)} does not fit model {model.architecture!r}: "
            f"expected (1, {tokens}, {width})"
        )
    if not 0 <= block < len(model.blocks):
        raise NsvitError(
            f"block {block}: model {model.architecture!r} has injection points 0 to "
            f"{len(model.blocks) - 1}"
        )


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with no gradient on any weight; both restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        model.eval()
        model.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for weight, requires_grad in wanted:
            weight.requires_grad_(requires_grad)


# --- checkpoints ----------------------------------------------------------------------------


def build(
    architecture: str,
    model_args: Mapping[str, Any],
    mean: Sequence[float],
    std: Sequence[float],
    said: Mapping[str, Any] | None = None,
) -> PixelModel:
    """An untrained model.

    Args:
        architecture: a timm name.
        model_args: passed to `timm.create_model`.
        mean: per channel, in pixels.
        std: likewise.
        said: the fields of a `Said`, of weights that will be put in.

    Raises:
        NsvitError: timm does not know the architecture or refuses the arguments.
    """
    try:
        net = timm.create_model(architecture, pretrained=False, **_from_json(model_args))
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise NsvitError(f"timm cannot build {architecture!r}: {error}") from None
    return PixelModel(net, mean, std, architecture, model_args, Said(**said) if said else None)


def _from_json(args: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in args.items()}


def load_model(
    name_or_path: str | Path,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pretrained: bool = True,
    checkpoint: str | Path | None = None,
    ema: bool = True,
    **timm_kwargs: Any,
) -> PixelModel:
    """A model from a checkpoint of ours (`*.safetensors`), a `local-dir:` folder or a timm name.

    Args:
        name_or_path: what to load.
        mean: per channel, in pixels; None takes what the weights say.
        std: likewise.
        pretrained: False leaves a timm model at its random initialisation, always the same one.
        checkpoint: somebody else's weights for the timm name: `nsvit.checkpoints.load_into`.
        ema: of a checkpoint with both, the moving average rather than the raw weights.
        **timm_kwargs: passed to `timm.create_model`.

    Raises:
        NsvitError: nothing is there, it is damaged, or the weights do not fit the architecture.
    """
    if str(name_or_path).endswith(".safetensors"):
        return _load_checkpoint(Path(name_or_path), mean, std)
    name = str(name_or_path)
    architecture, model_args, folder = name, dict(timm_kwargs), local_dir(name)
    if folder is not None:
        config = artifacts.read_json(folder / "config.json")
        architecture = config.get("architecture", name)
        model_args = {**config.get("model_args", {}), **model_args}
        model_args.setdefault("num_classes", config.get("num_classes"))
        if not any(folder.glob("model.safetensors")):
            raise NsvitError(f"{folder}: no model.safetensors beside config.json")
    if checkpoint is not None:
        found = build(name, timm_kwargs, (0.0,) * 3, (1.0,) * 3)
        net, said = found.net, load_into(found.net, name, Path(checkpoint), ema)
    else:
        net = _create(name, pretrained, timm_kwargs)
        said = timm_says(net, folder) if pretrained else None
    known = said or timm_says(net)
    if known is None:
        raise NsvitError(f"model {name!r}: nothing says its mean and std; give both")
    model_args.setdefault("num_classes", int(net.num_classes))  # type: ignore[arg-type]
    if pretrained and checkpoint is None:
        _warn_of_new_head(net, name)
    return PixelModel(net, mean or known.mean, std or known.std, architecture, model_args, said)


def load_configured(config: ModelConfig | PrepareSpec) -> PixelModel:
    """The model that a section of the configuration describes.

    Raises:
        NsvitError: as `load_model`.
    """
    return load_model(
        config.timm,
        config.mean,
        config.std,
        config.pretrained,
        config.checkpoint,
        config.ema,
        **_from_json(config.model_args),
    )


def _create(name: str, pretrained: bool, timm_kwargs: Mapping[str, Any]) -> nn.Module:
    """Timm's model; weights that it draws (all of them, or a new head) are the same every time."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return timm.create_model(name, pretrained=pretrained, **timm_kwargs)
    except Exception as error:  # timm and its hub raise many types
        if any(kind.__name__ in _NOT_THERE for kind in type(error).__mro__):
            raise NsvitError(
                f"model {name!r}: its weights are neither in the Hugging Face cache nor to be had "
                'from the network. On a machine with network, as the same user: python -c "import '
                f"timm; timm.create_model('{name}', pretrained=True)\"; or give the file as "
                "models.<model>.checkpoint"
            ) from None
        raise NsvitError(f"model {name!r} cannot be loaded: {_reason(error)}") from None


def _warn_of_new_head(net: nn.Module, name: str) -> None:
    """Timm replaces the head without a word where weights are for another number of classes."""
    own = (getattr(net, "pretrained_cfg", None) or {}).get("num_classes")
    if own not in (None, net.num_classes):
        log.warning(
            "model %s: its weights are for %s classes; the head for %s is new and untrained, so "
            "that the model guesses until it is finetuned", name, own, net.num_classes,
        )  # fmt: skip


#: What the hub raises without network and cache.
_NOT_THERE = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError"}


def model_spec(model: PixelModel) -> dict[str, Any]:
    """What is needed beside the weights to build the model again."""
    found: dict[str, Any] = {
        "architecture": model.architecture,
        "model_args": model.model_args,
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
    }
    return found if model.said is None else {**found, "said": asdict(model.said)}


def save_model(model: PixelModel, path: str | Path, sidecar: Mapping[str, Any]) -> None:
    """Writes weights and sidecar.

    The model's own spec goes into the sidecar under `model`, what is odd about it `warnings`.
    """
    own = {"kind": "model", "model": model_spec(model), "warnings": model.warnings}
    artifacts.write_tensors(path, model.net.state_dict(), {**sidecar, **own})


def _load_checkpoint(
    path: Path, mean: Sequence[float] | None, std: Sequence[float] | None
) -> PixelModel:
    tensors, sidecar = artifacts.read_tensors(path, "model")
    spec = sidecar["model"]
    model = build(**{**spec, "mean": mean or spec["mean"], "std": std or spec["std"]})
    load_weights(model, {name: torch.from_numpy(value) for name, value in tensors.items()}, path)
    return model


def same_weights(one: PixelModel, other: PixelModel) -> bool:
    """Whether two models have the same weights, whatever mean and std they are read with."""
    first, second = one.net.state_dict(), other.net.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name].to(value.device)) for name, value in first.items()
    )


def load_weights(model: PixelModel, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Puts weights into a model, all or nothing.

    Raises:
        NsvitError: names what is missing, left over, or of another shape.
    """
    try:
        model.net.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise NsvitError(
            f"{source}: architecture {model.architecture!r}: {_reason(error)}"
        ) from None


def _reason(error: Exception) -> str:
    """The line of an error that says something: torch names the weights below a heading."""
    first, *rest = str(error).splitlines() or [type(error).__name__]
    if "Error(s) in loading state_dict" in first:
        return "weights do not fit: " + "; ".join(line.strip() for line in rest[:3])
    return first


def save_local_dir(model: PixelModel, folder: str | Path) -> None:
    """Writes a folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` opens.

    `config.json` is written last and atomically, so a folder that has one is whole.
    """
    from safetensors.torch import save

    folder = Path(folder)
    with artifacts.atomic(folder / "model.safetensors") as temporary:
        weights = {k: v.contiguous() for k, v in model.net.state_dict().items()}
        temporary.write_bytes(save(weights))
    spec = model_spec(model)
    head = {
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "num_features": int(model.net.num_features),  # type: ignore[arg-type]
        "model_args": {k: v for k, v in model.model_args.items() if k != "num_classes"},
    }
    size = [3, *model.image_size]
    shown = {"input_size": size, "mean": spec["mean"], "std": spec["std"]}
    known = {k: model.net.pretrained_cfg.get(k) for k in ("first_conv", "classifier")}
    config = {**head, "pretrained_cfg": {**known, **shown, "num_classes": model.num_classes}}
    artifacts.write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")


def prepare(spec: PrepareSpec, pictures: ImageSet, out: str | Path) -> PixelModel:
    """Loads a model under test, checks it against the pictures and stores it as a checkpoint.

    Args:
        spec: which model, and the mean and std it is read with.
        pictures: the training set, for its classes.
        out: the checkpoint; the sidecar beside it says where the model came from.

    Raises:
        NsvitError: the model cannot be loaded, has another number of classes than the pictures,
            or is not a plain ViT with a linear patch embedding.
    """
    model = load_configured(spec)
    if model.num_classes != len(pictures.classes):
        raise NsvitError(
            f"models.{spec.name}: {model.num_classes} classes, but the pictures in "
            f"{pictures.root} have {len(pictures.classes)}"
        )
    model.token_shape  # noqa: B018 - refuses models without a linear patch embedding
    folder = local_dir(spec.timm)
    inputs = [] if folder is None else [folder / "config.json", folder / "model.safetensors"]
    inputs += [] if spec.checkpoint is None else [Path(spec.checkpoint)]
    for warning in model.warnings:
        log.warning("model %s: %s", spec.name, warning)
    save_model(model, out, artifacts.provenance("model", spec.model_dump(), inputs))
    return model
