"""Where faces are in pictures that nobody boxed: YuNet's boxes, MediaPipe's face mesh, and both kept in one file.

YuNet: Wu and others, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20, 2023; its
weights were trained on WIDER FACE. The mesh: Kartynnik and others, arXiv 1907.06724. Both only label training pictures;
nothing of them is shipped.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_sdk.errors import InputError
from edge_sdk.image import Image
from edge_training.data import augment
from edge_training.data.portraits import HELD_OUT_EVERY, fer_box
from edge_training.reference_models import UltraLight

Floats = npt.NDArray[np.float32]

MESH = 478
"""Landmarks of a face mesh."""

# Indices into the mesh.
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""Outline from the middle of the forehead, by the person's left ear and the chin."""
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 234, 454, 127, 356, 61, 291, 17, 152)
"""Corners of eyes and mouth, the nose, cheeks and chin: what tells where a head is and how it is turned."""
RIGHT_EYE, LEFT_EYE = (33, 133), (362, 263)
LOWER_LIP, NOSE_BRIDGE, NOSE_TIP, CHIN, FOREHEAD = 17, 6, 4, 152, 10

_MESH_SIDE = 256
_SURE = 0.5
"""The mesh's own presence score from which it is believed."""


class YuNet:
    """OpenCV's ``FaceDetectorYN``: (H, W, 3) RGB to boxes, five points and scores.

    Args:
        model: the ONNX file.
        confidence: of a box to be told.

    Raises:
        InputError: no such file.
    """

    def __init__(self, model: Path, *, confidence: float = 0.6) -> None:
        if not model.is_file():
            raise InputError(f"no detector at {model}", remedy="fetch the peers' folder")
        # The first side is replaced before every picture.
        self._detector: Any = cv2.FaceDetectorYN.create(str(model), "", (320, 320), confidence, 0.3, 500)

    def found(self, image: Image) -> tuple[Floats, Floats, Floats]:
        """(N, 4) xyxy boxes, (N, 5, 2) points (right eye, left eye, nose, mouth corners) and (N,) scores."""
        height, width = image.shape[:2]
        self._detector.setInputSize((width, height))
        _, rows = self._detector.detect(np.ascontiguousarray(image[..., ::-1]))
        rows = np.zeros((0, 15), np.float32) if rows is None else rows.astype(np.float32)
        boxes = np.concatenate((rows[:, :2], rows[:, :2] + rows[:, 2:4]), 1)
        return boxes, rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14]

    def __call__(self, image: Image) -> Floats:
        """(N, 4) boxes alone, as :class:`~edge_training.reference_models.UltraLight` answers."""
        return self.found(image)[0]


class FaceMesh:
    """478 landmarks of a face whose box is known.

    Args:
        task: MediaPipe's ``face_landmarker.task``, a zip of TFLite files.

    Raises:
        InputError: the file is missing or holds no landmark network.
    """

    def __init__(self, task: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            with zipfile.ZipFile(task) as archive:
                content = archive.read("face_landmarks_detector.tflite")
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(
                f"cannot read the face mesh in {task}: {error}", remedy="fetch the teachers' folder"
            ) from error
        self._network: Any = Interpreter(model_content=content, num_threads=1)
        self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]["index"]
        outputs = {tuple(int(v) for v in o["shape"]): o["index"] for o in self._network.get_output_details()}
        self._mesh, self._presence = outputs[(1, 1, 1, 3 * MESH)], outputs[(1, 1, 1, 1)]

    def __call__(self, image: Image, box: Floats, points: Floats) -> tuple[Floats, float]:
        """(478, 2) landmarks in the picture's pixels, and how sure the network is that there is a face, 0 to 1.

        Args:
            image: (H, W, 3) RGB.
            box: (4,) xyxy of the face.
            points: (5, 2); the eyes say how the face is turned.
        """
        centre, size = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max())
        across = points[1] - points[0]
        angle = float(np.degrees(np.arctan2(across[1], across[0])))
        matrix = np.empty((2, 3))
        matrix[...] = cv2.getRotationMatrix2D(
            (float(centre[0]), float(centre[1])), angle, _MESH_SIDE / (1.5 * size)
        )
        matrix[:, 2] += _MESH_SIDE / 2 - centre
        crop = cv2.warpAffine(image, matrix, (_MESH_SIDE, _MESH_SIDE), borderMode=cv2.BORDER_REPLICATE)
        self._network.set_tensor(self._input, crop[None].astype(np.float32) / 255)
        self._network.invoke()
        mesh = self._network.get_tensor(self._mesh).reshape(MESH, 3)[:, :2]
        logit = float(self._network.get_tensor(self._presence).ravel()[0])
        back = cv2.invertAffineTransform(matrix)
        landmarks = mesh @ back[:, :2].T + back[:, 2]
        return landmarks.astype(np.float32), float(1 / (1 + np.exp(-logit)))


