"""Scenes without seams: every head has hair, shoulders and a room, or the room's edge means nothing.

Layouts, drawn by the size of face that is wanted, 14 to 310 pixels and evenly in its logarithm:

- *single*: one portrait fills the canvas;
- *mosaic*: rectangles of all sizes, each filled with a portrait, a face-free photograph, a part of a portrait without
  its face, or a bare FER2013 crop: a rectangle's edge says nothing about a face;
- *group*: rows of cut-out persons before a photograph, the front row hiding parts of the one behind;
- *bare*: FER2013 crops on flat grey, as the detection studies show them, among face-free squares;
- *empty*: photographs and animals with squares pasted on them, or rectangles of them at all sizes, and no face.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from edge_sdk.image import Image
from edge_training.data import augment, heads
from edge_training.data.heads import Placed, Portraits, square, transform
from edge_training.data.landmarks import OVAL, Floats, Marks
from edge_training.data.scenes import PAD

SMALLEST, LARGEST = 14, 310
"""Sides of faces in pixels on a canvas of 320."""

NOBODY = -1
"""In :attr:`NaturalScene.rows` and ``.portraits``: the face is not of that set."""

_HIDDEN = (0.2, 0.55)
"""Of a face of which less than the second share is seen nothing is asked; of less than the first it is not there."""


@dataclass
class NaturalScene:
    """A picture and who is in it.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        boxes: of each face, (4,) xyxy pixels.
        rows: of each face, its FER2013 row, or ``NOBODY``.
        portraits: of each face, its portrait, or ``NOBODY``.
        shown: of each face, 1 if all of its expression is seen, 0.5 behind sunglasses, 0 behind a mask.
        ignored: of each face, whether too little of it is seen to ask for a box or to call one false.
    """

    image: Image
    boxes: list[Floats] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    portraits: list[int] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    ignored: list[bool] = field(default_factory=list)

    def add(self, box: Floats, row: int, portrait: int, shown: float, *, ignored: bool = False) -> None:
        """Note one more face."""
        self.boxes.append(np.asarray(box, np.float32))
        self.rows.append(row)
        self.portraits.append(portrait)
        self.shown.append(shown)
        self.ignored.append(ignored)


class NaturalScenes:
    """Composes scenes.

    Args:
        faces: (N, 48, 48) grey FER2013 crops.
        labels: (N,) their classes: each is drawn as often as the root of its number.
        marks: of the crops; those that are not ok are shown bare only.
        portraits: with marks.
        backgrounds: face-free photographs.
        blended: share of heads that get a FER2013 face.
        hard: windows of face-free photographs in which a detector saw faces; a third of what shows no face is of them.
    """

    def __init__(
        self,
        faces: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        marks: Marks,
        portraits: Portraits,
        backgrounds: Sequence[Image],
        *,
        blended: float = 0.5,
        hard: Sequence[Image] = (),
    ) -> None:
        self.hard = hard
        self.faces, self.marks, self.portraits, self.backgrounds = faces, marks, portraits, backgrounds
        self.blended = blended
        self.yaw = heads.yaw_of(marks.mesh)
        classes = np.unique(labels)
        self._rows = [np.flatnonzero(labels == c) for c in classes]
        self._marked = [rows[marks.ok[rows]] for rows in self._rows]
        # A class without marked faces would have no head to be blended into.
        self._chance = np.sqrt(
            [len(rows) if len(marked) else 0 for rows, marked in zip(self._rows, self._marked, strict=True)]
        )
        if self._chance.any():
            self._chance = self._chance / self._chance.sum()

    def __call__(self, side: int, rng: np.random.Generator) -> NaturalScene:
        """One scene of any layout, degraded as pictures are."""
        size = side / 320 * float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
        kind = rng.random()
        if kind < 0.05:
            scene = self.empty(side, rng)
        elif kind < 0.12:
            scene = self.face_free_mosaic(size, side, rng)
        elif kind < 0.28:
            scene = self.bare(size, side, rng)
        elif size > 0.42 * side:
            scene = self.single(size, side, rng)
        elif kind < 0.55 and size < 0.3 * side:
            scene = self.group(size, side, rng)
        else:
            scene = self.mosaic(size, side, rng)
        scene.image = heads.degraded(scene.image, rng)
        return scene

    # Layouts.

    def single(self, size: float, side: int, rng: np.random.Generator) -> NaturalScene:
        """One portrait whose face has that size, larger where the portrait would not fill the canvas."""
        scene = NaturalScene(np.full((side, side, 3), PAD, np.uint8))
        self.fill(scene, (0, 0, side, side), size, rng)
        return scene

    def mosaic(self, size: float, side: int, rng: np.random.Generator) -> NaturalScene:
        """Rectangles, most with a face of about that size or larger."""
        scene = NaturalScene(np.full((side, side, 3), PAD, np.uint8))
        tile = size * float(rng.uniform(1.7, 3.0))
        for place in rectangles((0, 0, side, side), tile, rng):
            x1, y1, x2, y2 = place
            least = min(x2 - x1, y2 - y1)
            kind = rng.random()
            if kind < 0.66 and least > 10:
                self.fill(scene, place, float(np.clip(size * rng.uniform(0.8, 1.25), 8, least)), rng)
            elif kind < 0.74 and least > 14:
                self._fill_with_crop(scene, place, rng)
            else:
                scene.image[y1:y2, x1:x2] = self.face_free((x2 - x1, y2 - y1), rng)
        return scene

    def group(
        self,
        size: float,
        side: int,
        rng: np.random.Generator,
        *,
        rows: int | None = None,
        alike: bool = False,
    ) -> NaturalScene:
        """Rows of people before a photograph.

        Args:
            size: of the faces in the front row.
            side: of the canvas.
            rng: where all draws come from.
            rows: of people; None draws it.
            alike: all faces have exactly that size.
        """
        scene = NaturalScene(self.face_free((side, side), rng))
        visible: list[tuple[int, npt.NDArray[np.bool_]]] = []
        count = rows or int(rng.integers(1, 4))
        step = size * float(rng.uniform(1.15, 2.0))
        bottom = float(rng.uniform(0.45, 0.98)) * side
        for row in range(count):
            away = count - 1 - row
            middle_y = bottom - size - away * step
            here = size if alike else size * float(rng.uniform(0.82, 1.1)) * 0.93**away
            gap = here * float(rng.uniform(1.25, 2.6))
            x = float(rng.uniform(-0.3, 0.5)) * gap
            while x < side + 0.3 * gap:
                if rng.random() < 0.88:
                    centre = (x + rng.normal(0, 0.06) * gap, middle_y + rng.normal(0, 0.12) * here)
                    one = here if alike else here * float(np.exp(rng.normal(0, 0.07)))
                    self._stand(scene, visible, one, centre, side, rng)
                x += gap
        for index, seen in visible:
            self._judge(scene, index, seen, side)
        return _without_gone(scene)

    def bare(self, size: float, side: int, rng: np.random.Generator) -> NaturalScene:
        """FER2013 crops of that size on flat grey or a photograph, and face-free squares like them."""
        flat = rng.random() < 0.75
        scene = NaturalScene(
            np.full((side, side, 3), PAD, np.uint8) if flat else self.face_free((side, side), rng)
        )
        size = min(size, side)
        taken: list[tuple[int, int, int]] = []
        count = 1 if size > side / 3 else int(rng.integers(1, 10))
        if count == 1 and rng.random() < 0.5:
            edge = round(size)
            places = [((side - edge) // 2, (side - edge) // 2, edge)]
        else:
            places = []
            for _ in range(count):
                edge = max(10, round(min(side, size * float(np.exp(rng.normal(0, 0.25))))))
                place = _free(taken, edge, side, rng)
                if place is not None:
                    places.append((*place, edge))
                    taken.append((*place, edge))
        for x, y, edge in places:
            if rng.random() < (0.9 if count == 1 else 0.72):
                image, box, row = self._crop(edge, rng)
                scene.image[y : y + edge, x : x + edge] = image
                scene.add(box + np.array([x, y, x, y], np.float32), row, NOBODY, 1.0)
            else:
                scene.image[y : y + edge, x : x + edge] = self.face_free((edge, edge), rng)
        return scene

    def empty(self, side: int, rng: np.random.Generator) -> NaturalScene:
        """No face: a photograph or a part of a portrait without its face, and squares of others on it."""
        image = self.face_free((side, side), rng)
        for _ in range(int(rng.integers(0, 6))):
            edge = int(np.exp(rng.uniform(np.log(14), np.log(0.6 * side))))
            x, y = (int(v) for v in rng.integers(0, side - edge + 1, 2))
            image[y : y + edge, x : x + edge] = self.face_free((edge, edge), rng)
        return NaturalScene(image)

    def face_free_mosaic(self, size: float, side: int, rng: np.random.Generator) -> NaturalScene:
        """Rectangles as :meth:`mosaic` has them for faces of that size, and no face."""
        scene = NaturalScene(np.full((side, side, 3), PAD, np.uint8))
        for x1, y1, x2, y2 in rectangles((0, 0, side, side), size * float(rng.uniform(1.2, 3.0)), rng):
            scene.image[y1:y2, x1:x2] = self.face_free((x2 - x1, y2 - y1), rng)
        return scene

    # Parts of layouts.

    def _head_row(self, portrait: int, rng: np.random.Generator) -> int:
        """The FER2013 row for a portrait: of a random class, that of eight which is turned most like it."""
        rows = self._marked[int(rng.choice(len(self._marked), p=self._chance))]
        drawn = rng.choice(rows, min(8, len(rows)), replace=False)
        return int(drawn[np.abs(self.yaw[drawn] - self.portraits.yaw[portrait]).argmin()])

    def _dress(self, head: Placed, portrait: int, rng: np.random.Generator) -> tuple[int, float]:
        """Blend a face in, hide parts of it; which row it was, and how much of its expression is seen."""
        row, shown = NOBODY, 1.0
        if self._chance.any() and rng.random() < self.blended:
            row = self._head_row(portrait, rng)
            heads.blend_face(head, self.faces[row], self.marks.mesh[row], rng)
        hidden = rng.random()
        parts: list[tuple[float, Callable[[Placed, np.random.Generator], None], float]] = [
            (0.09, heads.surgical_mask, 0.0),
            (0.13, heads.sunglasses, 0.5),
            (0.17, heads.hat, 1.0),
            (0.20, heads.hand, 0.5),
            (0.23, heads.hair_strip, 1.0),
        ]
        for below, draw, left in parts:
            if hidden < below:
                draw(head, rng)
                shown = left
                break
        return row, shown

    def fill(
        self, scene: NaturalScene, place: tuple[int, int, int, int], size: float, rng: np.random.Generator
    ) -> None:
        """Show a portrait in a rectangle, its face of that size or larger, so that it covers the rectangle."""
        x1, y1, x2, y2 = place
        index = int(rng.integers(len(self.portraits)))
        height, width = self.portraits.levels[index][0].shape[:2]
        scale = max(size / self.portraits.side_of(index), (x2 - x1) / width, (y2 - y1) / height)
        mirrored = bool(rng.random() < 0.5)
        linear = np.array([[-scale if mirrored else scale, 0.0], [0.0, scale]])
        box = self.portraits.marks.box[index]
        middle = linear @ ((box[:2] + box[2:]) / 2)
        # The picture covers the rectangle, and the face is in it where it fits.
        low = np.array([x2 - x1 - (0 if mirrored else width * scale), y2 - y1 - height * scale])
        high = np.array([width * scale if mirrored else 0.0, 0.0])
        half = min(scale * self.portraits.side_of(index) / 2, (x2 - x1) / 2, (y2 - y1) / 2)
        wanted = np.array([rng.uniform(half, x2 - x1 - half), rng.uniform(half, y2 - y1 - half)]) - middle
        matrix = np.concatenate((linear, np.clip(wanted, np.minimum(low, high), high)[:, None]), 1)
        if size > 40 and rng.random() < 0.3:
            matrix = _turned(matrix, middle + matrix[:, 2], float(rng.normal(0, 8)), 1.12)
        head = self.portraits.place(index, matrix, (x2 - x1, y2 - y1))
        if mirrored:
            head = _mirrored_marks(head)
        row, shown = self._dress(head, index, rng)
        scene.image[y1:y2, x1:x2] = head.image
        inside = _clipped(head.box, (x2 - x1, y2 - y1))
        seen = _area(inside) / max(1e-6, _area(head.box))
        if seen > _HIDDEN[0]:
            box = inside + np.array([x1, y1, x1, y1], np.float32)
            scene.add(box, row, index, shown if seen > 0.8 else 0.0, ignored=seen < _HIDDEN[1])

    def _fill_with_crop(
        self, scene: NaturalScene, place: tuple[int, int, int, int], rng: np.random.Generator
    ) -> None:
        """Show a bare FER2013 crop that covers a rectangle, or stands in it beside a face-free rest."""
        x1, y1, x2, y2 = place
        edge = min(x2 - x1, y2 - y1)
        image, box, row = self._crop(edge, rng)
        scene.image[y1:y2, x1:x2] = self.face_free((x2 - x1, y2 - y1), rng)
        scene.image[y1 : y1 + edge, x1 : x1 + edge] = image
        scene.add(box + np.array([x1, y1, x1, y1], np.float32), row, NOBODY, 1.0)

    def _stand(
        self,
        scene: NaturalScene,
        visible: list[tuple[int, npt.NDArray[np.bool_]]],
        size: float,
        centre: tuple[float, float],
        side: int,
        rng: np.random.Generator,
    ) -> None:
        """Draw a cut-out person over the picture."""
        index = int(rng.integers(len(self.portraits)))
        scale = size / self.portraits.side_of(index)
        mirrored = bool(rng.random() < 0.5)
        linear = np.array([[-scale if mirrored else scale, 0.0], [0.0, scale]])
        box = self.portraits.marks.box[index]
        height, width = self.portraits.levels[index][0].shape[:2]
        shift = np.array(centre) - linear @ ((box[:2] + box[2:]) / 2)
        corners = transform(np.array([[0, 0], [width, height]], np.float32), np.c_[linear, shift])
        low = np.maximum(np.floor(corners.min(0)).astype(int), 0)
        high = np.minimum(np.ceil(corners.max(0)).astype(int), side)
        if (high - low).min() < 4:
            return
        matrix = np.c_[linear, shift - low]
        head = self.portraits.place(
            index, matrix, (int(high[0] - low[0]), int(high[1] - low[1])), person=True
        )
        if mirrored:
            head = _mirrored_marks(head)
        row, shown = self._dress(head, index, rng)
        window = scene.image[low[1] : high[1], low[0] : high[0]]
        window[...] = (window + head.mask[..., None] * (head.image.astype(np.float32) - window)).astype(
            np.uint8
        )
        covered = head.mask > 0.5
        for _, seen in visible:
            seen[low[1] : high[1], low[0] : high[0]] &= ~covered
        mine = np.zeros((side, side), bool)
        oval = np.zeros((side, side), np.uint8)
        cv2.fillConvexPoly(oval, cv2.convexHull((head.mesh[list(OVAL)] + low).astype(np.int32)), 1)
        mine[...] = oval > 0
        visible.append((len(scene.boxes), mine))
        scene.add(head.box + np.array([*low, *low], np.float32), row, index, shown)

    def _judge(self, scene: NaturalScene, index: int, seen: npt.NDArray[np.bool_], side: int) -> None:
        """Ask less of faces that others or the canvas's edge hide."""
        whole = scene.boxes[index]
        # An upright oval fills about 0.6 of its square.
        share = float(seen.sum()) / max(1.0, 0.55 * _area(whole))
        inside = _clipped(whole, (side, side))
        share = min(share, _area(inside) / max(1e-6, _area(whole)))
        scene.boxes[index] = inside
        scene.ignored[index] = share < _HIDDEN[1]
        if share < 0.8:
            scene.shown[index] = 0.0
        if share < _HIDDEN[0]:
            scene.shown[index] = -1.0  # gone

    def _crop(self, edge: int, rng: np.random.Generator) -> tuple[Image, Floats, int]:
        """A bare crop of that side, its box and its row.

        The box is half way between the crop, which the detection studies take, and the square around the face.
        """
        rows = self._rows[int(rng.choice(len(self._rows), p=self._chance))]
        row = int(rng.choice(rows))
        face = self.faces[row]
        box = np.array([0, 0, 48, 48], np.float32)
        if self.marks.ok[row]:
            box = (box + self.marks.box[row]) / 2
        if edge < 48:
            face = augment.shrink(face, edge)
            box = box * np.float32(edge / 48)
        matrix = np.empty((2, 3))
        matrix[...] = cv2.getRotationMatrix2D(
            (face.shape[1] / 2, face.shape[0] / 2),
            float(rng.uniform(-6, 6)),
            edge / face.shape[0] * float(rng.uniform(0.96, 1.1)),
        )
        matrix[:, 2] += edge / 2 - face.shape[0] / 2 + rng.uniform(-0.03, 0.03, 2) * edge
        image = cv2.warpAffine(face, matrix, (edge, edge), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)
        image = augment.light(image, rng, strength=0.6)
        if rng.random() < 0.1:
            image = augment.erase(image, rng)
        box = square(transform(box.reshape(2, 2), matrix).reshape(4))
        if rng.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
            box = np.array([edge - box[2], box[1], edge - box[0], box[3]], np.float32)
        coloured = augment.colourise(image, rng) if rng.random() < 0.35 else augment.three_channels(image)
        return coloured, _clipped(box, (edge, edge)), row

    def face_free(self, size: tuple[int, int], rng: np.random.Generator) -> Image:
        """(height, width, 3) of a photograph, at times of a portrait below its face."""
        if self.hard and rng.random() < 0.33:
            return _window_of(self.hard[int(rng.integers(len(self.hard)))], size, rng, least=0.8)
        if rng.random() < 0.18:
            index = int(rng.integers(len(self.portraits)))
            photo = self.portraits.levels[index][0]
            # Neck and clothes, or hair and the room above.
            oval = self.portraits.marks.mesh[index][list(OVAL)]
            below, above = int(oval[:, 1].max()) + 6, int(oval[:, 1].min() - 0.1 * np.ptp(oval[:, 1]))
            photo = photo[below:] if photo.shape[0] - below >= above else photo[: max(above, 0)]
            if min(photo.shape[:2]) < 16:
                photo = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        else:
            photo = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        return _window_of(photo, size, rng)


