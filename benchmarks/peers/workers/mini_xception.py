"""OpenCV's Haar cascade for faces, then mini-XCEPTION on each, as its authors' demonstration does."""

import time

from protocol import serve


class MiniXception:
    def __init__(self, settings):
        import cv2
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter

        self.cv2, self.np = cv2, np
        self.cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
        self.engine = Interpreter(model_path=settings["network"])
        self.engine.allocate_tensors()
        self.entry = self.engine.get_input_details()[0]["index"]
        self.exit = self.engine.get_output_details()[0]["index"]
        self.engine_ns = 0

    def native(self, rgb):
        return self.cv2.cvtColor(rgb, self.cv2.COLOR_RGB2BGR)

    def __call__(self, frame):
        grey = self.cv2.cvtColor(frame, self.cv2.COLOR_BGR2GRAY)
        before = time.perf_counter_ns()
        faces = self.cascade.detectMultiScale(grey, 1.3, 5)
        self.engine_ns = time.perf_counter_ns() - before
        for x, y, w, h in faces:
            self.expression(grey[y : y + h, x : x + w])
        return len(faces)

    def expression(self, grey):
        small = self.cv2.resize(grey, (64, 64)).astype(self.np.float32)
        self.engine.set_tensor(self.entry, ((small / 255 - 0.5) * 2)[None, :, :, None])
        before = time.perf_counter_ns()
        self.engine.invoke()
        self.engine_ns += time.perf_counter_ns() - before
        return int(self.engine.get_tensor(self.exit)[0].argmax())


serve(MiniXception)
