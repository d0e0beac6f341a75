"""`precision: auto`: bf16 where a short measurement says that it pays, else single precision.

Whether it does depends on the device and on the width of the model: on CPUs with bf16 products,
ViTs of width 64 gain nothing and ViT-S gains much. What is chosen changes results, so it is
recorded, and work that goes on after an interruption keeps it.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nsvit import distributed, precision, runtime
from nsvit.config import NoiseConfig, Precision
from nsvit.models import PixelModel, frozen, inject

log = logging.getLogger(__name__)

#: bf16 is taken if it is so many times as fast; below, the choice would be left to chance.
PAYS = 1.25
#: Steps of each precision that are measured, in turn, after one that is not.
REPEATS = 3
#: Patch tokens in such a step, about: enough for products to run at their speed.
TOKENS = {"cpu": 512, "cuda": 16384}

#: Choices by what they are for; JSON can hold them.
Choices = dict[str, dict[str, Any]]


def choose(
    model: PixelModel,
    wanted: Mapping[str, tuple[Precision, int, bool]],
    recorded: Callable[[], Choices | None] = lambda: None,
) -> Choices:
    """The precision of everything that is to be chosen, the same in all processes.

    Args:
        model: on its device; left as it was.
        wanted: by a key of the configuration: its precision, the batch size, and whether the steps
            have gradients of the weights (training) or of noise alone.
        recorded: gives what was chosen before, if anything; asked in the main process.

    Returns:
        For every key whose precision is "auto": `precision`, what was measured (`seconds` of a
        step, by precision), with how many pictures and on which device. Empty if there is no such.

    Raises:
        NsvitError: what was chosen before does not run on this device.
    """
    open_ = {key: own[1:] for key, own in wanted.items() if own[0] == "auto"}
    if not open_:
        return {}
    device = model.mean.device

    def make() -> Choices:
        before = recorded() or {}
        return {key: before.get(key) or _measured(model, *own) for key, own in open_.items()}

    found: Choices = distributed.agreed(make)
    for key, choice in found.items():
        precision.refuse(device, choice["precision"], f"{key} (chosen by auto)")
        log.info("%s: auto is %s here: %s", key, choice["precision"], choice)
    return found


def settled(model: PixelModel, config: NoiseConfig) -> NoiseConfig:
    """Settings of noise whose precision is not open: measured now if it is "auto"."""
    own = (config.precision, config.batch_size, False)
    found = choose(model, {"noise.precision": own})
    return with_precision(config, found.get("noise.precision"))


def with_precision(config: Any, choice: Mapping[str, Any] | None) -> Any:
    """A section of the configuration with the precision that was chosen; None leaves it as is."""
    return config.model_copy(update={"precision": choice["precision"]}) if choice else config


def _measured(model: PixelModel, batch_size: int, training: bool) -> dict[str, Any]:
    device = model.mean.device
    count = min(batch_size, -(-TOKENS.get(device.type, 1) // model.token_shape[0]))
    found = {"precision": "fp32", "device": _name(device), "pictures": count}
    if device.type not in TOKENS or not has_bf16(device):
        return found
    step = _step(model, count, training)
    seconds: dict[Precision, list[float]] = {"fp32": [], "bf16": []}
    for repeat in range(REPEATS + 1):
        for passes, taken in seconds.items():
            begun = runtime.clock(device)
            step(passes)
            if repeat:
                taken.append(runtime.clock(device) - begun)
    typical = {passes: statistics.median(taken) for passes, taken in seconds.items()}
    pays = typical["fp32"] > PAYS * typical["bf16"]
    return {**found, "precision": "bf16" if pays else "fp32", "seconds": typical}


def has_bf16(device: torch.device) -> bool:
    """Whether a device has products in bf16 of its own.

    Emulated ones take many times as long as single precision: a ViT-S step on a CPU with AVX2
    alone took twenty times, too long even to be measured.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is None or bool(supported())


def _step(model: PixelModel, count: int, training: bool) -> Callable[[Precision], None]:
    """A forward and backward pass that leaves no trace: no update, no random numbers, no mode."""
    device = model.mean.device
    shape = (count, 3, *model.image_size)
    images = torch.rand(shape, generator=runtime.generator("precision")).to(device)
    noise = torch.zeros(1, *model.token_shape, device=device, requires_grad=True)

    def gradients(passes: Precision) -> None:
        weights: list[Tensor] = list(model.parameters()) if training else [noise]
        with torch.enable_grad(), precision.autocast(device, passes), inject(model, noise):
            logits = precision.full(model(images), passes)
        loss = logits.square().mean()
        wanted = [weight for weight in weights if weight.requires_grad]
        torch.autograd.grad(loss, wanted, allow_unused=True)

    def step(passes: Precision) -> None:
        if not training:
            with frozen(model):
                gradients(passes)
            return
        training_mode = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            gradients(passes)
        finally:
            for module, mode in training_mode:
                module.training = mode

    return step


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
