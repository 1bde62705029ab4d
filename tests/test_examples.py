"""The examples run as they are printed."""

import subprocess
import sys
from pathlib import Path

import pytest

skimage_data = pytest.importorskip("skimage.data", reason="scikit-image brings the public-domain portrait")
pytest.importorskip("onnxruntime", reason="an engine is needed")

from edge_sdk import zoo  # noqa: E402
from edge_sdk.boxes import iou  # noqa: E402
from edge_sdk.image import write_image  # noqa: E402
from edge_sdk.model import load  # noqa: E402
from edge_sdk.target import available_targets  # noqa: E402

ROOT = Path(__file__).parents[1]


def test_one_picture_names_the_face(tmp_path):
    write_image(tmp_path / "portrait.png", skimage_data.astronaut())
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "one_picture.py"), str(tmp_path / "portrait.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("happy ")


@pytest.mark.parametrize("shipped", zoo.bundles("fer-yolo11n"), ids=lambda b: b.file)
def test_every_shipped_bundle_finds_the_smile(shipped):
    import numpy as np

    if shipped.target not in available_targets():
        pytest.skip(f"{shipped.target} is not installed")
    with load(shipped.path) as model:
        assert model.info.sha256 == shipped.sha256
        found = model(skimage_data.astronaut())
        assert found.labels[0] == "happy"
        # Where a detector of another family sees this face.
        assert iou(found.boxes[:1], np.array([[179, 53, 268, 174]], np.float32))[0, 0] > 0.5
        for photograph in (skimage_data.chelsea(), skimage_data.rocket()):
            assert len(model(photograph)) == 0
