"""Whose bundles load: keys that a caller asks for, policies of a device, rotation, revocation, downgrades."""

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from throwaway import ThrowAwayKey

import edge_sdk as edge
from edge_sdk import trust, zoo
from edge_sdk.bundle import Bundle
from edge_sdk.cli import main
from edge_sdk.errors import InputError, SignatureInvalid
from edge_sdk.signing import PublicKey, to_member
from edge_sdk.trust import Policy, admit

MAKER, OLD, STRANGER = ThrowAwayKey("maker"), ThrowAwayKey("old"), ThrowAwayKey("stranger")
KEYS = f'schema = 1\n[keys]\nmaker = "{MAKER.public.id}"\nold = "{OLD.public.id}"\n'
ASKS = KEYS + '[[rules]]\nmodels = ["toy*"]\nkeys = ["maker"]\n'


@pytest.fixture
def write(tmp_path):
    """Write a policy file."""
    folder = tmp_path / "policies"
    folder.mkdir(mode=0o755)

    def to_file(text, name="policy.toml"):
        path = folder / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    return to_file


@pytest.fixture
def signed(tmp_path):
    """Write the toy's bundle with signatures: (key, release) each."""

    def to_file(*signatures, bundle=None, name="signed.edge"):
        bundle = bundle or toys.bundle()
        for key, release in signatures:
            bundle = key.signed(bundle, release=release)
        bundle.write(tmp_path / name)
        return tmp_path / name

    return to_file


# What a caller asks for


def test_without_a_policy_a_bundle_that_nobody_signed_loads(toy_bundle, toy_engine):
    with edge.load(toy_bundle) as model:
        assert model.info.signed_by == ()


def test_a_caller_names_a_key_a_file_several_or_a_policy(signed, toy_engine, tmp_path):
    path, file = signed((MAKER, 1)), tmp_path / "vendor.pub"
    file.write_bytes(MAKER.public.to_pem())
    asked = {
        "maker": [MAKER.public, [OLD.public, MAKER.public], Policy.trusting(MAKER.public)],
        "vendor": [file, str(file), [STRANGER.public, file]],
    }
    for name, ways in asked.items():
        for way in ways:
            with edge.load(path, trust=way) as model:
                assert model.info.signed_by == (name,)


