"""Our weights in Ultralytics' YOLO11n, by its own exporter: one network, so that only the software differs.

Runs in Ultralytics' environment. Reads ``fer-yolo11n.safetensors``; writes ``fer.onnx``, ``fer_openvino_model`` and
``fer_int8_openvino_model`` into a folder. Nothing of it comes back into the product.

    python export_ultralytics.py WEIGHTS.safetensors CALIBRATION_FOLDER OUTPUT_FOLDER
"""

import os
import shutil
import sys
from pathlib import Path

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SIDE = 320
BLOCKS = {
    **{f"backbone.p3.{i}": i for i in range(5)},
    **{f"backbone.p4.{i}": 5 + i for i in range(2)},
    **{f"backbone.p5.{i}": 7 + i for i in range(4)},
    **{
        "neck.top4": 13,
        "neck.top3": 16,
        "neck.down3": 17,
        "neck.out4": 19,
        "neck.down4": 20,
        "neck.out5": 22,
    },
}
HEAD = "model.23"


def name_there(name):
    """What Ultralytics calls a parameter of ours."""
    block = next((b for b in BLOCKS if name.startswith(f"{b}.")), None)
    if block is None:
        _, kind, level, part, *rest = name.split(".")
        last = part == ("2" if kind == "box" else "4")
        place = part if kind == "box" else "2" if last else f"{int(part) // 2}.{int(part) % 2}"
        prefix = f"{HEAD}.{'cv2' if kind == 'box' else 'cv3'}.{level}.{place}"
        if last:
            return f"{prefix}.{rest[-1]}"
    else:
        prefix, rest = f"model.{BLOCKS[block]}", name[len(block) + 1 :].split(".")
    rest = [{"attention": "attn", "positional": "pe"}.get(part, part) for part in rest]
    rest[-2] = {"0": "conv", "1": "bn"}[rest[-2]]
    return ".".join((prefix, *rest))


def main(weights, pictures, folder):
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_CONFIG_DIR=str(folder / "settings"))
    from safetensors.torch import load_file
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    network = DetectionModel("yolo11n.yaml", nc=len(LABELS), verbose=False)
    state = {name_there(k): v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()}
    left = network.load_state_dict(state, strict=False)
    # The constants 0..15 of the box decoder are no weights of ours.
    if left.unexpected_keys or set(left.missing_keys) != {f"{HEAD}.dfl.conv.weight"}:
        raise SystemExit(f"the networks differ: {left}")
    network.names = dict(enumerate(LABELS))
    network.args = {"imgsz": SIDE, "task": "detect"}
    # The head's strides, as a trained checkpoint has them, came with the construction.
    model = YOLO("yolo11n.yaml", task="detect")
    model.model = network.eval()
    model.save(str(folder / "fer.pt"))
    calibration = folder / "calibration"
    (calibration / "images").mkdir(parents=True)
    (calibration / "labels").mkdir()
    for picture in sorted(pictures.glob("*.png")):
        shutil.copy(picture, calibration / "images")
        # Its loader wants a label for every picture; calibration reads none.
        (calibration / "labels" / f"{picture.stem}.txt").write_text("0 0.5 0.5 0.3 0.3\n")
    names = "".join(f"  {i}: {label}\n" for i, label in enumerate(LABELS))
    data = calibration / "data.yaml"
    data.write_text(f"path: {calibration}\ntrain: images\nval: images\nnames:\n{names}")
    os.chdir(folder)
    for options in ({"format": "onnx"}, {"format": "openvino"}, {"format": "openvino", "int8": True}):
        extra = {"data": str(data), "fraction": 1.0} if "int8" in options else {}
        YOLO(str(folder / "fer.pt")).export(imgsz=SIDE, device="cpu", **options, **extra)
    for name in ("fer.onnx", "fer_openvino_model", "fer_int8_openvino_model"):
        if not (folder / name).exists():
            raise SystemExit(f"the export wrote no {name}: {sorted(p.name for p in folder.iterdir())}")
    shutil.rmtree(calibration)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]).resolve())
