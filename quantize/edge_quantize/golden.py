"""Golden cases: inputs and answers with which a device proves that it computes what the host did."""

from __future__ import annotations

import numpy as np

from edge_sdk.bundle import MIN_GOLDEN_SNR_DB, GoldenCase
from edge_sdk.errors import CompileFailed
from edge_sdk.image import Image
from edge_sdk.state import State
from edge_sdk.target import Session
from edge_sdk.tasks import Task
from edge_sdk.tensors import Tensors
from edge_sdk.verify import snr_db

STEPS = 3
"""Steps of a recurrent network, the first from zeros: each is a case with what was remembered before it."""


def golden_cases(session: Session, task: Task) -> tuple[GoldenCase, ...]:
    """What a network answers to the golden frame: one case, or of a recurrent network one per step.

    Args:
        session: of the network as it will be shipped.
        task: makes its inputs and reads its outputs.

    Raises:
        CompileFailed: an output's values are too large or too small for the float16 that a case keeps them in.
    """
    frame, spec = golden_frame(), task.spec
    made = {name: array.copy() for name, array in task.preprocess(frame)[0].items()}
    if not spec.state:
        return (GoldenCase(_halves(session.infer(made)), frame),)
    state, cases = State(spec), list[GoldenCase]()
    for _ in range(STEPS):
        remembered = {name: array.copy() for name, array in state.tensors.items()}
        outputs = session.infer({**made, **remembered})
        cases.append(GoldenCase(_halves(outputs), frame, remembered))
        state.update(outputs)
    return tuple(cases)


def golden_frame() -> Image:
    """A drawn test card, 240x180: gradients of three different colours, and two cartoon faces.

    Drawn, not photographed, so that every bundle can carry it; asymmetric in colour and place, so that swapped
    channels, a mirrored picture or a shifted letterbox change the answer.
    """
    height, width = 180, 240
    y, x = np.mgrid[0:height, 0:width]
    frame = np.stack((x * 255 // width, y * 200 // height, 255 - (x + y) * 255 // (width + height)), 2)
    for cx, cy, r, tone in ((80, 80, 52, (224, 172, 140)), (185, 125, 34, (120, 84, 60))):
        for part_x, part_y, part_w, part_h, colour in (
            (0, 0, 0.8, 1.0, tone),
            (-0.32, -0.25, 0.14, 0.09, (250, 250, 250)),
            (0.32, -0.25, 0.14, 0.09, (250, 250, 250)),
            (-0.32, -0.25, 0.06, 0.07, (20, 20, 30)),
            (0.32, -0.25, 0.06, 0.07, (20, 20, 30)),
            (0, 0.1, 0.09, 0.16, tuple(c * 4 // 5 for c in tone)),
            (0, 0.5, 0.3, 0.12, (150, 40, 50)),
        ):
            inside = ((x - cx - part_x * r) / (part_w * r)) ** 2 + (
                (y - cy - part_y * r) / (part_h * r)
            ) ** 2 <= 1
            frame[inside] = colour
    return frame.astype(np.uint8)


def _halves(outputs: Tensors) -> Tensors:
    """Outputs in float16, as a bundle keeps them; refused if a device could not be held against them."""
    with np.errstate(over="ignore"):
        halves = {name: array.astype(np.float16) for name, array in outputs.items()}
    for name, half in halves.items():
        if not snr_db(half, outputs[name]) >= MIN_GOLDEN_SNR_DB:
            largest = float(np.abs(outputs[name]).max())
            raise CompileFailed(
                f"output {name!r} reaches {largest:g} on the golden frame: the float16 of a golden case cannot hold it",
                remedy="scale the output in the graph to between 0.001 and 60000, and back in the task",
            )
    return halves
