"""Settings: one value, three spellings, strict in each."""

import dataclasses
from dataclasses import fields
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate.core.errors import SettingError, UnknownNameError
from striate.data.augment.augment import RANGES, Augment, augmentation
from striate.data.config import DataConfig
from striate.data.config_types import DataSettings
from striate.engine.config import DEFAULT_LR, SCHEDULE_NAMES, OptimConfig
from striate.engine.optim import OPTIMIZERS
from striate.engine.schedule import SCHEDULES
from striate.models.config import ModelConfig
from striate.run.parse_settings import make_recipe, parse_setting
from striate.run.recipe import Recipe, TrainConfig
from striate.run.recipe_types import TrainSettings, TransferSettings
from striate.run.yaml_io import read_settings, settings_yaml
from striate.workflows.transfer.options import TransferOptions


def test_the_names_are_those_of_the_registries():
    """They stand twice so that --help needs no torch."""
    assert tuple(SCHEDULES) == SCHEDULE_NAMES
    assert tuple(OPTIMIZERS) == tuple(DEFAULT_LR)


def test_ranges_of_augmentation_are_settings():
    """Their help and bounds are those of `Augment`; the preset fills what is left."""
    recipe = make_recipe({"data": "digits"}, {"augment": "six", "rotate": "30"})
    assert recipe.augmentation == augmentation("six", rotate=30.0)
    assert recipe.resolved().shear == 10
    assert make_recipe(recipe.resolved().as_dict()).augmentation == recipe.augmentation
    for name in RANGES:
        own = Augment.__dataclass_fields__[name].metadata
        assert Recipe.__dataclass_fields__[name].metadata == own
    with pytest.raises(SettingError, match="warp must be at most"):
        make_recipe({"data": "digits", "warp": 0.2})
    with pytest.raises(UnknownNameError, match="'sideways'"):
        make_recipe({"data": "digits", "flip": "sideways"})


def test_a_preset_laid_over_ranges_starts_afresh():
    """`--config args.yaml --augment none` must not leave the file's rotation on."""
    old = make_recipe({"data": "digits", "augment": "six"}).resolved().as_dict()
    assert not make_recipe(old, {"augment": "none"}).augmentation.is_active
    assert make_recipe(old, {"rotate": 3}).augmentation.shear == 10
    mild = make_recipe(old, {"augment": "none", "rotate": 3}).augmentation
    assert mild == Augment(rotate=3)


POSITIVE = st.floats(1e-9, 1e3)
SHARE = st.floats(0, 0.99)
RECIPES = st.builds(
    Recipe,
    data=st.text(st.characters(exclude_categories=["Cc"]), min_size=1),
    epochs=st.integers(1, 999),
    batch_size=st.integers(1, 999),
    lr=st.none() | POSITIVE,
    optimizer=st.sampled_from(list(DEFAULT_LR)),
    momentum=SHARE,
    weight_decay=st.floats(0, 10),
    schedule=st.sampled_from(SCHEDULE_NAMES),
    label_smoothing=SHARE,
    patience=st.integers(0, 99),
    augment=st.sampled_from(["none", "flip", "six"]),
    rotate=st.none() | st.floats(0, 180),
    flip=st.none() | st.sampled_from(["none", "horizontal", "both"]),
    warp=st.none() | st.floats(0, 0.12),
    border=st.none() | st.sampled_from(["reflect", "edge", "background"]),
    image_size=st.none()
    | st.integers(1, 999)
    | st.tuples(st.integers(1, 9), st.integers(1, 9)),
    in_chans=st.none() | st.integers(1, 9),
    seed=st.integers(0, 2**40),
)


@given(RECIPES)
def test_yaml_round_trip(tmp_path_factory, recipe):
    path = tmp_path_factory.mktemp("yaml") / "args.yaml"
    path.write_text(settings_yaml(recipe.as_dict()), encoding="utf-8")
    assert make_recipe(read_settings(path)) == recipe


@given(RECIPES)
def test_flag_round_trip(recipe):
    words = {
        name: "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in dataclasses.asdict(recipe).items()
        if value is not None
    }
    assert make_recipe(words) == recipe


