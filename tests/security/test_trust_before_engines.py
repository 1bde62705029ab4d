"""Wherever a bundle reaches an engine or another vendor's parser, the policies of the device have been asked before."""

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

import edge_sdk as edge
from edge_benchmarks import crosscheck, roofline, speedup
from edge_sdk import trust
from edge_sdk.cli import main
from edge_sdk.errors import SignatureInvalid

WAYS = {
    "load": edge.load,
    "load, what may run instead": lambda path: edge.load(path, prefer=("openvino", "onnxruntime")),
    "bench": edge.bench,
    "crosscheck": lambda path: crosscheck.check(path, rounds=1, seconds=0.1, threads=1),
    "roofline": lambda path: roofline.measure(path, None, threads=1),
    "speedup": lambda path: speedup.relative_latencies([path], threads=1),
    "speedup's reference": lambda path: speedup.relative_latencies([], reference=path, threads=1),
}


@pytest.fixture
def policy(tmp_path, monkeypatch):
    """The device asks for a signature that the toy does not have."""
    folder = tmp_path / "policies"
    folder.mkdir(mode=0o755)
    path = folder / "policy.toml"
    key = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    rule = '{models = ["*"], keys = ["maker"]}'
    path.write_text(f'schema = 1\nkeys = {{maker = "{key}"}}\nrules = [{rule}]\n')
    path.chmod(0o644)
    monkeypatch.setattr(trust, "DEVICE_POLICY", path)


@pytest.mark.parametrize("way", WAYS)
def test_what_the_policy_refuses_reaches_no_engine(way, toy_bundle, policy, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("the engine was called")

    monkeypatch.setattr("edge_targets.onnxruntime.OnnxRuntime.load", never)
    with pytest.raises(SignatureInvalid, match="toy is not signed; expected a signature by maker"):
        WAYS[way](toy_bundle)


@pytest.mark.parametrize(
    "verb", [["predict", "--source"], ["check", "--target", "jetson-orin-nano"], ["verify"]]
)
def test_the_verbs_refuse_it_too(verb, toy_bundle, policy, tmp_path, capsys):
    from edge_sdk.image import write_image

    write_image(tmp_path / "red.png", toys.frame())
    words = [*verb, str(tmp_path / "red.png")] if verb[-1] == "--source" else verb
    assert main([words[0], str(toy_bundle), *words[1:]]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "expected a signature by maker" in err
