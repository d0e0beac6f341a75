"""The embedded benchmark: pictures drawn from a seed, in ImageNet's layouts. No torch.

Classes differ by shape; colour, texture and scene only correlate with the class, so they are
shortcuts a model may take, as in photographs. Each shifted sibling of ImageNet has a small
counterpart: fresh pictures (v2), natural mistakes (a), renditions (r), sketches, replaced
textures (stylized) and published corruptions (c). Attacked pictures (damagenet) need torch and
are made by `nsvit.transfer`.
"""

from nsvit.data.menagerie.write import render_set, render_to, write_classes

__all__ = ["render_set", "render_to", "write_classes"]