def _window_of(photo: Image, size: tuple[int, int], rng: np.random.Generator, *, least: float = 0.4) -> Image:
    """A random window of a photograph, mirrored at random, resized to ``size`` (width, height)."""
    height, width = photo.shape[:2]
    share = float(rng.uniform(least, 1.0))
    scale = share * min(width / size[0], height / size[1])
    w, h = max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
    y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    window = photo[y : y + h, x : x + w]
    window = window[:, ::-1] if rng.random() < 0.5 else window
    flags = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(window), size, interpolation=flags).astype(np.uint8, copy=False)


def rectangles(
    place: tuple[int, int, int, int], tile: float, rng: np.random.Generator
) -> list[tuple[int, int, int, int]]:
    """Cut a rectangle in two, and each part again, until the parts are about as small as ``tile``."""
    x1, y1, x2, y2 = place
    width, height = x2 - x1, y2 - y1
    longer = max(width, height)
    # Some parts stay large: faces of several sizes in one picture.
    if longer < 1.6 * tile or (longer < 3.2 * tile and rng.random() < 0.15):
        return [place]
    cut = int(longer * rng.uniform(0.35, 0.65))
    if width >= height:
        parts = [(x1, y1, x1 + cut, y2), (x1 + cut, y1, x2, y2)]
    else:
        parts = [(x1, y1, x2, y1 + cut), (x1, y1 + cut, x2, y2)]
    return [r for part in parts for r in rectangles(part, tile, rng)]


