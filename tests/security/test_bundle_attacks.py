"""Attempts on the reader: each must end in a typed error, and no engine may see a byte of a refused file."""

import dataclasses
import hashlib
import io
import json
import random
import re
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

import edge_sdk as edge
from edge_sdk import bundle as format1
from edge_sdk import zoo
from edge_sdk.bundle import Bundle, GoldenCase
from edge_sdk.errors import BundleError, ChecksumMismatch, ManifestInvalid
from edge_sdk.target import Artifact


@pytest.fixture(scope="module")
def whole():
    return toys.bundle().to_bytes()


@pytest.fixture
def refused(tmp_path, toy_engine):
    """Assert that loading these bytes raises a BundleError and that no engine was asked."""

    def check(data, error=BundleError, match=None):
        path = tmp_path / "attack.edge"
        path.write_bytes(data)
        with pytest.raises(error, match=match) as caught:
            edge.load(path)
        assert toy_engine.loads == 0
        assert caught.value.exit_code == 4
        assert caught.value.remedy

    return check


def members(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def pack(entries, compression=zipfile.ZIP_STORED):
    """An archive of entries, written the way the format wants it apart from what the attack changes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, compression
            archive.writestr(info, data)
    return out.getvalue()


def with_manifest(data, change):
    """The same bundle with another manifest, hashed and packed anew."""
    entries = dict(members(data))
    manifest = json.loads(entries["manifest.json"])
    changed = change(manifest)
    manifest = manifest if changed is None else changed
    text = json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n"
    return pack([("manifest.json", text), *[(n, d) for n, d in entries.items() if n != "manifest.json"]])


def test_the_untouched_file_loads(tmp_path, whole, toy_engine):
    path = tmp_path / "good.edge"
    path.write_bytes(whole)
    assert pack(members(whole)) == whole
    edge.load(path).close()
    assert toy_engine.loads == 1


def test_a_flipped_bit_anywhere_is_noticed(whole, refused):
    draw = random.Random(7)
    places = [draw.randrange(len(whole)) for _ in range(250)]
    # Headers are few among the bytes, so look at all of the first and last of them.
    places += [*range(64), *range(len(whole) - 600, len(whole), 3)]
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << draw.randrange(8)
        refused(bytes(data))


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_noticed(whole, refused, share):
    refused(whole[: int(len(whole) * share)], ChecksumMismatch)


@pytest.mark.parametrize("cut", [1, 2, 21, 22, 23, 100])
def test_a_missing_end_is_noticed(whole, refused, cut):
    refused(whole[:-cut], ChecksumMismatch)


@pytest.mark.parametrize("junk", [b"x", b"PK", b"\0" * 100])
def test_bytes_before_or_after_are_noticed(whole, refused, junk):
    refused(junk + whole)
    refused(whole + junk)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "artifact/../../evil",
        "/etc/passwd",
        "artifact//x",
        "artifact\\x",
        "C:\\x",
        "artifact/.hidden",
        "artifact/sub/x",
        "golden/x/frame.npy",
        "golden/100/frame.npy",
        "artifact/",
        "other.txt",
        "artifact/" + "x" * 65,
        "artifact/\u00e4",
        "artifact/model.onnx\n",
    ],
)
def test_a_member_name_outside_the_format_is_refused(whole, refused, name):
    refused(pack([*members(whole), (name, b"x")]), ManifestInvalid, "member")


def test_a_symbolic_link_is_refused(whole, refused):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members(whole):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = (
                3,
                (0o120777 if name.startswith("artifact") else 0o644) << 16,
            )
            archive.writestr(info, data)
    refused(out.getvalue(), ChecksumMismatch)


def test_nothing_is_written_outside_the_folder(tmp_path, whole, refused):
    refused(pack([*members(whole), ("../../evil", b"x")]))
    assert [p.name for p in tmp_path.iterdir()] == ["attack.edge"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice_is_refused(whole, refused):
    entries = members(whole)
    refused(pack([*entries, entries[-1]]), ManifestInvalid, "distinct")


def test_compressed_members_are_refused(whole, refused):
    refused(pack(members(whole), zipfile.ZIP_DEFLATED), ManifestInvalid, "compressed")


def test_a_member_that_claims_to_be_encrypted_is_refused(whole, refused):
    data = bytearray(whole)
    central = data.rfind(b"PK\x01\x02")
    data[central + 8] |= 1
    refused(bytes(data), ManifestInvalid, "encrypted")


def test_another_order_of_members_is_refused(whole, refused):
    first, *others = members(whole)
    refused(pack([first, *reversed(others)]), ChecksumMismatch)


def test_too_many_members_are_refused(whole, refused):
    extra = [(f"artifact/x{i}", b"") for i in range(format1.MAX_FILES)]
    refused(pack([*members(whole), *extra]), ManifestInvalid, "members")


def test_a_member_that_the_manifest_does_not_list_is_refused(whole, refused):
    refused(
        pack([*members(whole), ("artifact/zz", b"x")]), ManifestInvalid, r"artifact/zz is only in the archive"
    )


def test_a_listed_member_that_is_missing_is_refused(whole, refused):
    entries = [e for e in members(whole) if e[0] != "artifact/model.onnx"]
    refused(pack(entries), ManifestInvalid, "only in the manifest")


def test_another_artifact_under_the_old_hash_is_refused(whole, refused):
    entries = [(n, b"evl" if n == "artifact/model.onnx" else d) for n, d in members(whole)]
    refused(pack(entries), ChecksumMismatch, r"artifact/model\.onnx")


def test_no_manifest_is_refused(whole, refused):
    refused(pack(members(whole)[1:]), ManifestInvalid, r"no manifest\.json")


def test_a_huge_manifest_is_refused(whole, refused):
    entries = [("manifest.json", b" " * (format1.MAX_MANIFEST_BYTES + 1)), *members(whole)[1:]]
    refused(pack(entries), ManifestInvalid, "larger")


def test_a_huge_file_is_refused_unread(tmp_path, whole, monkeypatch, refused):
    monkeypatch.setattr(format1, "MAX_BYTES", len(whole) - 1)
    refused(whole, ManifestInvalid, "bytes")


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.5, [1]])
def test_another_schema_version_is_refused(whole, refused, version):
    refused(with_manifest(whole, lambda m: m.update(schema=version)), ManifestInvalid, "schema version")


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("spec",),
        ("spec", "inputs", 0),
        ("spec", "head"),
        ("spec", "head", "letterbox"),
        ("recipe",),
        ("recipe", "gate"),
        ("gate",),
        ("gate", "evaluation"),
        ("gate", "metrics", "map50"),
        ("golden",),
        ("files", "artifact/model.onnx"),
    ],
)
def test_an_unknown_key_is_refused_at_every_level(whole, refused, path):
    def change(manifest):
        for key in path:
            manifest = manifest[key]
        manifest["surprise"] = 1

    refused(with_manifest(whole, change), ManifestInvalid, "surprise")


@pytest.mark.parametrize(
    "key", ["spec", "recipe", "target", "outputs", "gate", "golden", "files", "producer"]
)
def test_a_missing_key_is_refused(whole, refused, key):
    refused(with_manifest(whole, lambda m: {k: v for k, v in m.items() if k != key}), ManifestInvalid, key)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b"null", b"\xff\xfe", b'{"schema": 1, "schema": 1}', b"[" * 100_000]
)
def test_a_manifest_that_is_no_json_object_is_refused(whole, refused, text):
    refused(pack([("manifest.json", text), *members(whole)[1:]]), ManifestInvalid)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "20", None, True])
def test_a_limit_that_is_no_number_is_refused(whole, refused, value):
    refused(
        with_manifest(whole, lambda m: m["golden"].update(min_snr_db=value)), ManifestInvalid, "min_snr_db"
    )


@pytest.mark.parametrize("value", [-1e9, 0, 19.99])
def test_a_limit_below_what_a_build_writes_proves_nothing_and_is_refused(whole, refused, value):
    refused(
        with_manifest(whole, lambda m: m["golden"].update(min_snr_db=value)), ManifestInvalid, "at least 20"
    )


def of_gate(**changes):
    return lambda m: m["gate"]["metrics"]["map50"].update(changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_gate(compiled=0.5), r"map50 became worse by 0\.4"),
        (of_gate(low=-0.5, high=0.0), r"at most 0\.5"),
        (of_gate(compiled=0.5, max_drop=0.5), "the recipe's is 0.01"),
        (of_gate(max_drop=1e9), "the recipe's is 0.01"),
        (
            lambda m: (of_gate(max_drop=7)(m), m["recipe"]["gate"]["max_drop"].update(map50=7)),
            "between 0 and 1",
        ),
        (lambda m: m["recipe"]["gate"].update(confidence=0.01), "confidence is 0.01"),
        (lambda m: m["gate"].update(metrics={}), "nothing was gated"),
        (lambda m: m["gate"]["evaluation"].update(items=0), "nothing was gated"),
        (lambda m: m["recipe"].update(gate={"max_drop": {}}), "the recipe's is None"),
    ],
)
def test_a_gate_that_failed_without_a_waiver_is_refused(whole, refused, change, said):
    def applied(manifest):
        change(manifest)

    refused(with_manifest(whole, applied), ManifestInvalid, said)


def test_a_gate_that_failed_with_a_waiver_is_read_and_shown(tmp_path, toy_engine, caplog):
    path = tmp_path / "waived.edge"
    toys.bundle(gate=toys.gate(compiled=0.5, waiver="a prototype")).write(path)
    edge.load(path).close()
    assert "a prototype" in caplog.text


@pytest.mark.parametrize("shipped", zoo.bundles("pad-minifasnet"), ids=lambda b: b.file)
def test_an_error_rate_became_worse_where_it_rose(shipped):
    plain = json.loads(Bundle.open(shipped.path).manifest.to_bytes())
    figures = plain["gate"]["metrics"]["bpcer"]
    fallen = {**figures, "compiled": 0.01, "low": -0.3, "high": -0.2}
    plain["gate"]["metrics"]["bpcer"] = fallen
    assert format1.Manifest.from_bytes(json.dumps(plain).encode()).gate.metrics["bpcer"].compiled == 0.01
    for changes in ({"compiled": 0.9}, {"high": 0.5}):
        plain["gate"]["metrics"]["bpcer"] = {**figures, **changes}
        with pytest.raises(ManifestInvalid, match="bpcer became worse"):
            format1.Manifest.from_bytes(json.dumps(plain).encode())


def test_the_same_values_written_otherwise_are_refused(whole, refused):
    entries = members(whole)
    loose = json.dumps(json.loads(entries[0][1])).encode()
    refused(pack([("manifest.json", loose), *entries[1:]]), ChecksumMismatch, "edited")


def pickled(value):
    out = io.BytesIO()
    np.save(out, np.array([value], dtype=object), allow_pickle=True)
    return out.getvalue()


def plain(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def zipped():
    out = io.BytesIO()
    np.savez(out, x=np.zeros(1))
    return out.getvalue()


def headed(text, data=b""):
    """An array file whose header is this text."""
    header = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def shaped(shape, data=b""):
    return headed(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}", data)


@pytest.fixture
def golden_refused(tmp_path, toy_engine):
    """Assert that a whole, well-hashed bundle with this file in its golden case is refused, and the engine closed."""

    def check(name, data, match=None):
        good = toys.bundle()
        entry = format1.FileEntry(len(data), hashlib.sha256(data).hexdigest())
        manifest = dataclasses.replace(good.manifest, files={**good.manifest.files, name: entry})
        path = tmp_path / "golden.edge"
        Bundle(manifest, {**good.files, name: data}).write(path)
        with pytest.raises(ManifestInvalid, match=match):
            edge.load(path)
        assert all(session.closed for session in toy_engine.sessions)

    return check


@pytest.mark.parametrize(
    "data",
    [
        pickled({"a": 1}),
        b"no array",
        b"",
        b"PK\x03\x04",
        zipped(),
        b"\x93NUMPY\x01\x00\xff\xff",
        headed("-" * 9000 + "1"),
        headed("{'descr': {1: 2}, 'fortran_order': False, 'shape': (1,)}"),
        headed("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"12345678"),
        shaped("(5L, 5L, 3L)", bytes(75)),
        shaped("(-1, 8, 8, 2)", bytes(128)),
    ],
    ids=lambda data: repr(data[:24]),
)
def test_a_golden_array_that_is_not_plain_is_refused(golden_refused, data):
    golden_refused("golden/0/output.cls8.npy", data, r"cls8\.npy")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 8, 8, 2)),
        np.zeros((1, 8, 8, 2), np.float32),
        np.zeros((1, 8, 8, 3), np.float16),
        np.zeros((8, 8, 2), np.float16),
        np.zeros((1, 8, 8, 2), ">f2"),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_golden_outputs_of_another_shape_or_type_are_refused(golden_refused, array):
    golden_refused("golden/0/output.cls8.npy", plain(array), "float")


@pytest.mark.parametrize("shape", [(5,), (5, 5), (0, 5, 3), (5, 0, 3), (5, 5, 4), (1, 5, 5, 3), ()])
def test_a_golden_frame_that_is_no_picture_is_refused(golden_refused, shape):
    golden_refused("golden/0/frame.npy", plain(np.zeros(shape, np.uint8)), r"frame\.npy")


@pytest.mark.parametrize(
    "shape", ["(1099511627776, 1, 3)", "(60000, 60000, 3)", f"({2**62}, {2**62}, 3)", "(9,) * 99"]
)
def test_a_golden_frame_that_claims_to_be_enormous_takes_no_memory(golden_refused, shape):
    golden_refused("golden/0/frame.npy", shaped(shape, b"few bytes"), r"frame\.npy")


def test_bytes_after_a_golden_array_are_refused(golden_refused):
    golden_refused("golden/0/frame.npy", plain(np.zeros((4, 4, 3), np.uint8)) + b"junk", r"frame\.npy")


@pytest.mark.parametrize("cases", [2, 99, 10**9])
def test_golden_cases_that_are_not_there_are_refused(tmp_path, whole, toy_engine, cases):
    path = tmp_path / "x.edge"
    path.write_bytes(with_manifest(whole, lambda m: m["golden"].update(cases=cases)))
    with pytest.raises(ManifestInvalid, match="golden/1"):
        edge.load(path)


@pytest.mark.parametrize("cases", [0, -1])
def test_a_bundle_that_proves_nothing_is_refused(whole, refused, cases):
    refused(with_manifest(whole, lambda m: m["golden"].update(cases=cases)), ManifestInvalid, "golden")


def test_a_number_beyond_all_floats_is_refused(whole, refused):
    refused(
        with_manifest(whole, lambda m: m["golden"].update(min_snr_db=10**400)), ManifestInvalid, "min_snr_db"
    )


def test_inputs_that_are_not_the_specs_are_refused(whole, refused):
    for inputs in ([], ["x"], ["pixels", "pixels"]):
        refused(with_manifest(whole, lambda m, i=inputs: m.update(inputs=i)), ManifestInvalid, "inputs")


def test_outputs_that_are_not_the_specs_are_refused(whole, refused):
    for outputs in ([], ["box8"], ["box8"] * 6, ["x", "box8", "box16", "cls16", "box32", "cls32"]):
        refused(with_manifest(whole, lambda m, o=outputs: m.update(outputs=o)), ManifestInvalid, "outputs")


def scaled(manifest, *, strides=(8, 16, 32), bins=4, side=64):
    """Give the spec these numbers, and outputs that fit them."""
    spec = manifest["spec"]
    spec["head"].update(strides=list(strides), bins=bins)
    spec["inputs"][0]["shape"] = [1, side, side, 3]
    spec["outputs"] = [
        {"name": f"{kind}{s}", "shape": [1, side // s, side // s, n], "dtype": "float32", "layout": "NHWC"}
        for s in strides
        for kind, n in (("box", 4 * bins), ("cls", 2))
    ]
    manifest["outputs"] = [o["name"] for o in spec["outputs"]]


@pytest.mark.parametrize(
    "numbers",
    [{"side": 8 * 10**6}, {"side": -64}, {"bins": 10**12}, {"bins": 0}, {"strides": []}, {"strides": [-8]}],
    ids=str,
)
def test_a_spec_that_asks_for_all_memory_or_none_is_refused(whole, refused, numbers):
    refused(with_manifest(whole, lambda m: scaled(m, **numbers)), ManifestInvalid, "spec")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("letterbox", {"pad": 300}),
        ("letterbox", {"pad": -1}),
        ("letterbox", {"max_scale": -1.0}),
        (None, {"strides": [0, 16, 32]}),
        (None, {"confidence": 7.0}),
        (None, {"iou": 0.0}),
        (None, {"max_faces": 0}),
        (None, {"kind": "os"}),
        (None, {"kind": "../detection"}),
    ],
    ids=str,
)
def test_a_head_with_a_value_outside_its_range_is_refused(whole, refused, part, change):
    def spoil(manifest):
        head = manifest["spec"]["head"]
        (head if part is None else head[part]).update(change)

    refused(with_manifest(whole, spoil), ManifestInvalid, "spec")


def test_a_bundle_of_before_inputs_had_names_is_refused_with_the_remedy(whole, refused):
    def age(manifest):
        spec = manifest["spec"]
        spec |= {"input": spec.pop("inputs")[0], "task": "detection", "preprocessing": {}, "decode": {}}
        del spec["head"], manifest["inputs"]

    refused(with_manifest(whole, age), ManifestInvalid, "development version.*build the bundle again")


def test_a_state_that_does_not_pair_is_refused(whole, refused):
    def pair(manifest):
        manifest["spec"]["state"] = [{"input": "pixels", "output": "box8"}]

    refused(with_manifest(whole, pair), ManifestInvalid, "state")


@pytest.mark.parametrize("text", ["\x1b[2J", "two\nlines", "\ud800", "\x00"], ids=ascii)
@pytest.mark.parametrize("key", ["producer", "licence", "label"])
def test_text_that_no_terminal_should_print_is_refused(whole, refused, key, text):
    def change(manifest):
        spec = manifest["spec"]
        if key == "label":
            spec["head"]["labels"][0] = text
        else:
            (spec if key in spec else manifest)[key] = text

    refused(with_manifest(whole, change), ManifestInvalid, key)


@pytest.mark.parametrize("sha", ["0" * 64, "", "x" * 64, None, "UPPER"])
def test_another_hash_is_refused(whole, refused, sha):
    def change(manifest):
        entry = manifest["files"]["artifact/model.onnx"]
        entry["sha256"] = entry["sha256"].upper() if sha == "UPPER" else sha

    refused(with_manifest(whole, change))


@pytest.mark.parametrize("size", [0, 2, 4, -1, 2**40])
def test_another_size_is_refused(whole, refused, size):
    refused(
        with_manifest(whole, lambda m: m["files"]["artifact/model.onnx"].update(bytes=size)), ChecksumMismatch
    )


def test_nan_in_the_manifest_is_refused(whole, refused):
    entries = members(whole)
    for word in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
        text = re.sub(rb'"min_snr_db": [0-9.]+', b'"min_snr_db": ' + word, entries[0][1])
        assert word in text
        refused(pack([("manifest.json", text), *entries[1:]]), ManifestInvalid, "min_snr_db")


def test_a_repeated_key_deep_inside_is_refused(whole, refused):
    entries = members(whole)
    text = entries[0][1].replace(b'"bins": 4', b'"bins": 4,\n      "bins": 4')
    assert text != entries[0][1]
    refused(pack([("manifest.json", text), *entries[1:]]), ManifestInvalid, "twice")


@pytest.mark.parametrize("field", [20, 24], ids=["compressed size", "size"])
@pytest.mark.parametrize("claim", [0, 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_member_that_lies_about_its_size_is_refused(whole, refused, field, claim):
    central = whole.rfind(b"PK\x01\x02")
    refused(whole[: central + field] + claim.to_bytes(4, "little") + whole[central + field + 4 :])


def test_members_that_share_their_bytes_do_not_multiply(tmp_path):
    """Each of 60 members holds all that follow: a file of 1 MB that would fill 60."""
    names = [*(b"artifact/%02d" % i for i in range(59)), b"manifest.json"]
    body, table, starts = b"{}", [], []
    for name in reversed(names):
        crc, size = zlib.crc32(body).to_bytes(4, "little"), len(body).to_bytes(4, "little") * 2
        fixed = bytes([20, 0]) + bytes(4) + b"\0\0\x21\0" + crc + size + len(name).to_bytes(2, "little")
        body = b"PK\x03\x04" + fixed + bytes(2) + name + body
        body += bytes(2**20) if name == b"manifest.json" else b""
        starts.append(len(body))
        table.append((fixed, name))
    directory = b"".join(
        b"PK\x01\x02" + bytes([20, 3]) + fixed + bytes(12) + (len(body) - start).to_bytes(4, "little") + name
        for (fixed, name), start in zip(reversed(table), reversed(starts), strict=True)
    )
    count = len(names).to_bytes(2, "little")
    end = len(directory).to_bytes(4, "little") + len(body).to_bytes(4, "little") + bytes(2)
    path = tmp_path / "bomb.edge"
    path.write_bytes(body + directory + b"PK\x05\x06" + bytes(4) + count * 2 + end)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 60
    tracemalloc.start()
    try:
        with pytest.raises(BundleError):
            Bundle.open(path)
        assert tracemalloc.get_traced_memory()[1] < 5 * path.stat().st_size
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def tiny():
    """As few bytes as a bundle can have, near enough."""
    head = dataclasses.replace(toys.SPEC.head, labels=("x",), strides=(32,), bins=2)
    inputs, outputs = head.tensors(32, 32)
    spec = dataclasses.replace(toys.SPEC, inputs=inputs, outputs=outputs, head=head, provenance=())
    case = GoldenCase({t.name: np.zeros(t.shape, np.float16) for t in outputs}, np.zeros((1, 1, 3), np.uint8))
    artifact = Artifact({"m": b"toy"}, ("pixels",), tuple(t.name for t in outputs))
    return toys.bundle(spec=spec, artifact=artifact, golden=(case,)).to_bytes()


@pytest.mark.slow
def test_every_single_byte_counts(tmp_path, tiny):
    path = tmp_path / "x.edge"
    path.write_bytes(tiny)
    Bundle.open(path)
    for place in range(len(tiny)):
        data = bytearray(tiny)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(BundleError):
            Bundle.open(path)


@pytest.mark.slow
def test_no_shorter_file_is_accepted(tmp_path, tiny):
    path = tmp_path / "x.edge"
    for length in range(0, len(tiny), 3):
        path.write_bytes(tiny[:length])
        with pytest.raises(BundleError):
            Bundle.open(path)
