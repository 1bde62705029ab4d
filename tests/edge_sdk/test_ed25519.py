"""Our verifier against RFC 8032, against OpenSSL, and against the forms that a strict verifier refuses."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from throwaway import ORDER, ThrowAwayKey, times

from edge_sdk import ed25519

P = ed25519._P
LONG = (
    "08b8b2b733424243760fe426a4b54908632110a66c2f6591eabd3345e3e4eb98fa6e264bf09efe12ee50f8f54e9f77b1"
    "e355f6c50544e23fb1433ddf73be84d879de7c0046dc4996d9e773f4bc9efe5738829adb26c81b37c93a1b270b20329d"
    "658675fc6ea534e0810a4432826bf58c941efb65d57a338bbd2e26640f89ffbc1a858efcb8550ee3a5e1998bd177e93a"
    "7363c344fe6b199ee5d02e82d522c4feba15452f80288a821a579116ec6dad2b3b310da903401aa62100ab5d1a36553e"
    "06203b33890cc9b832f79ef80560ccb9a39ce767967ed628c6ad573cb116dbefefd75499da96bd68a8a97b928a8bbc10"
    "3b6621fcde2beca1231d206be6cd9ec7aff6f6c94fcd7204ed3455c68c83f4a41da4af2b74ef5c53f1d8ac70bdcb7ed1"
    "85ce81bd84359d44254d95629e9855a94a7c1958d1f8ada5d0532ed8a5aa3fb2d17ba70eb6248e594e1a2297acbbb39d"
    "502f1a8c6eb6f1ce22b3de1a1f40cc24554119a831a9aad6079cad88425de6bde1a9187ebb6092cf67bf2b13fd65f270"
    "88d78b7e883c8759d2c4f5c65adb7553878ad575f9fad878e80a0c9ba63bcbcc2732e69485bbc9c90bfbd62481d9089b"
    "eccf80cfe2df16a2cf65bd92dd597b0707e0917af48bbb75fed413d238f5555a7a569d80c3414a8d0859dc65a46128ba"
    "b27af87a71314f318c782b23ebfe808b82b0ce26401d2e22f04d83d1255dc51addd3b75a2b1ae0784504df543af8969b"
    "e3ea7082ff7fc9888c144da2af58429ec96031dbcad3dad9af0dcbaaaf268cb8fcffead94f3c7ca495e056a9b47acdb7"
    "51fb73e666c6c655ade8297297d07ad1ba5e43f1bca32301651339e22904cc8c42f58c30c04aafdb038dda0847dd988d"
    "cda6f3bfd15c4b4c4525004aa06eeff8ca61783aacec57fb3d1f92b0fe2fd1a85f6724517b65e614ad6808d6f6ee34df"
    "f7310fdc82aebfd904b01e1dc54b2927094b2db68d6f903b68401adebf5a7e08d78ff4ef5d63653a65040cf9bfd4aca7"
    "984a74d37145986780fc0b16ac451649de6188a7dbdf191f64b5fc5e2ab47b57f7f7276cd419c17a3ca8e1b939ae49e4"
    "88acba6b965610b5480109c8b17b80e1b7b750dfc7598d5d5011fd2dcc5600a32ef5b52a1ecc820e308aa342721aac09"
    "43bf6686b64b2579376504ccc493d97e6aed3fb0f9cd71a43dd497f01f17c0e2cb3797aa2a2f256656168e6c496afc5f"
    "b93246f6b1116398a346f1a641f3b041e989f7914f90cc2c7fff357876e506b50d334ba77c225bc307ba537152f3f161"
    "0e4eafe595f6d9d90d11faa933a15ef1369546868a7f3a45a96768d40fd9d03412c091c6315cf4fde7cb68606937380d"
    "b2eaaa707b4c4185c32eddcdd306705e4dc1ffc872eeee475a64dfac86aba41c0618983f8741c5ef68d3a101e8a3b8ca"
    "c60c905c15fc910840b94c00a0b9d0"
)
# RFC 8032, section 7.1: seed, public key, message, signature.
RFC = {
    "TEST 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    "TEST 2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "TEST 3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
    "TEST 1024": (
        "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
        LONG,
        "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350aa5371b1508f9f4528ecea23c436d94b"
        "5e8fcd4f681e30a6ac00a9704a188a03",
    ),
    "TEST SHA(abc)": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
        "3dca179c138ac17ad9bef1177331a704",
    ),
}


@pytest.mark.parametrize("name", RFC)
def test_the_vectors_of_the_rfc_pass_and_no_neighbour_does(name):
    seed, key, message, signature = map(bytes.fromhex, RFC[name])
    assert ed25519.is_key(key)
    assert ed25519.verify(key, message, signature)
    assert not ed25519.verify(key, message + b"\0", signature)
    assert not ed25519.verify(key, message, signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not ed25519.verify(key, message, bytes([signature[0] ^ 1]) + signature[1:])
    mine = ThrowAwayKey(seed)  # what tests sign with is that scheme, too
    assert (mine.public.value, mine.raw(message)) == (key, signature)


def test_the_constants_are_those_of_the_curve():
    assert (-121665 * pow(121666, -1, P)) % P == ed25519._D
    assert pow(ed25519._ROOT, 2, P) == P - 1
    x, y, z, t = ed25519._BASE
    assert (y, z, t) == (4 * pow(5, -1, P) % P, 1, x * y % P)
    assert (y * y - x * x - 1 - ed25519._D * x * x * y * y) % P == 0
    assert ed25519._encoded(times(ORDER)) == (1).to_bytes(32, "little")


@st.composite
def cases(draw):
    """A signature, as made or changed in one place."""
    key = ThrowAwayKey(draw(st.binary(min_size=32, max_size=32)))
    message = draw(st.binary(max_size=200))
    parts = [key.public.value, message, key.raw(message)]
    place = draw(st.integers(0, 3))
    if place < 3 and parts[place]:
        data = bytearray(parts[place])
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
        parts[place] = bytes(data)
    return tuple(parts)


def openssl(key, message, signature):
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@given(cases())
@settings(max_examples=150, deadline=None)
def test_openssl_gives_the_same_answer(case):
    pytest.importorskip("cryptography", reason="what ours is compared with")
    assert ed25519.verify(*case) == openssl(*case)


def test_openssl_gives_the_same_answer_for_keys_of_mixed_order():
    pytest.importorskip("cryptography", reason="what ours is compared with")
    assert [openssl(*case) for case, _ in mixed_order()] == [cancels for _, cancels in mixed_order()]


@given(
    key=st.one_of(st.binary(max_size=40), st.binary(min_size=32, max_size=32)),
    signature=st.one_of(st.binary(max_size=70), st.binary(min_size=64, max_size=64)),
)
@settings(max_examples=150, deadline=None)
def test_bytes_that_nobody_signed_are_refused_and_raise_nothing(key, signature):
    assert not ed25519.verify(key, b"message", signature)


def test_another_s_of_the_same_signature_is_refused():
    key = ThrowAwayKey("malleable")
    signature = key.raw(b"message")
    s, tried = int.from_bytes(signature[32:], "little"), 0
    same = ed25519._encoded(times(s))
    while (s := s + ORDER) < 2**256:
        other = signature[:32] + s.to_bytes(32, "little")
        # The equation holds: only the bound on S tells it from the one that was signed.
        assert ed25519._encoded(times(s)) == same
        assert not ed25519.verify(key.public.value, b"message", other)
        tried += 1
    assert tried > 10


def small_points():
    """The eight points whose order divides eight."""
    y = 0
    while True:  # the order's multiple of a point is of small order; one of order eight makes all of them
        y += 1
        u, v = (y * y - 1) % P, (ed25519._D * y * y + 1) % P
        x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
        if (v * x * x - u) % P:
            x = x * ed25519._ROOT % P
        if (v * x * x - u) % P == 0:
            found = times(ORDER, (x, y, 1, x * y % P))
            points = [times(i, found) for i in range(8)]
            if len({ed25519._encoded(p) for p in points}) == 8:
                return points


SMALL = small_points()


def encodings(point):
    """Every 32 bytes that stand for a point where an encoding need not be canonical."""
    data = int.from_bytes(ed25519._encoded(point), "little")
    y, odd = data & (2**255 - 1), data >> 255
    signs = (0, 1) if point[0] % P == 0 else (odd,)
    return {(n | sign << 255).to_bytes(32, "little") for n in (y, y + P) if n < 2**255 for sign in signs}


def test_a_key_of_small_order_which_signs_everything_is_no_key():
    alternatives = {data for point in SMALL for data in encodings(point)}
    assert len(alternatives) == 14
    for key in alternatives:
        assert not ed25519.is_key(key)
        for r in alternatives:
            for message in (b"one", b"another"):
                assert not ed25519.verify(key, message, r + bytes(32))


def test_no_encoding_of_a_key_but_the_canonical_one_is_taken():
    for y in range(P, 2**255):
        for sign in (0, 1):
            assert not ed25519.is_key((y | sign << 255).to_bytes(32, "little"))


def test_a_small_order_r_is_refused():
    key = ThrowAwayKey("small R")
    for point in SMALL:
        r = ed25519._encoded(point)
        k = int.from_bytes(hashlib.sha512(r + key.public.value + b"m").digest(), "little") % ORDER
        # S B = k A, so R must be the neutral point: the equation holds for that one.
        signature = r + (k * key.scalar % ORDER).to_bytes(32, "little")
        assert not ed25519.verify(key.public.value, b"m", signature)


def mixed_order():
    """Signatures by a key with a part of small order, and whether the challenge cancels that part."""
    honest = ThrowAwayKey("mixed order")
    point = ed25519._added(times(honest.scalar), SMALL[1])
    key = ed25519._encoded(point)
    for number in range(40):
        message = number.to_bytes(2, "little")
        r = number + 1000
        shown = ed25519._encoded(times(r))
        k = int.from_bytes(hashlib.sha512(shown + key + message).digest(), "little") % ORDER
        signature = shown + ((r + k * honest.scalar) % ORDER).to_bytes(32, "little")
        yield (key, message, signature), k % 8 == 0


def test_the_equation_is_the_one_without_the_cofactor():
    answers = [(ed25519.verify(*case), cancels) for case, cancels in mixed_order()]
    assert set(answers) == {(True, True), (False, False)}
    honest = ThrowAwayKey("its R moved")
    signature = honest.raw(b"m")
    moved = ed25519._encoded(ed25519._added(ed25519._point(signature[:32]), SMALL[3]))
    assert not ed25519.verify(honest.public.value, b"m", moved + signature[32:])