def test_another_signer_or_none_is_refused_before_an_engine_sees_the_bundle(signed, toy_engine, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("the engine was called")

    monkeypatch.setattr(toys.FakeTarget, "load", never)
    for path in (signed((STRANGER, 1)), signed(name="unsigned.edge")):
        with pytest.raises(SignatureInvalid, match="expected a signature by maker") as caught:
            edge.load(path, trust=MAKER.public)
        assert caught.value.exit_code == 4


def test_no_key_at_all_is_a_mistake_and_not_a_pass(toy_bundle, toy_engine):
    with pytest.raises(InputError, match="no key is given"):
        edge.load(toy_bundle, trust=[])


def test_two_keys_of_one_name_are_two_keys():
    one, two = (PublicKey(k.public.value, "vendor") for k in (MAKER, OLD))
    assert set(Policy.trusting(one, two).keys.values()) == {one.id, two.id}


def test_a_signature_moved_to_another_bundle_is_refused(signed):
    other = toys.bundle(artifact=dataclasses.replace(toys.artifact(), files={"model.onnx": b"toy!"}))
    moved = dataclasses.replace(other, signature=MAKER.signed(toys.bundle()).signature)
    with pytest.raises(SignatureInvalid, match="claims to be by maker does not fit"):
        admit(moved, MAKER.public)


@pytest.mark.parametrize("change", [{"release": 99}, {"comment": "x"}, {"key": STRANGER.public.id}])
def test_nothing_that_a_signature_says_can_be_changed(change):
    bundle = MAKER.signed(toys.bundle(), release=1)
    (signature,) = bundle.signatures
    forged = dataclasses.replace(bundle, signature=to_member([dataclasses.replace(signature, **change)]))
    with pytest.raises(SignatureInvalid):
        admit(forged, [MAKER.public, STRANGER.public])


@given(place=st.integers(0, 10_000), flip=st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_no_changed_byte_of_a_signature_is_admitted(place, flip):
    bundle = MAKER.signed(toys.bundle(), release=1)
    data = bytearray(bundle.signature)
    data[place % len(data)] ^= flip
    with pytest.raises(SignatureInvalid):
        admit(dataclasses.replace(bundle, signature=bytes(data)), MAKER.public)


# Policies


@pytest.mark.parametrize("place", ["device", "variable"])
def test_the_policy_of_the_device_and_of_the_variable_hold_for_every_load(
    place, signed, toy_engine, write, monkeypatch
):
    good, bad = signed((MAKER, 1)), signed((STRANGER, 1), name="bad.edge")
    if place == "device":
        monkeypatch.setattr(trust, "DEVICE_POLICY", write(ASKS))
    else:
        monkeypatch.setenv(trust.POLICY_VARIABLE, str(write(ASKS)))
    with edge.load(good) as model:
        assert model.info.signed_by == ("maker",)
    with pytest.raises(SignatureInvalid, match=r"asked by .*policy\.toml"):
        edge.load(bad)


def test_neither_the_variable_nor_a_caller_lifts_the_policy_of_the_device(signed, write, monkeypatch):
    monkeypatch.setattr(trust, "DEVICE_POLICY", write(ASKS))
    free = write('schema = 1\nkeys = {}\nrules = [{models = ["*"], unsigned = true}]\n', "free.toml")
    monkeypatch.setenv(trust.POLICY_VARIABLE, str(free))
    stranger = Bundle.open(signed((STRANGER, 1)))
    for asked in (None, STRANGER.public, Policy.read(free)):
        with pytest.raises(SignatureInvalid):
            admit(stranger, asked)
    both = Bundle.open(signed((STRANGER, 1), (MAKER, 1)))
    assert {k.name for k in admit(both, STRANGER.public)} == {"stranger", "maker"}


def test_the_first_rule_with_a_pattern_for_the_model_decides_and_a_model_without_is_refused(write):
    text = KEYS + (
        '[[rules]]\nmodels = ["fer-*", "toy-x"]\nkeys = ["maker"]\n'
        '[[rules]]\nmodels = ["toy"]\nunsigned = true\n'
        '[[rules]]\nmodels = ["to*"]\nkeys = ["maker"]\n'
    )
    policy = Policy.read(write(text))
    assert policy.admit(toys.bundle()) == ()

    def named(name):
        spec = dataclasses.replace(toys.SPEC, name=name)
        bundle = toys.bundle()
        return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, spec=spec))

    for name in ("fer-any", "toy-x", "tor"):
        with pytest.raises(SignatureInvalid, match="not signed"):
            policy.admit(named(name))
    for name in ("other", "TOY"):
        with pytest.raises(SignatureInvalid, match="no rule covers"):
            policy.admit(named(name))


def test_an_older_release_is_refused_where_the_policy_says_so(write):
    policy = Policy.read(write(ASKS + "min_release = 5\n"))
    for release in (0, 4):
        with pytest.raises(SignatureInvalid, match=f"signed as release {release}; expected 5 or later"):
            policy.admit(MAKER.signed(toys.bundle(), release=release))
    for release in (5, 6):
        assert policy.admit(MAKER.signed(toys.bundle(), release=release)) == (MAKER.public,)


def test_a_release_that_an_untrusted_key_claims_counts_for_nothing(write):
    policy = Policy.read(write(ASKS + "min_release = 5\n"))
    bundle = STRANGER.signed(MAKER.signed(toys.bundle(), release=4), release=9)
    with pytest.raises(SignatureInvalid, match="signed as release 4"):
        policy.admit(bundle)


def test_keys_rotate_by_two_signatures_and_a_rule_with_two_keys(write):
    both = KEYS + '[[rules]]\nmodels = ["*"]\nkeys = ["maker", "old"]\n'
    before, during, after = (
        Policy.read(write(text, f"{i}.toml"))
        for i, text in enumerate((ASKS.replace('["maker"]', '["old"]'), both, ASKS))
    )
    by_old = OLD.signed(toys.bundle(), release=1)
    by_both = MAKER.signed(by_old, release=1)
    by_new = MAKER.signed(toys.bundle(), release=2)
    for policy, bundles in ((before, (by_old, by_both)), (during, (by_old, by_both, by_new))):
        for bundle in bundles:
            assert policy.admit(bundle)
    assert {k.name for k in during.admit(by_both)} == {"maker", "old"}
    assert [k.name for k in after.admit(by_both)] == ["maker"]
    with pytest.raises(SignatureInvalid):
        after.admit(by_old)


