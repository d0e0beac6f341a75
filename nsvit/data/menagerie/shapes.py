"""The shape of each class: the only thing that always tells it apart.

One function per class draws one individual: a list of parts, back to front.
"""

from __future__ import annotations

import math

import numpy as np

from nsvit.data.menagerie.geometry import Material, Part, arc, box, disc, oval, polygon

Rng = np.random.Generator
HOLE, MAIN, SECOND, THIRD, DARK, LIGHT = Material


def bird(rng: Rng) -> list[Part]:
    """Perched, in profile: oval body, round head, beak, folded wing, tail, two legs."""
    head_x, head_y, head = -0.45, -rng.uniform(0.28, 0.5), rng.uniform(0.2, 0.28)
    tail = polygon((0.35, -0.05), (0.95, -rng.uniform(0.1, 0.35)), (0.95, 0.15), (0.4, 0.3))
    neck = polygon(
        (-0.35, 0.2), (head_x - 0.6 * head, head_y), (head_x + head, head_y), (0.1, -0.15)
    )
    beak = polygon(
        (head_x - 0.8 * head, head_y - 0.1),
        (head_x - head - rng.uniform(0.2, 0.4), head_y + 0.06),
        (head_x - 0.8 * head, head_y + 0.12),
    )
    wing = polygon((-0.15, -0.05), (0.6, rng.uniform(-0.5, 0.3)), (0.3, 0.3), (0.0, 0.25))
    return [
        Part(tail, SECOND),
        Part(box(-0.05, 0.35, 0.0, 0.85), DARK),
        Part(box(0.13, 0.35, 0.18, 0.85), DARK),
        Part(oval(0.05, 0.1, 0.52, 0.36, -0.2), MAIN),
        Part(neck, MAIN),
        Part(disc(head_x, head_y, head), MAIN),
        Part(beak, THIRD),
        Part(wing, SECOND),
        Part(disc(head_x - 0.06, head_y - 0.04, 0.05), DARK),
    ]


def butterfly(rng: Rng) -> list[Part]:
    """From above: two large and two small wings, often eyespots, a slim body, two feelers."""
    splay = rng.uniform(0.4, 0.8)
    fore, hind = rng.uniform(0.36, 0.48), rng.uniform(0.24, 0.36)
    parts = []
    for side in (-1, 1):
        parts.append(Part(oval(side * 0.45, 0.42, hind, 1.05 * hind, side * 0.6), SECOND))
        parts.append(Part(oval(side * 0.5, -0.32, fore, 0.75 * fore, -side * splay), MAIN))
    if rng.random() < 0.75:
        for side in (-1, 1):
            parts.append(Part(oval(side * 0.58, -0.38, 0.42 * fore, 0.35 * fore), THIRD))
            parts.append(Part(disc(side * 0.46, 0.45, 0.45 * hind), THIRD))
    parts.append(Part(oval(0, 0.05, 0.075, 0.6), DARK))
    for side in (-1, 1):
        feeler = polygon((-0.02, -0.5), (side * 0.3, -0.9), (side * 0.25, -0.93), (0.02, -0.5))
        parts.append(Part(feeler, DARK))
    return parts


def fish(rng: Rng) -> list[Part]:
    """In profile: oval body, forked tail, back fin, sometimes a side fin and bars."""
    height = rng.uniform(0.28, 0.5)
    tail = polygon(
        (0.45, 0), (0.98, -rng.uniform(0.3, 0.5)), (0.85, 0), (0.98, rng.uniform(0.3, 0.5))
    )
    fin_top = -height - rng.uniform(0.1, 0.3)
    parts = [
        Part(tail, SECOND),
        Part(polygon((-0.2, -0.8 * height), (0.2, fin_top), (0.4, -0.5 * height)), SECOND),
        Part(oval(-0.1, 0, 0.68, height), MAIN),
    ]
    if rng.random() < 0.6:
        fin = polygon((0, 0.1 * height), (0.3, 0.1 * height + 0.25), (0.25, -0.02))
        parts.append(Part(fin, SECOND))
    if rng.random() < 0.5:
        parts += [Part(oval(x, 0, 0.05, 0.8 * height), THIRD) for x in (-0.15, 0.1)]
    eye = -0.25 * height
    parts += [Part(disc(-0.52, eye, 0.1), LIGHT), Part(disc(-0.54, eye, 0.055), DARK)]
    return parts


