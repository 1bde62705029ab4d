"""Attempts on the reader: each must end in a typed error, and no engine may see a byte of a refused file."""

import io
import json
import random
import zipfile

import numpy as np
import pytest
import toys

import edge_sdk as edge
from edge_sdk import bundle as format1
from edge_sdk.bundle import Bundle
from edge_sdk.errors import BundleError, ChecksumMismatch, ManifestInvalid


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
        ("spec", "input"),
        ("spec", "preprocessing"),
        ("spec", "decode"),
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


def test_the_same_values_written_otherwise_are_refused(whole, refused):
    entries = members(whole)
    loose = json.dumps(json.loads(entries[0][1])).encode()
    refused(pack([("manifest.json", loose), *entries[1:]]), ChecksumMismatch, "edited")


def pickled(value):
    out = io.BytesIO()
    np.save(out, np.array([value], dtype=object), allow_pickle=True)
    return out.getvalue()


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (pickled({"a": 1}), "plain array"),
        (b"no array", "plain array"),
        (b"", "plain array"),
        (b"\x93NUMPY\x01\x00\xff\xff", "plain array"),
        (None, "float64"),
    ],
)
def test_a_golden_array_that_is_not_plain_is_refused(tmp_path, toy_engine, array, match):
    if array is None:
        out = io.BytesIO()
        np.save(out, np.zeros((1, 8, 8, 2)))
        array = out.getvalue()
    good = toys.bundle()
    files = {**good.files, "golden/0/cls8.npy": array}
    entry = format1.FileEntry(len(array), format1.hashlib.sha256(array).hexdigest())
    fields = {f: getattr(good.manifest, f) for f in good.manifest.__dataclass_fields__}
    manifest = format1.Manifest(**{**fields, "files": {**good.manifest.files, "golden/0/cls8.npy": entry}})
    path = tmp_path / "golden.edge"
    Bundle(manifest, files).write(path)
    with pytest.raises(ManifestInvalid, match=match):
        edge.load(path)
    assert all(session.closed for session in toy_engine.sessions)
