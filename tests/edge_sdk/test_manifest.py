"""Any manifest survives being written and read, and its bytes are the only way to write it."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.bundle import (
    Bundle,
    Coverage,
    DataDigest,
    FileEntry,
    GateMetric,
    GateResult,
    GoldenSpec,
    Manifest,
)
from edge_sdk.errors import ChecksumMismatch
from edge_sdk.image import FaceCrop, LetterboxSpec
from edge_sdk.spec import Gate, ModelSpec, Recipe, StatePair
from edge_sdk.tasks.classification import ClassificationHead
from edge_sdk.tasks.detection import DetectionHead
from edge_sdk.tasks.liveness import LABELS, LivenessHead
from edge_sdk.tensors import TensorSpec

DOCUMENT = Path(__file__).parents[2] / "docs" / "bundle.md"

texts = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12)
shares = st.floats(0.01, 0.99)
digests = st.builds(
    DataDigest, items=st.integers(1, 10**6), sha256=st.text("0123456789abcdef", min_size=64, max_size=64)
)
members = st.builds(
    "artifact/{}".format, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True, alphabet="aZ0._-")
)


@st.composite
def detectors(draw):
    head = DetectionHead(
        kind="detection",
        labels=tuple(draw(st.sets(texts, min_size=1, max_size=7))),
        letterbox=LetterboxSpec(draw(st.integers(0, 255)), draw(st.floats(0.1, 8))),
        strides=tuple(sorted(draw(st.sets(st.sampled_from([8, 16, 32]), min_size=1)))),
        bins=draw(st.integers(2, 32)),
        confidence=draw(shares),
        iou=draw(shares),
        max_faces=draw(st.integers(1, 1000)),
    )
    tensors = head.tensors(*(32 * draw(st.integers(1, 20)) for _ in range(2)))
    return ModelSpec(
        draw(texts), *tensors, head, draw(texts), provenance=tuple(draw(st.lists(texts, max_size=3)))
    )


@st.composite
def crop_networks(draw):
    crop = FaceCrop(draw(st.floats(0.5, 10)), draw(st.sampled_from(["repeat", "shift"])))
    labels = tuple(draw(st.sets(texts, min_size=1, max_size=7)))
    live = LivenessHead("liveness", LABELS, crop, draw(shares), draw(st.integers(1, 99)), draw(shares))
    head = draw(st.sampled_from([ClassificationHead("classification", labels, crop), live]))
    inputs, outputs = head.tensors(*(draw(st.integers(1, 640)) for _ in range(2)))
    state = ()
    if size := draw(st.sampled_from([0, 0, 8])):
        state = (StatePair("memory", "memory_next"),)
        inputs = (TensorSpec("memory", (1, size), "float32", "NC"), *inputs)
        outputs = (*outputs, TensorSpec("memory_next", (1, size), "float32", "NC"))
    return ModelSpec(draw(texts), inputs, outputs, head, draw(texts), state=state)


@st.composite
def manifests(draw):
    names = st.sampled_from(["map50", "accuracy", "f1"])
    spec, precision = draw(detectors() | crop_networks()), draw(st.sampled_from(["fp32", "int8"]))
    limits = draw(st.dictionaries(names, shares, min_size=1))
    waiver = draw(st.none() | texts)
    triples = st.tuples(shares, shares, shares)
    coverage = st.builds(
        Coverage, triples, triples, st.none() | triples, st.none() | st.dictionaries(texts, st.integers(0, 9))
    )
    metrics = {
        name: draw(
            st.builds(GateMetric, shares, shares, st.just(limit), st.none() | shares, st.none() | shares)
            if waiver is not None
            else st.builds(lambda at, limit=limit: GateMetric(at, at, limit, -limit / 2, limit / 2), shares)
        )
        for name, limit in limits.items()
    }
    return Manifest(
        schema=1,
        producer=draw(texts),
        spec=spec,
        recipe=Recipe(
            draw(texts),
            precision,
            draw(st.integers(1, 1000)) if precision == "int8" else 0,
            Gate(limits, draw(st.just(0.95) | st.floats(0.5, 0.99))),
            draw(st.sampled_from(["channel", "tensor"])),
            draw(st.sampled_from(["minmax", "mse", "percentile", "entropy"])),
            draw(st.sampled_from([None, True, False])),
            tuple(draw(st.lists(texts, max_size=2))),
        ),
        target=draw(st.sampled_from(["onnxruntime", "openvino", "tflite"])),
        inputs=tuple(draw(st.permutations([t.name for t in spec.inputs]))),
        outputs=tuple(draw(st.permutations([t.name for t in spec.outputs]))),
        fingerprint=draw(st.dictionaries(texts, texts, max_size=2)),
        calibration=dataclasses.replace(draw(digests), coverage=draw(st.none() | coverage))
        if precision == "int8"
        else None,
        gate=GateResult(
            draw(digests),
            metrics,
            draw(st.sampled_from([None, "onnxruntime"])),
            waiver,
        ),
        golden=GoldenSpec(draw(st.integers(1, 5)), draw(st.floats(20, 100))),
        files=draw(
            st.dictionaries(members, st.builds(FileEntry, st.integers(0), st.just("0" * 64)), max_size=3)
        ),
    )


@settings(max_examples=40, deadline=None)
@given(manifests())
def test_a_manifest_survives_its_bytes(manifest):
    data = manifest.to_bytes()
    assert data.isascii()
    assert Manifest.from_bytes(data) == manifest
    assert Manifest.from_bytes(data).to_bytes() == data


def test_the_order_in_which_a_table_was_filled_does_not_show():
    turned = dataclasses.replace(
        toys.bundle().manifest, files=dict(reversed(list(toys.bundle().manifest.files.items())))
    )
    assert turned.to_bytes() == toys.bundle().manifest.to_bytes()


def test_every_key_of_the_normative_table_is_there_and_no_other():
    manifest = json.loads(toys.bundle().manifest.to_bytes())
    table = DOCUMENT.read_text().split("`spec`: ")[0]
    rows = re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE)
    assert sorted(manifest) == sorted(rows)


def test_what_has_its_default_is_left_out_so_that_older_bundles_stay_the_same_bytes():
    manifest = json.loads(toys.bundle().manifest.to_bytes())
    assert set(manifest["recipe"]) == {"name", "precision", "calibration_items", "gate"}
    assert set(manifest["recipe"]["gate"]) == {"max_drop"}
    assert set(manifest["gate"]) == {"evaluation", "metrics"}
    assert set(manifest["gate"]["metrics"]["map50"]) == {"reference", "compiled", "max_drop"}
    assert "provenance" in manifest["spec"]


@pytest.mark.parametrize("written", [{"granularity": "channel"}, {"symmetric": None}, {"keep_float": []}])
def test_a_default_that_is_written_all_the_same_is_not_canonical(tmp_path, written):
    import zipfile

    bundle = toys.bundle()
    plain = json.loads(bundle.manifest.to_bytes())
    plain["recipe"] |= written
    data = json.dumps(plain, indent=2, sort_keys=True).encode() + b"\n"
    assert Manifest.from_bytes(data) == bundle.manifest
    with zipfile.ZipFile(tmp_path / "odd.edge", "w") as archive:
        for name, content in {"manifest.json": data, **bundle.files}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    with pytest.raises(ChecksumMismatch, match="prescribes"):
        Bundle.open(tmp_path / "odd.edge")
