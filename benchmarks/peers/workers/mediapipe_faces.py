"""MediaPipe's short-range face detector: boxes and no expression. One graph in C++, so the engine is not seen apart."""

from protocol import serve


class MediaPipe:
    def __init__(self, settings):
        import mediapipe

        self.detector = mediapipe.solutions.face_detection.FaceDetection(model_selection=0)
        self.engine_ns = None

    def native(self, rgb):
        return rgb

    def __call__(self, frame):
        return len(self.detector.process(frame).detections or ())


serve(MediaPipe)
