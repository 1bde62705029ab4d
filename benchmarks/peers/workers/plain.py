"""What a programmer writes with onnxruntime and OpenCV in an afternoon, on our float network."""

import time

from protocol import CONFIDENCE, LABELS, on_canvas, serve

STRIDES, BINS = (8, 16, 32), 16


class Plain:
    def __init__(self, settings):
        import cv2
        import numpy as np
        import onnxruntime

        self.cv2, self.np, self.side = cv2, np, settings["side"]
        self.session = onnxruntime.InferenceSession(settings["network"], providers=["CPUExecutionProvider"])
        self.engine_ns = 0
        self.points = np.concatenate([self._points(self.side // stride, stride) for stride in STRIDES])

    def _points(self, cells, stride):
        y, x = self.np.mgrid[0:cells, 0:cells] + 0.5
        return self.np.stack((x.ravel() * stride, y.ravel() * stride, self.np.full(cells**2, stride)), 1)

    def native(self, rgb):
        return self.cv2.cvtColor(rgb, self.cv2.COLOR_RGB2BGR)

    def __call__(self, frame):
        return len(self.detect(frame)[0])

    def detect(self, bgr):
        cv2, np = self.cv2, self.np
        height, width = bgr.shape[:2]
        scale = self.side / max(height, width)
        small = cv2.resize(bgr, (round(width * scale), round(height * scale)))
        left, top = (self.side - small.shape[1]) // 2, (self.side - small.shape[0]) // 2
        canvas = np.full((self.side, self.side, 3), 114, np.uint8)
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        pixels = cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB)[None]
        before = time.perf_counter_ns()
        maps = self.session.run(
            [f"{kind}{s}" for kind in ("box", "cls") for s in STRIDES], {"pixels": pixels}
        )
        self.engine_ns = time.perf_counter_ns() - before
        sides = np.concatenate([m.reshape(-1, 4, BINS) for m in maps[:3]])
        scores = 1 / (1 + np.exp(-np.concatenate([m.reshape(-1, len(LABELS)) for m in maps[3:]])))
        weights = np.exp(sides - sides.max(2, keepdims=True))
        distances = (weights * np.arange(BINS)).sum(2) / weights.sum(2) * self.points[:, 2:]
        corners = np.concatenate(
            (self.points[:, :2] - distances[:, :2], self.points[:, :2] + distances[:, 2:]), 1
        )
        best, classes = scores.max(1), scores.argmax(1)
        boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1)
        kept = np.asarray(cv2.dnn.NMSBoxes(boxes.tolist(), best.tolist(), CONFIDENCE, 0.5), int).ravel()
        boxes[:, :2] -= (left, top)
        return boxes[kept] / scale, best[kept], classes[kept]

    def expression(self, grey):
        _, scores, classes = self.detect(on_canvas(grey, self.side))
        return int(classes[scores.argmax()]) if len(scores) else -1


serve(Plain)