def boat(rng: Rng) -> list[Part]:
    """A sailing boat: trapezoid hull, mast, mainsail and usually a jib."""
    draught = rng.uniform(0.3, 0.42)
    hull = polygon((-0.85, 0.4), (0.9, 0.4), (0.6, 0.4 + draught), (-0.6, 0.4 + draught))
    parts = [
        Part(hull, MAIN),
        Part(box(-0.03, -0.95, 0.04, 0.4), DARK),
        Part(polygon((0.08, -0.9), (0.08, 0.3), (rng.uniform(0.55, 0.8), 0.3)), SECOND),
    ]
    if rng.random() < 0.8:
        jib = polygon((-0.08, -0.7), (-0.08, 0.3), (-rng.uniform(0.45, 0.7), 0.3))
        parts.append(Part(jib, THIRD))
    return parts


def car(rng: Rng) -> list[Part]:
    """In profile: cabin with two windows over a low body, two wheels, a lamp."""
    foot, top, rise = rng.uniform(0.4, 0.6), rng.uniform(0.25, 0.4), rng.uniform(0.4, 0.6)
    cabin = polygon((-foot - 0.1, 0), (-top, -rise), (top + 0.05, -rise), (foot + 0.15, 0))
    rim = -rise + 0.1
    rear = polygon((-foot + 0.08, -0.02), (-top + 0.05, rim), (-0.03, rim), (-0.03, -0.02))
    front = polygon((0.05, -0.02), (0.05, rim), (top, rim), (foot - 0.02, -0.02))
    body = polygon(
        (-0.95, 0.05), (-0.85, -0.05), (0.8, -0.08), (0.97, 0.1), (0.97, 0.38), (-0.97, 0.38)
    )
    parts = [Part(cabin, MAIN), Part(rear, LIGHT), Part(front, LIGHT), Part(body, MAIN)]
    for x in (-0.55, 0.55):
        parts += [Part(disc(x, 0.38, 0.22), DARK), Part(disc(x, 0.38, 0.1), THIRD)]
    parts.append(Part(box(-0.97, 0.1, -0.87, 0.2), LIGHT))
    return parts


def house(rng: Rng) -> list[Part]:
    """A front with a door and two windows under a gabled roof, sometimes chimney and skylight."""
    width, eaves, ridge = (
        rng.uniform(0.55, 0.75),
        rng.uniform(-0.15, 0.1),
        rng.uniform(-0.95, -0.65),
    )
    parts = []
    if rng.random() < 0.5:
        parts.append(Part(box(0.35 * width, ridge, 0.6 * width, eaves), DARK))
    roof = polygon((-width - 0.15, eaves), (rng.uniform(-0.2, 0.2), ridge), (width + 0.15, eaves))
    parts += [
        Part(box(-width, eaves, width, 0.85), MAIN),
        Part(roof, SECOND),
        Part(box(-0.14, 0.3, 0.14, 0.85), DARK),
    ]
    for x in (-0.62 * width, 0.62 * width):
        parts.append(Part(box(x - 0.12, 0.2, x + 0.12, 0.48), LIGHT))
    if rng.random() < 0.3:
        parts.append(Part(disc(0, eaves - 0.25, 0.1), LIGHT))
    return parts


