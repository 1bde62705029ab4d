import inspect
import re

import edge_sdk
from edge_sdk import errors


def test_all_is_sorted_and_true():
    assert list(edge_sdk.__all__) == sorted(edge_sdk.__all__)
    for name in edge_sdk.__all__:
        assert hasattr(edge_sdk, name), name


def test_every_error_is_importable_from_the_package():
    classes = {n for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, Exception)}
    assert classes <= set(edge_sdk.__all__)


def test_the_drawn_tree_is_the_tree():
    drawn, stack = {}, []
    for line in errors.__doc__.splitlines():
        found = re.match(r"^( {4}[│├└─ ]*)([A-Z]\w+)", line)
        if found and hasattr(errors, found[2]):
            depth = len(found[1]) // 4 - 1
            stack = [*stack[:depth], found[2]]
            drawn[found[2]] = stack[-2] if depth else "Exception"
    actual = {
        n: c.__bases__[0].__name__
        for n, c in vars(errors).items()
        if inspect.isclass(c) and c.__module__ == errors.__name__
    }
    assert drawn == actual


def test_errors_that_python_has_a_word_for_are_that_too_and_the_tree_says_so():
    for name, base in (
        ("UnknownTarget", LookupError),
        ("MissingDependency", ImportError),
        ("InputError", ValueError),
    ):
        assert issubclass(getattr(errors, name), base)
        assert re.search(rf"{name} +\({base.__name__}\)", errors.__doc__)


def test_exit_codes_are_the_documented_ones():
    codes = {
        "GateFailed": 1,
        "CalibrationFailed": 1,
        "CompileFailed": 1,
        "InputError": 2,
        "UnknownTarget": 2,
        "UnsupportedRecipe": 2,
        "MissingDependency": 3,
        "LoadFailed": 3,
        "InferFailed": 3,
        "SourceUnavailable": 3,
        "ManifestInvalid": 4,
        "ChecksumMismatch": 4,
        "SignatureInvalid": 4,
    }
    assert {name: getattr(errors, name).exit_code for name in codes} == codes


def test_every_public_name_is_documented():
    for name in edge_sdk.__all__:
        assert inspect.getdoc(getattr(edge_sdk, name)), name
