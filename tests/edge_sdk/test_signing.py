"""Keys, signatures, the member that holds them, and the verbs that make them."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from throwaway import ThrowAwayKey

from edge_sdk import signing, zoo
from edge_sdk.bundle import Bundle
from edge_sdk.cli import main
from edge_sdk.errors import InputError, MissingDependency, SignatureInvalid
from edge_sdk.signing import PrivateKey, PublicKey, Signature, from_member, to_member

ROOT = Path(__file__).parents[2]
MAKER, OTHER = ThrowAwayKey("maker"), ThrowAwayKey("other")


@pytest.fixture
def cryptography():
    pytest.importorskip("cryptography", reason="makes keys and signatures")


@pytest.fixture
def pair(cryptography, tmp_path):
    """A new key pair: paths of the private and the public file."""
    PrivateKey.generate().write(tmp_path / "vendor")
    return tmp_path / "vendor.key", tmp_path / "vendor.pub"


def fails(capsys, code, *arguments):
    assert main([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 2
    return err


# The member


def test_a_signature_is_over_the_manifest_and_all_that_it_says():
    manifest = toys.bundle().manifest.to_bytes()
    signature = MAKER.sign(manifest, release=3, comment="first")
    assert signature.fits(manifest)
    assert not signature.fits(manifest + b" ")
    for change in (
        {"release": 4},
        {"comment": "second"},
        {"comment": ""},
        {"key": OTHER.public.id},
        {"signature": "0" * 128},
    ):
        assert not dataclasses.replace(signature, **change).fits(manifest), change


def test_a_signature_of_the_bare_manifest_is_none_of_the_bundle():
    manifest = toys.bundle().manifest.to_bytes()
    bare = Signature("ed25519", MAKER.public.id, 0, MAKER.raw(manifest).hex())
    assert not bare.fits(manifest)


def test_what_is_written_is_what_is_read_in_one_form():
    manifest = toys.bundle().manifest.to_bytes()
    both = [key.sign(manifest, release=2, comment="Grüße") for key in (MAKER, OTHER)]
    member = to_member(both)
    assert member == to_member(reversed(both))
    assert set(from_member(member)) == set(both)
    assert json.loads(member)["signatures"] == sorted(
        json.loads(member)["signatures"], key=lambda s: s["key"]
    )


def members():
    """Members that the format does not allow, by what is wrong."""
    good = json.loads(to_member([MAKER.sign(b"manifest", release=1, comment="c")]))
    (one,) = good["signatures"]

    def written(*signatures, **more):
        return json.dumps({"signatures": list(signatures), **more}, indent=2, sort_keys=True).encode() + b"\n"

    assert from_member(written(one))
    return {
        "empty": b"",
        "not JSON": b"signed",
        "not ASCII": written(one).replace(b'"c"', '"ö"'.encode()),
        "a list": b"[]\n",
        "no signature": written(),
        "an unknown key": written(one, schema=1),
        "an unknown key of a signature": written({**one, "expires": "never"}),
        "a missing key": written({k: v for k, v in one.items() if k != "release"}),
        "a default that is written": written({**one, "comment": ""}),
        "a key that occurs twice": written(one).replace(
            b'"release": 1', b'"release": 1,\n      "release": 1'
        ),
        "another spacing": json.dumps(good).encode(),
        "bytes behind it": written(one) + b"\n",
        "two by one key": written(one, {**one, "release": 2}),
        "another algorithm": written({**one, "algorithm": "rsa"}),
        "a capital in a key": written({**one, "key": one["key"].upper()}),
        "a short signature": written({**one, "signature": one["signature"][:-2]}),
        "a release that is text": written({**one, "release": "1"}),
        "a release that is true": written({**one, "release": True}),
        "a release below 0": written({**one, "release": -1}),
        "a release beyond JSON": written({**one, "release": 2**53}),
        "a comment of two lines": written({**one, "comment": "a\nb"}),
        "an endless comment": written({**one, "comment": "a" * 201}),
        "too many": written(*({**one, "key": f"{i:064x}"} for i in range(9))),
        "too long": b"[" * 40_000,
        "deep": b"[" * 30_000,
        "a number without end": b"[" + b"9" * 30_000 + b"]",
    }


@pytest.mark.parametrize("wrong", members())
def test_a_member_of_another_form_is_refused_when_the_bundle_is_opened(wrong, tmp_path):
    data = members()[wrong]
    with pytest.raises(SignatureInvalid):
        from_member(data)
    path = tmp_path / "x.edge"
    dataclasses.replace(toys.bundle(), signature=data).write(path)
    with pytest.raises(SignatureInvalid):
        Bundle.open(path)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_a_typed_error_or_signatures(data):
    with contextlib.suppress(SignatureInvalid):
        assert to_member(from_member(data)) == data


def test_as_many_signatures_as_the_format_allows_can_be_written():
    longest = "\U0001f600" * signing.MAX_COMMENT
    keys = [ThrowAwayKey(f"key {i}") for i in range(signing.MAX_SIGNATURES + 1)]
    signatures = [k.sign(b"m", release=signing.MAX_RELEASE, comment=longest) for k in keys]
    member = to_member(signatures[:-1])
    assert len(from_member(member)) == signing.MAX_SIGNATURES
    with pytest.raises(SignatureInvalid, match="expected 1 to 8"):
        to_member(signatures)


def test_signing_changes_no_identity_and_adds_or_replaces_by_key(tmp_path):
    bundle = toys.bundle()
    once = MAKER.signed(bundle, release=1)
    twice = OTHER.signed(once, release=1)
    again = MAKER.signed(twice, release=2)
    assert {b.sha256 for b in (once, twice, again)} == {bundle.sha256}
    assert {s.key: s.release for s in again.signatures} == {MAKER.public.id: 2, OTHER.public.id: 1}
    again.write(tmp_path / "x.edge")
    assert Bundle.open(tmp_path / "x.edge").signatures == again.signatures


def test_a_signature_of_another_bundle_cannot_be_added():
    other = toys.bundle(artifact=dataclasses.replace(toys.artifact(), files={"model.onnx": b"toy!"}))
    with pytest.raises(SignatureInvalid, match="of another bundle"):
        toys.bundle().signed(MAKER.sign(other.manifest.to_bytes()))


# Keys


def test_a_public_key_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "maker.pub"
    path.write_bytes(MAKER.public.to_pem())
    key = PublicKey.read(path)
    assert (key, key.name) == (MAKER.public, "maker")
    assert PublicKey.from_hex(key.id) == key
    path.write_bytes(MAKER.public.to_pem().replace(b"\n", b"\r\n") + b"\n")
    assert PublicKey.read(path) == key


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 5000,
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\n=\n-----END PUBLIC KEY-----\n",
        MAKER.public.to_pem() + MAKER.public.to_pem(),
        MAKER.public.to_pem()[:-30],
        b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA" + b"A" * 43 + b"=\n-----END PUBLIC KEY-----\n",
    ],
)
def test_a_file_without_a_public_key_is_refused(content, tmp_path):
    (tmp_path / "x.pub").write_bytes(content)
    with pytest.raises(InputError):
        PublicKey.read(tmp_path / "x.pub")


def test_a_key_comes_from_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "pipe", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(InputError):
            PublicKey.read(path)


@pytest.mark.parametrize("text", ["", "ab", "0" * 64, "F" * 64, "g" * 64, MAKER.public.id.upper()])
def test_text_that_is_no_key_is_refused(text):
    with pytest.raises(InputError):
        PublicKey.from_hex(text)


def test_a_key_pair_is_written_for_this_user_and_never_over_a_file(pair):
    private, public = pair
    assert private.stat().st_mode & 0o777 == 0o600
    before = private.read_bytes(), public.read_bytes()
    for missing in (None, private, public):
        if missing is not None:
            content = missing.read_bytes()
            missing.unlink()
        with pytest.raises(InputError, match="cannot make"):
            PrivateKey.generate().write(private.with_suffix(""))
        if missing is not None:
            assert not missing.exists()
            missing.write_bytes(content)
    assert (private.read_bytes(), public.read_bytes()) == before


def test_a_key_is_not_written_through_a_link(cryptography, tmp_path):
    target = tmp_path / "elsewhere"
    (tmp_path / "vendor.key").symlink_to(target)
    with pytest.raises(InputError, match="cannot make"):
        PrivateKey.generate().write(tmp_path / "vendor")
    assert not target.exists()
    assert not (tmp_path / "vendor.pub").exists()


def test_a_private_key_that_others_can_read_is_refused(pair):
    private, _ = pair
    private.chmod(0o640)
    with pytest.raises(InputError, match="can be read by other users") as caught:
        PrivateKey.read(private)
    assert "chmod 600" in caught.value.remedy


def test_a_private_key_signs_what_its_public_half_checks_and_is_never_shown(pair):
    private, public = pair
    key = PrivateKey.read(private)
    signature = key.sign(b"manifest", release=7, comment="c")
    assert signature.key == PublicKey.read(public).id
    assert signature.fits(b"manifest")
    secret = private.read_text().splitlines()[1]
    assert secret not in repr(key) + str(vars(key))


def test_what_is_no_private_key_is_refused_and_not_quoted(cryptography, tmp_path):
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    pem, pkcs8 = forms.Encoding.PEM, forms.PrivateFormat.PKCS8
    path = tmp_path / "x.key"
    for content in (
        b"not a key",
        ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, forms.NoEncryption()),
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            pem, pkcs8, forms.BestAvailableEncryption(b"passphrase")
        ),
        MAKER.public.to_pem(),
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(InputError, match="holds no Ed25519 private key") as caught:
            PrivateKey.read(path)
        assert content.decode()[:20] not in str(caught.value)


@pytest.mark.parametrize("said", [{"release": -1}, {"release": 2**53}, {"release": 0, "comment": "a\nb"}])
def test_what_no_reader_would_take_is_not_signed(pair, said):
    with pytest.raises(InputError, match="cannot be signed"):
        PrivateKey.read(pair[0]).sign(b"m", **said)


def test_without_cryptography_keys_and_signatures_ask_for_it_and_checking_does_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(MissingDependency, match=r"cryptography is not installed") as caught:
        PrivateKey.generate()
    assert "face-edge-sdk[signing]" in caught.value.remedy
    assert MAKER.sign(b"m").fits(b"m")


# The verbs


def test_keygen_sign_and_verify(capsys, cryptography, toy_bundle, toy_engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "vendor"]) == 0
    key = PublicKey.read("vendor.pub")
    assert key.id in capsys.readouterr().out
    assert main(["sign", str(toy_bundle), "--key", "vendor.key", "--release", "4", "--comment", "May"]) == 0
    assert "toy, release 4, signed by" in capsys.readouterr().out
    assert main(["verify", str(toy_bundle), "--no-isolation", "--key", "vendor.pub"]) == 0
    assert f"signed by vendor ({key.id[:16]})" in capsys.readouterr().out
    assert main(["inspect", str(toy_bundle)]) == 0
    out = capsys.readouterr().out
    assert f"unknown key {key.id}, release 4: fits, May" in out
    assert "no policy asks who signed" in out
    assert main(["inspect", str(toy_bundle), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["signatures"]
    assert (shown["key"], shown["fits"], shown["name"], shown["release"]) == (key.id, True, None, 4)


def test_a_second_signature_keeps_the_release_of_the_first(cryptography, toy_bundle, tmp_path, capsys):
    for name, release in (("old", ["--release", "5"]), ("new", [])):
        assert main(["keygen", str(tmp_path / name)]) == 0
        assert main(["sign", str(toy_bundle), "--key", str(tmp_path / f"{name}.key"), *release]) == 0
    assert [s.release for s in Bundle.open(toy_bundle).signatures] == [5, 5]


def test_sign_says_that_the_gate_was_waived(capsys, pair, tmp_path):
    bundle = toys.bundle()
    gate = dataclasses.replace(bundle.manifest.gate, waiver="a demonstration")
    path = tmp_path / "waived.edge"
    dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, gate=gate)).write(path)
    assert main(["sign", str(path), "--key", str(pair[0])]) == 0
    assert "waived: a demonstration" in capsys.readouterr().out


def test_the_verbs_refuse_in_two_lines(capsys, pair, toy_bundle, tmp_path):
    private, public = pair
    before = toy_bundle.read_bytes()
    assert "cannot make" in fails(capsys, 2, "keygen", private.with_suffix(""))
    assert "holds no Ed25519 private key" in fails(capsys, 2, "sign", toy_bundle, "--key", _closed(public))
    assert "cannot be signed" in fails(capsys, 2, "sign", toy_bundle, "--key", private, "--release", "-1")
    assert "cannot read" in fails(capsys, 2, "sign", tmp_path / "none.edge", "--key", private)
    assert "is not signed" in fails(capsys, 4, "verify", toy_bundle, "--key", public)
    assert toy_bundle.read_bytes() == before


def _closed(path):
    path.chmod(0o600)
    return path


def test_verify_refuses_a_signature_that_does_not_fit_though_nobody_asks_for_it(capsys, toy_bundle):
    forged = dataclasses.replace(MAKER.sign(Bundle.open(toy_bundle).manifest.to_bytes()), release=9)
    dataclasses.replace(toys.bundle(), signature=to_member([forged])).write(toy_bundle)
    assert "does not fit" in fails(capsys, 4, "verify", toy_bundle)
    assert main(["inspect", str(toy_bundle)]) == 0
    assert "DOES NOT FIT" in capsys.readouterr().out


def test_openssl_reads_our_keys_and_we_read_its(cryptography, pair, tmp_path):
    private, public = pair
    try:
        shown = subprocess.run(
            ["openssl", "pkey", "-in", private, "-pubout"], capture_output=True, check=False
        )
        made = subprocess.run(
            ["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "o.key"], check=False
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    if shown.returncode or made.returncode:
        pytest.skip("this openssl has no Ed25519")
    assert shown.stdout == public.read_bytes()
    (tmp_path / "o.key").chmod(0o600)
    assert PrivateKey.read(tmp_path / "o.key").sign(b"m", release=0).fits(b"m")


# The repository


def test_no_private_key_is_in_the_repository():
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    begins = b"-----BEGIN " + b"PRIVATE KEY"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    paths = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    assert [p for p in paths if p.suffix == ".key" or (p.is_file() and begins in p.read_bytes())] == []


def test_where_the_project_has_a_key_every_shipped_bundle_carries_its_signature():
    keys = {key.id for key in zoo.signing_keys()}
    if not keys:
        pytest.skip("the zoo is not signed yet")
    for path in sorted(zoo.BUNDLES.glob("*.edge")):
        bundle = Bundle.open(path)
        fitting = [s for s in bundle.signatures if s.key in keys and s.fits(bundle.manifest.to_bytes())]
        assert fitting, f"{path.name} is not signed: python -m edge_training.sign_zoo"