@dataclass(frozen=True)
class Marks:
    """Boxes and landmarks of pictures with one face each.

    Attributes:
        box: (N, 4) float32 xyxy pixels, the square that FER2013 would have cut.
        mesh: (N, 478, 2) float32 pixels.
        ok: (N,) bool: there is exactly one face, and the mesh believes in it. The other rows are zero.
    """

    box: Floats
    mesh: Floats
    ok: npt.NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file, whole or not at all."""
        partial = path.with_name(path.name + ".partial")
        try:
            with partial.open("wb") as f:
                np.savez(f, box=self.box, mesh=self.mesh, ok=self.ok)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path, rows: int) -> Marks:
        """What :meth:`save` wrote.

        Raises:
            InputError: unreadable, or not of ``rows`` pictures.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                marks = cls(stored["box"], stored["mesh"], stored["ok"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise InputError(
                f"cannot read {path}: {error}", remedy="delete it; it will be made anew"
            ) from error
        if marks.box.shape != (rows, 4) or marks.mesh.shape != (rows, MESH, 2) or marks.ok.shape != (rows,):
            raise InputError(
                f"{path} holds marks of {len(marks.ok)} pictures, expected {rows}",
                remedy="delete it; it will be made anew",
            )
        return marks


def mark(images: Sequence[Image], detector: YuNet, mesh: FaceMesh, *, border: float = 0.0) -> Marks:
    """Find the one face of each picture.

    Args:
        images: RGB, or grey (H, W).
        detector: says where the face is.
        mesh: says where its parts are.
        border: of flat grey around each picture while it is searched, in shares of its side: crops as tight as
            FER2013's are not found without.
    """
    count = len(images)
    marks = Marks(
        np.zeros((count, 4), np.float32), np.zeros((count, MESH, 2), np.float32), np.zeros(count, bool)
    )
    for i, image in enumerate(images):
        picture = augment.three_channels(image) if image.ndim == 2 else image
        # Detectors and mesh see at least 160 pixels.
        factor = max(1, round(160 / max(picture.shape[:2])))
        if factor > 1:
            size = (picture.shape[1] * factor, picture.shape[0] * factor)
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
        pad = round(border * picture.shape[0])
        if pad:
            picture = cv2.copyMakeBorder(
                picture, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(114, 114, 114)
            ).astype(np.uint8, copy=False)
        boxes, points, _ = detector.found(picture)
        if len(boxes) != 1:
            continue
        landmarks, presence = mesh(picture, boxes[0], points[0])
        if presence < _SURE:
            continue
        marks.box[i] = fer_box((boxes[0] - pad) / factor)
        marks.mesh[i] = (landmarks - pad) / factor
        marks.ok[i] = True
    return marks


def cached(path: Path, images: Sequence[Image], data: Path, *, border: float = 0.0) -> Marks:
    """:func:`mark` with the data folder's detector and mesh, kept in ``path``."""
    if path.exists():
        return Marks.read(path, len(images))
    detector = YuNet(data / "peers/yunet/yunet_s_640_640.onnx")
    marks = mark(
        images, detector, FaceMesh(data / "teachers/mediapipe_face/face_landmarker.task"), border=border
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    marks.save(path)
    return marks


def held_out(images: Sequence[Image], peer: UltraLight) -> npt.NDArray[np.bool_]:
    """Which portraits take part in no training: those that :func:`read_portraits` would keep out, by the same rule."""
    single = [i for i, image in enumerate(images) if len(peer(image)) == 1]
    out = np.zeros(len(images), bool)
    out[single[::HELD_OUT_EVERY]] = True
    return out