def test_a_recipe_of_odd_bytes(tmp_path):
    recipe = Recipe(data="caf\udce9/")
    (tmp_path / "a.yaml").write_text(settings_yaml(recipe.as_dict()), encoding="utf-8")
    assert make_recipe(read_settings(tmp_path / "a.yaml")) == recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": "many"}, "epochs must be int, got 'many'"),
        ({"epochs": 2.5}, "epochs must be int, got 2.5"),
        ({"epochs": True}, "epochs must be int, got True"),
        ({"epochs": None}, "epochs must be int, got None"),
        ({"epochs": [3]}, r"epochs must be int, got \[3\]"),
        ({"lr": "fast"}, "lr must be float, got 'fast'"),
        ({"lr": 0}, "lr must be above 0"),
        ({"lr": "nan"}, "lr must be above 0"),
        ({"lr": "inf"}, "lr must be finite, got inf"),
        ({"std": "0.5,inf,1"}, "std must be finite, got inf"),
        ({"mean": [float("nan")]}, "mean must be finite, got nan"),
        ({"save_every": "inf"}, "save_every must be finite"),
        ({"lr": True}, "lr must be float"),
        ({"model": None}, "model must be str, got None"),
        ({"model": ["a"]}, "model must be str"),
        ({"momentum": 1}, "momentum must be below 1, got 1"),
        ({"label_smoothing": -0.1}, "label_smoothing must be at least 0, got -0.1"),
        ({"val_fraction": 0}, "val_fraction must be above 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"in_chans": 0}, "in_chans must be at least 1, got 0"),
        (
            {"image_size": "64x"},
            "image_size must be a number of pixels or HEIGHTxWIDTH",
        ),
        (
            {"image_size": 64.5},
            "image_size must be a number of pixels or HEIGHTxWIDTH, got 64.5",
        ),
        (
            {"image_size": "1x2×3"},
            "image_size must be a number of pixels or HEIGHTxWIDTH",
        ),
        (
            {"image_size": [1, 2, 3]},
            "image_size must be a number of pixels or HEIGHTxWIDTH",
        ),
        ({"optimizer": "adamm"}, "no optimizer is called 'adamm'"),
        ({"schedule": "cosin"}, "no schedule is called 'cosin'"),
        ({"resize": "strech"}, "no resize is called 'strech'"),
        ({"epoch": 3}, "no setting is called 'epoch'"),
        ({"__class__": 3}, "no setting is called '__class__'"),
        ({"data": ""}, "no data set is given"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(SettingError, match=message):
        make_recipe({"data": "digits"}, settings)


def test_wrong_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean epochs"):
        make_recipe({"data": "digits", "epoch": 3})
    with pytest.raises(UnknownNameError, match=r"did you mean adamw\?"):
        Recipe(data="digits", optimizer="adamW2")
    with pytest.raises(SettingError, match="--label-smoothing"):
        Recipe(data="digits", label_smoothing=1)


def test_spellings():
    for size in ("48x64", "48X64", "48×64", "48 x 64"):
        assert parse_setting("image_size", size) == (48, 64)
    assert parse_setting("image_size", [48, 64]) == (48, 64)
    assert parse_setting("image_size", "48") == 48
    assert parse_setting("lr", 1) == 1.0
    assert parse_setting("lr", None) is None
    assert parse_setting("epochs", "07") == 7


def test_defaults_that_depend():
    assert Recipe(data="x").resolved().lr == 0.003
    assert Recipe(data="x", optimizer="sgd").resolved().lr == 0.05
    assert Recipe(data="x", lr=1).resolved().lr == 1


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}]\n"
    for before, name in pairwise("abcdefghijklmnopqrstuvwxyz")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\nlr: 1\nepochs: 4\n", "'epochs' is given twice"),
        ("batch-size: 3\nbatch_size: 4\n", "'batch_size' is given twice"),
        ("data: !!python/object/apply:os.mkdir [exploded]\n", "not valid YAML"),
        ("data: !!python/name:os.mkdir\n", "not valid YAML"),
        ("data: !mine 3\n", "not valid YAML"),
        ("a: [1, 2\n", "not valid YAML"),
        ("[" * 700, "not valid YAML"),
        ("- digits\n", "the settings file has no `name: value` lines"),
        ("", "the settings file has no `name: value` lines"),
        ("? [a, b]\n: 1\n", "not valid YAML"),
        ("x: &x {a: 1}\n<<: *x\n", "aliases"),
        (LAUGHS, "aliases"),
        ("data: caf\xe9", "not valid YAML"),
    ],
)
def test_strict_yaml(tmp_path, text, message):
    """Without the strict loader the last of two keys wins unseen, and a few lines of
    aliases unfold to gigabytes in an error message."""
    (tmp_path / "a.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingError, match=message):
        read_settings(tmp_path / "a.yaml")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("compile: off", "compile", "off"),
        ("compile: on", "compile", "on"),
        ("cache: off", "cache", "off"),
        ("normalize: no", "normalize", "none"),
        ("flip: off", "flip", "none"),
        ("lr: 1e-3", "lr", 0.001),
    ],
)
def test_words_that_yaml_reads_as_true_or_false(tmp_path, line, name, value):
    """YAML 1.1 reads `off` as false."""
    (tmp_path / "s.yaml").write_text(f"data: digits\n{line}\n")
    recipe = make_recipe(read_settings(tmp_path / "s.yaml"))
    assert getattr(recipe, name) == value


def test_missing_settings(tmp_path):
    with pytest.raises(
        SettingError, match="settings file cannot be read: No such file"
    ):
        read_settings(tmp_path / "none.yaml")


def test_hyphens_are_underscores(tmp_path):
    (tmp_path / "a.yaml").write_text("batch-size: 3\n")
    assert read_settings(tmp_path / "a.yaml") == {"batch_size": 3}


def test_typed_keyword_arguments_are_the_fields():
    """Editors complete the keyword arguments from these types; none may be missing."""
    data = {spec.name for spec in fields(DataConfig)}
    train = {spec.name for spec in fields(TrainConfig)}
    model = {spec.name for spec in fields(ModelConfig)}
    options = {spec.name for spec in fields(TransferOptions)}
    assert DataSettings.__annotations__.keys() == data
    assert TrainSettings.__annotations__.keys() == train | {"freeze"}
    transfer = TransferSettings.__annotations__.keys()
    assert transfer == (data | train | model | options) - {"pretrained"}


def test_a_recipe_is_every_config():
    recipe = Recipe(data="digits", lr=0.1, image_size=16, flip="both")
    assert recipe.max_lr == 0.1
    assert recipe.split_config.seed == recipe.seed
    assert recipe.augmentation.flip == "both"
    names = [spec.name for spec in fields(Recipe)]
    assert len(names) == len(set(names))
    with pytest.raises(SettingError, match="epochs must be at least 1"):
        OptimConfig(epochs=0)
    with pytest.raises(SettingError):
        DataConfig(folds=3)
