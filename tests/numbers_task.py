"""A task of networks that answer with numbers, and its evaluator, as files that a test adds (``added_task``)."""

TASK = '''
"""Numbers about a face, from its crop and where it is, or from a clip of it."""

from dataclasses import dataclass

import cv2
import numpy as np

from edge_sdk.results import NO_TIMES, Mark
from edge_sdk.target import infer
from edge_targets.conformance.several_inputs import CROP, FRAMES, NumbersHead


@dataclass(frozen=True)
class Numbers:
    values: np.ndarray
    times: object = NO_TIMES
    target: str = ""
    device: str = ""

    def __len__(self):
        return 1

    def to_dict(self):
        return {"values": self.values.tolist()}

    def describe(self):
        return " ".join(f"{value:.2f}" for value in self.values)

    def marks(self, boxes, size):
        return [Mark(box, self.describe()) for box in ([(0, 0, *size)] if boxes is None else boxes)]


class NumbersTask:
    faces = "given"

    def __init__(self, spec, *, confidence=None):
        self.spec = spec

    def preprocess(self, image, color="rgb", box=None):
        height, width = image.shape[:2]
        x1, y1, x2, y2 = (0, 0, width, height) if box is None else (int(v) for v in box)
        face = cv2.resize(np.ascontiguousarray(image[y1:y2, x1:x2]), (CROP, CROP), interpolation=cv2.INTER_AREA)
        place = ((x1 + x2) / width - 1, (y1 + y2) / height - 1, (x2 - x1) / width, (y2 - y1) / height)
        made = {
            "crop": face[None],
            "clip": np.stack([np.roll(face, step, 1) for step in range(FRAMES)])[None],
            "vector": np.array([place], np.float32),
        }
        return {t.name: made[t.name] for t in self.spec.given}, None

    def run(self, session, image, *, boxes=None, color="rgb", state=None, target=""):
        inputs, _ = self.preprocess(image, color, None if boxes is None else boxes[0])
        values = infer(session, inputs, state)["answer"][0].copy()
        return Numbers(values, target=target, device=session.device)


HEAD, TASK = NumbersHead, NumbersTask
'''
EVALUATOR = '''
"""How far the numbers are from what numpy computes, over several steps of a network with state."""

import numpy as np

from edge_quantize.data import LabelledPicture, check_folder, pictures_in, read_pictures
from edge_quantize.metrics.base import box_of, face_inputs
from edge_quantize.report import Report, Sample, with_intervals
from edge_sdk.state import State
from edge_sdk.target import infer
from edge_targets.conformance.several_inputs import CLIP, PAIR

STEPS = 3


class NumbersEvaluator:
    metrics = gated = ("numbers_error",)
    class_means = frozenset()

    def is_labelled(self, folder, labels):
        return True

    def read_labelled(self, folder, labels):
        check_folder(folder)
        items = []
        for index, path in enumerate(pictures_in(folder)):
            left, size = index % 5 / 10, 0.4 + index % 3 / 10
            box = np.array([[0, 0, 1, 1] if index % 4 == 0 else [left, 0.1, left + size, 0.1 + size]])
            items.append(LabelledPicture(path, box, np.array([index // 3 % len(labels)])))
        return items

    def examine(self, session, task, items, progress=lambda done, total: None):
        spec, errors = task.spec, []
        compute = CLIP.compute if spec.state else PAIR.compute
        for done, (item, image) in enumerate(read_pictures(items)):
            inputs, _ = task.preprocess(image, "rgb", box_of(item, image))
            ours, theirs = State(spec), State(spec)
            for _ in range(STEPS):
                answer = infer(session, inputs, ours)["answer"].copy()
                wanted = compute({**inputs, **theirs.tensors})
                theirs.update(wanted)
            errors.append(float(np.abs(answer - wanted["answer"]).mean()))
            progress(done + 1, len(items))
        errors = np.array(errors)

        def figures(weights, names=self.metrics):
            return {"numbers_error": float(np.average(errors, weights=weights))}

        whole = figures(np.ones(len(errors)))
        per_class = {"first": {"error": whole["numbers_error"], "faces": float(len(errors))}}
        sample = Sample(figures, {"numbers_error": len(errors)}, ("",) * len(errors))
        return Report(with_intervals(whole, figures, len(errors), 0), per_class, [], sample=sample)

    def calibration_inputs(self, task, item, image, reference):
        return face_inputs(task, item, image)

    def answered(self, task, outputs):
        return {"numbers": outputs["answer"]}


EVALUATOR = NumbersEvaluator()
'''