def test_a_revoked_key_signs_nothing_and_a_revoked_bundle_never_loads(write):
    text = KEYS + '[[rules]]\nmodels = ["*"]\nkeys = ["maker", "old"]\n'
    revoked = Policy.read(write(text + f'[revoked]\nkeys = ["{OLD.public.id}"]\n'))
    by_old = OLD.signed(toys.bundle(), release=1)
    with pytest.raises(SignatureInvalid, match="revoked"):
        revoked.admit(by_old)
    assert revoked.admit(MAKER.signed(by_old)) == (MAKER.public,)
    all_revoked = f'[revoked]\nkeys = ["{OLD.public.id}", "{MAKER.public.id}"]\n'
    with pytest.raises(SignatureInvalid, match="its rule names none"):
        Policy.read(write(text + all_revoked)).admit(MAKER.signed(by_old))
    bundles = f'[revoked]\nbundles = ["{toys.bundle().sha256}"]\n'
    for rule in (text, KEYS + '[[rules]]\nmodels = ["*"]\nunsigned = true\n'):
        with pytest.raises(SignatureInvalid, match="is revoked"):
            Policy.read(write(rule + bundles)).admit(MAKER.signed(toys.bundle()))


ONE_RULE = '[[rules]]\nmodels = ["*"]\n'


@pytest.mark.parametrize(
    "text",
    {
        "empty": "",
        "not TOML": "keys = [",
        "nested without end": "x = " + "[" * 20_000,
        "another schema": ASKS.replace("schema = 1", "schema = 2"),
        "a schema that is true": ASKS.replace("schema = 1", "schema = true"),
        "an unknown key": 'require = "all"\n' + ASKS,
        "an unknown key that the class has": 'source = "x"\n' + ASKS,
        "an unknown key of a rule": ASKS + "min_relase = 3\n",
        "an unknown list of revocations": ASKS + "[revoked]\nkey = []\n",
        "no rule": KEYS + "rules = []\n",
        "a rule without models": KEYS + '[[rules]]\nmodels = []\nkeys = ["maker"]\n',
        "a key that nobody named": ASKS.replace('["maker"]', '["makr"]'),
        "a rule that asks for nothing": KEYS + ONE_RULE,
        "a rule that asks for both": KEYS + ONE_RULE + 'keys = ["maker"]\nunsigned = true\n',
        "a release without a key": KEYS + ONE_RULE + "unsigned = true\nmin_release = 1\n",
        "a release below 0": ASKS + "min_release = -1\n",
        "a release that is text": ASKS + 'min_release = "1"\n',
        "a key that is none": ASKS.replace(MAKER.public.id, "0" * 64),
        "a key of 63 digits": ASKS.replace(MAKER.public.id, MAKER.public.id[:-1]),
        "a revoked key of 63 digits": ASKS + f'[revoked]\nkeys = ["{OLD.public.id[:-1]}"]\n',
        "a revoked bundle in capitals": ASKS + f'[revoked]\nbundles = ["{"A" * 64}"]\n',
    }.items(),
    ids=lambda item: item[0],
)
def test_a_policy_that_does_not_mean_something_is_an_error(text, write, monkeypatch, toy_bundle, toy_engine):
    path = write(text[1])
    with pytest.raises(InputError) as caught:
        Policy.read(path)
    assert str(path) in caught.value.message
    monkeypatch.setenv(trust.POLICY_VARIABLE, str(path))
    with pytest.raises(InputError):
        edge.load(toy_bundle)


def test_a_policy_that_cannot_be_read_is_an_error_and_never_ignored(
    write, monkeypatch, toy_bundle, toy_engine, tmp_path
):
    folder = tmp_path / "policies"
    (folder / "link.toml").symlink_to(write(ASKS))
    (folder / "dangling.toml").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.toml")
    (folder / "bytes.toml").write_bytes(b"\xff\xfe")
    (folder / "long.toml").write_text("#" * 300_000)
    for name in ("link.toml", "dangling.toml", "pipe.toml", "bytes.toml", "long.toml", "."):
        for variable in (True, False):
            with monkeypatch.context() as patch:
                if variable:
                    patch.setenv(trust.POLICY_VARIABLE, str(folder / name))
                else:
                    patch.setattr(trust, "DEVICE_POLICY", folder / name)
                with pytest.raises(InputError):
                    edge.load(toy_bundle)
    for named in (str(folder / "none.toml"), ""):
        monkeypatch.setenv(trust.POLICY_VARIABLE, named)
        with pytest.raises(InputError):
            edge.load(toy_bundle)
    monkeypatch.delenv(trust.POLICY_VARIABLE)
    monkeypatch.setattr(trust, "DEVICE_POLICY", folder / "policy.toml" / "below-a-file")
    with pytest.raises(InputError):
        edge.load(toy_bundle)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_policy_that_others_can_write_is_refused(write, mode):
    path = write(ASKS)
    path.chmod(mode)
    with pytest.raises(InputError, match="can be written by other users") as caught:
        Policy.read(path)
    assert "chmod go-w" in caught.value.remedy


