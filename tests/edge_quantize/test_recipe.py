import pytest

from edge_quantize.metrics import evaluator_names, evaluator_of
from edge_quantize.recipe import FOLDER, names, read_recipe
from edge_sdk.errors import InputError

BASES = ("int8-mixed", "int8-wonly", "int8-qat", "int8", "fp16", "fp32")
GOOD = """
name = "mine"
precision = "int8"
calibration_items = 64
[gate.max_drop]
map50 = 0.01
"""


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return write


def test_the_precisions_come_with_the_sdk():
    assert set(BASES) == set(names())
    assert read_recipe("fp32").calibration_items == 0
    assert read_recipe("int8").precision == "int8"


@pytest.mark.parametrize("name", names())
def test_a_shipped_recipe_is_named_as_its_file_and_limits_every_task(name):
    found = read_recipe(name)
    assert found.name == name
    assert found == read_recipe(FOLDER / f"{name}.toml")
    limited = {"map50", "accuracy", "face_recall", "macro_f1", "uar", "apcer_worst", "bpcer"}
    assert set(found.gate.max_drop) == limited
    assert all(limited & set(evaluator_of(task).gated) for task in evaluator_names())
    assert all(0 < drop < 0.05 for drop in found.gate.max_drop.values())


def test_a_recipe_of_ones_own(recipe):
    assert read_recipe(recipe(GOOD)).gate.max_drop == {"map50": 0.01}
    assert read_recipe(str(recipe(GOOD))).calibration_items == 64


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(InputError, match="int9") as caught:
        read_recipe("int9")
    assert "int8" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "granularity", "method", "symmetric"),
    [
        ("int8-percentile", "channel", "percentile", None),
        ("int8-tensor", "tensor", "minmax", None),
        ("int8-tensor-mse-sym", "tensor", "mse", True),
        ("int8-mixed-entropy-asym", "channel", "entropy", False),
        ("int8-wonly-tensor", "tensor", "minmax", None),
    ],
)
def test_a_variants_name_says_what_it_changes(name, granularity, method, symmetric):
    found, base = read_recipe(name), read_recipe(next(n for n in BASES if name.startswith(n)))
    assert (found.name, found.granularity, found.method, found.symmetric) == (
        name,
        granularity,
        method,
        symmetric,
    )
    assert (found.precision, found.gate) == (base.precision, base.gate)


@pytest.mark.parametrize("name", ["int8-", "int8-channel", "int8-minmax", "int8-mse-tensor", "int8-mse-mse"])
def test_a_variant_has_one_name(name):
    with pytest.raises(InputError, match="no recipe") as caught:
        read_recipe(name)
    assert "[-tensor]" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("fp32-tensor", "granularity"),
        ("int8-wonly-mse", "method"),
        ("fp16-sym", "symmetric"),
        ("int8-qat-tensor", "granularity means nothing for trained ranges"),
        ("int8-qat-sym", "symmetric"),
        ("int8-qat-mse", "calibration_items"),
    ],
)
def test_a_variant_that_means_nothing_is_refused(name, match):
    with pytest.raises(InputError, match=match):
        read_recipe(name)


@pytest.mark.parametrize("name", ["../recipes/int8", "", "INT8"])
def test_a_name_is_a_name_and_no_path(name):
    with pytest.raises(InputError):
        read_recipe(name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml"):
        read_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("[gate", "colour = 1\n[gate", "colour"),
        ('precision = "int8"', "", "precision"),
        ('"int8"', '"int4"', "precision"),
        ("64", "true", "calibration_items"),
        ("64", '"64"', "calibration_items"),
        ("0.01", "nan", "map50"),
        ("0.01", '"0.01"', "map50"),
        ("map50 = 0.01", "maap50 = 0.01", "maap50"),  # a metric that nothing measures gates nothing
        ("64", "-1", "calibration_items"),
        ("64", "0", "calibration_items"),  # int8 without calibration
        ("64", '64\nmethod = "trained"', "calibration_items"),
        ('"int8"\ncalibration_items = 64', '"fp16"\ncalibration_items = 0\nmethod = "trained"', "method"),
        ('"int8"', '"fp32"', "calibration_items"),  # float with calibration: what would it be for?
        ("0.01", "-0.01", "map50"),
        ("[gate.max", "[gate]\nconfidence = 1.0\n[gate.max", "confidence"),
        ('"int8"', '"int8-wonly"', "calibration_items"),
        ("0.01", "1.5", "map50"),
        ("0.01", "0", "map50"),  # no set shows that nothing at all is lost
        (
            "map50 =",
            "recall =",
            "recall",
        ),  # taken where F1 is best, which is elsewhere for the compiled network
    ],
)
def test_a_recipe_that_cannot_be_meant_is_named_by_its_file_and_key(recipe, old, new, match):
    assert old in GOOD
    path = recipe(GOOD.replace(old, new))
    with pytest.raises(InputError, match=rf"mine\.toml.*{match}"):
        read_recipe(path)


@pytest.mark.parametrize("name", names())
def test_shipped_recipes_are_named_as_their_files(name):
    recipe = read_recipe(name)
    assert recipe.name == name
    assert recipe.gate.max_drop


@pytest.mark.parametrize(
    "text", ["name = ", 'name = "x"', 'name = "x"\nprecision = "int3"\ncalibration_items = 1']
)
def test_a_broken_recipe_is_named(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mine\.toml"):
        read_recipe(path)