def _turned(
    matrix: npt.NDArray[np.float64], centre: npt.NDArray[np.float64], degrees: float, scale: float
) -> npt.NDArray[np.float64]:
    """A matrix followed by a turn about a point."""
    turn = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), degrees, scale)
    return np.concatenate(
        (turn[:, :2] @ matrix[:, :2], (turn[:, :2] @ matrix[:, 2] + turn[:, 2])[:, None]), 1
    )


_PAIRS: tuple[tuple[int, int], ...] = (
    *((33, 263), (133, 362), (98, 327), (234, 454), (127, 356), (61, 291), (50, 280), (105, 334)),
    *((338, 109), (297, 67), (332, 103), (284, 54), (251, 21), (389, 162), (323, 93), (361, 132)),
    *((288, 58), (397, 172), (365, 136), (379, 150), (378, 149), (400, 176), (377, 148)),
)
"""Landmarks of the mesh that change places in a mirror: all that this package uses."""


def _mirrored_marks(head: Placed) -> Placed:
    """After a mirroring matrix: the person's right is left again."""
    mesh = head.mesh.copy()
    for a, b in _PAIRS:
        mesh[[a, b]] = mesh[[b, a]]
    return Placed(head.image, head.mask, mesh, head.box)


def _without_gone(scene: NaturalScene) -> NaturalScene:
    kept = NaturalScene(scene.image)
    for box, row, portrait, shown, ignored in zip(
        scene.boxes, scene.rows, scene.portraits, scene.shown, scene.ignored, strict=True
    ):
        if shown >= 0:
            kept.add(box, row, portrait, shown, ignored=ignored)
    return kept


def _clipped(box: Floats, size: tuple[int, int]) -> Floats:
    width, height = size
    return np.clip(box, 0, np.array([width, height, width, height])).astype(np.float32)


def _area(box: Floats) -> float:
    return float(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))


def _free(
    taken: Sequence[tuple[int, int, int]], edge: int, side: int, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Where a square covers none of ``taken`` (x, y, side), or None."""
    for _ in range(12):
        x, y = (int(v) for v in rng.integers(0, side - edge + 1, 2))
        if all(x + edge <= a or a + s <= x or y + edge <= b or b + s <= y for a, b, s in taken):
            return x, y
    return None
