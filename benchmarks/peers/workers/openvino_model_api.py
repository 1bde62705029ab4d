"""OpenVINO model_api on the network that Ultralytics exported; it puts resizing and scaling into the graph."""

from protocol import CONFIDENCE, LABELS, Timed, on_canvas, serve


class ModelApi:
    def __init__(self, settings):
        from model_api.models import Model

        self.model = Model.create_model(
            settings["network"],
            model_type="YOLO11",
            device="CPU",
            configuration={"confidence_threshold": CONFIDENCE, "labels": list(LABELS)},
        )
        self.timed = self.model.inference_adapter = Timed(self.model.inference_adapter, "infer_sync")
        self.engine_ns, self.side = 0, settings["side"]

    def native(self, rgb):
        return rgb[:, :, ::-1].copy()

    def __call__(self, frame):
        found = self.model(frame)
        self.engine_ns = self.timed.taken()
        return len(found.bboxes)

    def expression(self, grey):
        found = self.model(on_canvas(grey, self.side))
        return int(found.labels[found.scores.argmax()]) if len(found.scores) else -1


serve(ModelApi)
