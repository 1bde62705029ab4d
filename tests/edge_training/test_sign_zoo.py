import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")
pytest.importorskip("cryptography", reason="makes signatures")

from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.signing import PrivateKey
from edge_training.sign_zoo import main


@pytest.fixture
def key(tmp_path, monkeypatch, toy_zoo):
    """A throw-away key, and a zoo of the toy that has a place for its public half."""
    keys = tmp_path / "keys"
    keys.mkdir()
    monkeypatch.setattr(zoo, "KEYS", keys)
    PrivateKey.generate().write(tmp_path / "project")
    return tmp_path / "project.key"


def sign(key, release):
    return main(["--key", str(key), "--release", str(release)])


def releases():
    bundles = [Bundle.open(path) for path in sorted(zoo.BUNDLES.glob("*.edge"))]
    manifests = [(b.signatures, b.manifest.to_bytes()) for b in bundles]
    return [[s.release for s in signatures if s.fits(m)] for signatures, m in manifests]


def test_the_zoo_is_signed_with_a_key_that_the_package_carries(key, capsys):
    index = zoo.INDEX.read_bytes()
    assert sign(key, 1) == 2
    assert "has no public key" in capsys.readouterr().err
    assert releases() == [[], [], []]
    key.with_suffix(".pub").rename(zoo.KEYS / "project.pub")
    assert sign(key, 1) == 0
    assert releases() == [[1], [1], [1]]
    assert sign(key, 2) == 0
    assert releases() == [[2], [2], [2]]
    assert zoo.INDEX.read_bytes() == index


def test_nothing_is_signed_if_something_cannot_be(key, capsys):
    key.with_suffix(".pub").rename(zoo.KEYS / "project.pub")
    assert sign(key, 3) == 0
    assert sign(key, 2) == 2
    assert "signed as release 3 already" in capsys.readouterr().err
    last = sorted(zoo.BUNDLES.glob("*.edge"))[-1]
    last.write_bytes(last.read_bytes()[:-1])
    assert sign(key, 4) == 4
    last.unlink()
    assert releases() == [[3], [3]]