def mug(rng: Rng) -> list[Part]:
    """A cylinder with an open rim, a ring handle and sometimes a band."""
    width, height = rng.uniform(0.42, 0.55), rng.uniform(0.5, 0.75)
    taper = rng.uniform(0.0, 0.12)
    bottom = arc(0, height - 0.03, width - taper, 0.15, math.pi, 0)
    body = np.concatenate([polygon((-width, -height)), bottom, polygon((width, -height))])
    parts = [
        Part(oval(width + 0.08, 0.05, 0.3, 0.36), MAIN),
        Part(oval(width + 0.08, 0.05, 0.17, 0.23), HOLE),
        Part(body, MAIN),
    ]
    if rng.random() < 0.5:
        inset = width - 0.3 * taper
        parts.append(Part(box(-inset, -0.15, inset, 0.15), SECOND))
    parts.append(Part(oval(0, -height, width, 0.16), THIRD))
    parts.append(Part(oval(0, -height + 0.02, 0.8 * width, 0.1), DARK))
    return parts


def flower(rng: Rng) -> list[Part]:
    """Five to nine petals around a disc, on a stem with up to two leaves."""
    petals, reach, middle = int(rng.integers(5, 10)), rng.uniform(0.32, 0.42), -0.25
    parts = [Part(box(-0.045, 0.1, 0.045, 1.0), SECOND)]
    if rng.random() < 0.8:
        parts.append(Part(oval(0.25, 0.65, 0.28, 0.1, -0.5), SECOND))
    if rng.random() < 0.5:
        parts.append(Part(oval(-0.25, 0.75, 0.28, 0.1, 0.5), SECOND))
    first, breadth = rng.uniform(0, 2 * math.pi), min(0.24, 1.15 / petals)
    for angle in first + 2 * math.pi * np.arange(petals) / petals:
        x, y = reach * math.cos(angle), middle + reach * math.sin(angle)
        parts.append(Part(oval(x, y, 0.3, breadth, float(angle)), MAIN))
    parts.append(Part(disc(0, middle, 0.2), THIRD))
    return parts


def mushroom(rng: Rng) -> list[Part]:
    """A domed cap, usually spotted, on a stem that widens downwards."""
    stem, height, width = rng.uniform(0.12, 0.24), rng.uniform(0.5, 0.85), rng.uniform(0.65, 0.95)
    dome = arc(0, 0, width, height, math.pi, 2 * math.pi)
    underside = polygon((0.6 * width, 0.1), (-0.6 * width, 0.1))
    parts = [
        Part(polygon((-stem, -0.1), (stem, -0.1), (1.3 * stem, 0.85), (-1.3 * stem, 0.85)), SECOND),
        Part(np.concatenate([dome, underside]), MAIN),
    ]
    if rng.random() < 0.75:
        for _ in range(int(rng.integers(3, 7))):
            angle, out = rng.uniform(1.12 * math.pi, 1.88 * math.pi), rng.uniform(0.25, 0.75)
            x, y = out * width * math.cos(angle), out * height * math.sin(angle) - 0.03
            parts.append(Part(oval(x, y, 0.1, 0.085), THIRD))
    return parts


def tree(rng: Rng) -> list[Part]:
    """A trunk under three stacked triangles or a round crown, sometimes with fruit."""
    parts = [Part(polygon((-0.1, 0.1), (0.1, 0.1), (0.14, 0.98), (-0.14, 0.98)), SECOND)]
    if rng.random() < 0.5:
        for tier in range(3):
            width, foot = 0.72 - 0.17 * tier, 0.55 - 0.45 * tier
            parts.append(Part(polygon((-width, foot), (0, foot - 0.72), (width, foot)), MAIN))
    else:
        for _ in range(int(rng.integers(4, 7))):
            x, y = rng.uniform(-0.42, 0.42), rng.uniform(-0.65, 0.15)
            parts.append(Part(oval(x, y, rng.uniform(0.28, 0.42), rng.uniform(0.26, 0.38)), MAIN))
    if rng.random() < 0.35:
        for _ in range(4):
            parts.append(Part(disc(rng.uniform(-0.35, 0.35), rng.uniform(-0.5, 0.15), 0.07), THIRD))
    return parts
