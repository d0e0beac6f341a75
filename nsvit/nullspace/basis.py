"""The exact nullspace of the patch embedding, in pixels (METHOD.md section 2).

A patch embedding is a matrix W (D, c * r_h * r_w) applied to every patch. Pixel noise v with
W v = 0 in every patch leaves all tokens, hence the logits, as they were. `PixelModel` divides
each channel by its std before W, so the matrix that acts on pixels is W / std; mean and bias
cancel in a difference. Differs from the authors' code, which looks for a nullspace in each
colour channel by itself: that is a strict subset of the joint one, and empty for patch 16.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nsvit.errors import NsvitError
from nsvit.models import PixelModel
from nsvit.pixels import check_model

#: Pixels may leave [0, 1] by this much before they are put back: about one float32 rounding.
RANGE_TOLERANCE = 1e-7


@dataclass(frozen=True)
class NullspaceBasis:
    """The nullspace of one patch embedding, acting on pixels.

    Attributes:
        basis: (c * r_h * r_w, nullity) float64, orthonormal columns; channel slowest.
        row_space: (c * r_h * r_w, rank) float64, orthonormal columns, orthogonal to `basis`.
        singular_values: (min(D, c * r_h * r_w),) float64, of W / std, descending.
        rtol: singular values not above `rtol` times the largest count as zero.
        patch_size: (r_h, r_w) in pixels.
        image_size: (H, W) in pixels.
        architecture: whose patch embedding it is.
    """

    basis: Tensor
    row_space: Tensor
    singular_values: Tensor
    rtol: float
    patch_size: tuple[int, int]
    image_size: tuple[int, int]
    architecture: str

    @property
    def rank(self) -> int:
        """Dimension of what the patch embedding sees of one patch."""
        return self.row_space.shape[1]

    @property
    def nullity(self) -> int:
        """Dimension of what it does not see of one patch."""
        return self.basis.shape[1]

    @property
    def patches(self) -> int:
        """Patches N in one image."""
        (height, width), (rows, columns) = self.image_size, self.patch_size
        return (height // rows) * (width // columns)

    def project(self, images: Tensor) -> Tensor:
        """The component of image-shaped tensors in the nullspace, patch by patch.

        Args:
            images: (B, 3, H, W), any float type and device; computed in float64 on the CPU.

        Returns:
            (B, 3, H, W) like `images`. Pixels outside every patch (H or W not a multiple of the
            patch side) become zero.
        """
        return self._fold(self._project(self._unfold(images))).to(images)

    def sample(
        self,
        n: int,
        norm: float | None = None,
        peak: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Random nullspace noise for whole images, an independent vector in each patch.

        Args:
            n: how many.
            norm: L2 norm of each noise image, pixels.
            peak: largest absolute pixel value of each noise image, instead of `norm`.
            generator: CPU generator.

        Returns:
            (n, 3, H, W) float32; with neither `norm` nor `peak`, standard normal within the
            nullspace.

        Raises:
            NsvitError: the nullspace is {0}, or both `norm` and `peak` are given.
        """
        if norm is not None and peak is not None:
            raise NsvitError("nullspace noise: give norm or peak, not both")
        self._require_some()
        shape = (n, self.nullity, self.patches)
        noise = self.basis @ torch.randn(shape, generator=generator, dtype=torch.float64)
        images = self._fold(noise)
        if norm is not None:
            images *= norm / images.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        if peak is not None:
            images *= peak / images.abs().amax(dim=(1, 2, 3), keepdim=True)
        return images.float()

    def fit_to_range(self, images: Tensor, noise: Tensor, iterations: int = 100) -> Tensor:
        """Nullspace noise near `noise` with `images + noise` in [0, 1], so that it can be a file.

        Alternating projections between the nullspace and the box, both convex and both containing
        zero; then each patch is scaled down until nothing sticks out.

        Args:
            images: (B, 3, H, W) pixels in [0, 1].
            noise: (B, 3, H, W) or (1, 3, H, W) to start from.
            iterations: pairs of projections at most.

        Returns:
            (B, 3, H, W) float32. Near-zero in patches where no noise fits (flat white paper).
        """
        pixels = self._unfold(images)
        low, high = -pixels, 1 - pixels
        fitted = self._project(self._unfold(noise.expand_as(images)))
        for _ in range(iterations):
            clipped = fitted.clamp(low, high)
            if (fitted - clipped).abs().max() <= RANGE_TOLERANCE:
                break
            fitted = self._project(clipped)
        room = torch.where(fitted < 0, pixels, high) + RANGE_TOLERANCE
        scale = (room / fitted.abs().clamp_min(1e-300)).amin(dim=1, keepdim=True).clamp(max=1)
        return put_in_range(images, self._fold(fitted * scale).float())

    def _require_some(self) -> None:
        if self.nullity == 0:
            raise NsvitError(
                f"model {self.architecture!r}: its patch embedding has nullity 0 (rank {self.rank} "
                f"of {self.basis.shape[0]} columns); there is no exact nullspace noise"
            )

    def _project(self, patches: Tensor) -> Tensor:
        """(B, c * r_h * r_w, N) float64 -> its nullspace component, by the smaller factor."""
        if self.rank < self.nullity:
            return patches - self.row_space @ (self.row_space.T @ patches)
        return self.basis @ (self.basis.T @ patches)

    def _unfold(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, c * r_h * r_w, N) float64, in the order of the conv weight."""
        if tuple(images.shape[2:]) != self.image_size:
            raise NsvitError(
                f"images of shape {tuple(images.shape)} do not fit model {self.architecture!r}: "
                f"expected (B, 3, {self.image_size[0]}, {self.image_size[1]})"
            )
        images = images.detach().to("cpu", torch.float64)
        return F.unfold(images, self.patch_size, stride=self.patch_size)

    def _fold(self, patches: Tensor) -> Tensor:
        return F.fold(patches, self.image_size, self.patch_size, stride=self.patch_size)


def put_in_range(images: Tensor, noise: Tensor) -> Tensor:
    """Moves the noise of pixels outside [0, 1] by as much as they stick out.

    Args:
        images: (B, 3, H, W) float32 pixels in [0, 1].
        noise: (B, 3, H, W) float32.

    Returns:
        Noise such that `images + noise`, as float32 adds, is in [0, 1] exactly.
    """
    noisy = images + noise
    return torch.where(noisy > 1, 1 - images, torch.where(noisy < 0, -images, noise))


def nullspace_basis(model: PixelModel, rtol: float = 1e-6) -> NullspaceBasis:
    """The nullspace of a model's patch embedding, by SVD in float64.

    Args:
        model: a plain ViT with a linear patch embedding.
        rtol: singular values not above `rtol` times the largest count as zero. The default lies
            between float32 rounding of the weights (1e-7) and anything that training leaves.

    Raises:
        NsvitError: it is no `PixelModel`, has no linear patch embedding or no plain blocks, or its
            weights are not finite.
    """
    check_model(model, "nullspace")
    model.token_shape  # noqa: B018 - refuses what is not a plain ViT (Swin has a linear stem)
    projection = model.projection
    weight = projection.weight.detach().to("cpu", torch.float64)
    if not bool(weight.isfinite().all()):
        raise NsvitError(f"model {model.architecture!r}: NaN or inf in the patch embedding")
    matrix = (weight / model.std.detach().to("cpu", torch.float64)).flatten(1)
    _, values, rows = torch.linalg.svd(matrix, full_matrices=True)
    rank = int((values > rtol * values[0]).sum())
    return NullspaceBasis(
        basis=rows[rank:].T.contiguous(),
        row_space=rows[:rank].T.contiguous(),
        singular_values=values,
        rtol=rtol,
        patch_size=(int(projection.kernel_size[0]), int(projection.kernel_size[1])),
        image_size=model.image_size,
        architecture=model.architecture,
    )