def test_a_policy_in_a_folder_where_others_can_replace_it_is_refused(write):
    path = write(ASKS)
    path.parent.chmod(0o777)
    with pytest.raises(InputError, match="can be written by other users"):
        Policy.read(path)
    path.parent.chmod(0o1777)  # sticky, as /tmp: only its owner replaces a file
    assert Policy.read(path)


def test_a_policy_of_another_user_is_refused(write, monkeypatch):
    path = write(ASKS)
    owner = path.stat().st_uid
    if owner == 0:
        try:
            os.chown(path, 1234, -1)
        except OSError:
            pytest.skip("this user cannot give files away")
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(InputError, match="belongs to another user"):
        Policy.read(path)


# The verbs, and the zoo


def test_verify_takes_keys_and_a_policy_and_both_must_be_content(capsys, signed, toy_engine, write, tmp_path):
    path, maker, stranger = signed((MAKER, 1)), tmp_path / "maker.pub", tmp_path / "stranger.pub"
    maker.write_bytes(MAKER.public.to_pem())
    stranger.write_bytes(STRANGER.public.to_pem())
    policy = write(ASKS)
    passing = (["--key", maker], ["--key", stranger, "--key", maker], ["--policy", policy])
    for options in (*passing, ["--key", maker, "--policy", policy]):
        assert main(["verify", str(path), "--no-isolation", "--json", *map(str, options)]) == 0
        assert json.loads(capsys.readouterr().out)["signed_by"] == [f"maker ({MAKER.public.id[:16]})"]
    for options in (["--key", stranger], ["--key", stranger, "--policy", policy]):
        assert main(["verify", str(path), *map(str, options)]) == 4
        out, err = capsys.readouterr()
        assert out == ""
        assert "expected a signature by stranger" in err
    assert main(["verify", str(path), "--policy", str(tmp_path / "none.toml")]) == 2


def test_inspect_names_signers_whom_a_policy_names_and_says_whether_it_loads_here(
    capsys, signed, write, monkeypatch
):
    monkeypatch.setenv(trust.POLICY_VARIABLE, str(write(ASKS)))
    assert main(["inspect", str(signed((MAKER, 3)))]) == 0
    out = capsys.readouterr().out
    assert f"maker ({MAKER.public.id[:16]}), release 3: fits" in out
    assert f"by maker ({MAKER.public.id[:16]})" in out
    assert main(["inspect", str(signed(name="unsigned.edge"))]) == 0
    out = capsys.readouterr().out
    assert "signed by     nobody" in out
    assert "REFUSED: toy is not signed" in out


def test_a_zoo_name_is_held_against_the_policy_too(toy_zoo, toy_engine, write, monkeypatch):
    from edge_sdk import selection

    monkeypatch.setattr(selection, "available_targets", lambda: ("onnxruntime", "openvino"))
    monkeypatch.setenv(trust.POLICY_VARIABLE, str(write(ASKS)))
    with pytest.raises(SignatureInvalid, match="not signed"):
        edge.load("toy")
    for path in zoo.BUNDLES.glob("*.edge"):
        MAKER.signed(Bundle.open(path)).write(path)
    with edge.load("toy") as model:  # its identity, which the index names, is the same
        assert model.info.signed_by == ("maker",)


def test_the_example_of_the_text_is_a_policy(write):
    text = (Path(__file__).parents[2] / "docs" / "signing.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    policy = Policy.read(write(example))
    assert {rule.models for rule in policy.rules} == {("fer-*",), ("*",)}
    assert policy.revoked.keys
    assert policy.revoked.bundles
