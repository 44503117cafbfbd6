"""Sentences of the report that depend on how the run was made."""

import shutil
from argparse import Namespace

import pytest
from torch import nn

import striate as st
from striate.core.files import read_csv, read_json, write_csv, write_json, write_text
from striate.run.recipe import Recipe
from striate.run.report_page import write_report
from striate.run.report_texts import (
    evaluation_text,
    first_filters_texts,
    loss_note,
    no_images_text,
    settings_tables,
)
from striate.run.run import Run
from striate.workflows.train.train import train_recipe
from support.images import write_folder


def report(run):
    return write_report(run).read_text()


@pytest.fixture
def copied(shared_run, tmp_path):
    """A run of its own, whose files a test may change."""
    return Run(shutil.copytree(shared_run.path, tmp_path / "copied"))


def trained(folder, name, **settings):
    recipe = Recipe(data=str(folder), batch_size=8, **{"epochs": 1, **settings})
    return train_recipe(recipe, out=folder.parent / name, quiet=True)


def test_filters_of_a_run_from_scratch_were_random(shared_run):
    page = report(shared_run)
    assert "Filters of the first convolution, before and after training." in page
    assert "before training: random" in page
    assert "pretrained" not in page.partition("First filters")[2][:2000]


def test_pretrained_filters_are_not_called_random(shared_folder, shared_run, tmp_path):
    folder = shutil.copytree(shared_folder, tmp_path / "photos")
    weights = str(shared_run.path)
    tuned = trained(folder, "tuned", pretrained=weights, model="tutorial_gray")
    page = report(tuned)
    assert f"before training: pretrained (the run {shared_run.path.name})" in page
    assert "random" not in page.partition("First filters")[2].partition("</section")[0]
    frozen = trained(
        *(folder, "frozen"),
        pretrained=weights,
        model="tutorial_gray",
        freeze=("conv1",),
    )
    page = report(frozen)
    assert "The layer is frozen, so training did not change them." in page
    assert f"pretrained (the run {shared_run.path.name})" in page
    assert "after training" not in page.partition("First filters")[2][:2000]
    head = st.transfer(
        *(str(folder),),
        pretrained=weights,
        model="tutorial_gray",
        out=tmp_path / "head",
        quiet=True,
    )
    page = report(head)
    assert "The layer is frozen, so training did not change them." in page
    assert "Choice of the L2 penalty" in page
    assert "Learning curves" not in page


def test_the_license_of_pretrained_weights_is_not_in_the_caption():
    run = Namespace(
        manifest={"pretrained": {"origin": "net-1a2b.pth (BSD-3-Clause; trained)"}},
        recipe=Recipe(data="digits", model="tutorial_gray"),
    )
    for unchanged in (True, False):
        facts = {"unchanged": unchanged, "computed": False}
        _, caption = first_filters_texts(run, "conv1", **facts)
        assert caption.endswith("pretrained (net-1a2b.pth)")


def test_settings_that_differ_from_the_default_come_first(shared_run):
    recipe = Recipe(data="photos", lr=0.5, rotate=3.0, augment="flip").resolved()
    changed, equal = settings_tables(recipe)
    differing = {row[0] for row in changed.rows}
    assert differing == {"data", "augment", "rotate", "lr"}
    assert ("epochs", str(Recipe(data="").epochs)) in equal.rows
    names = [row[0] for row in (*changed.rows, *equal.rows)]
    assert sorted(names) == sorted(recipe.as_dict())
    page = report(shared_run)
    assert page.index("Different from the default") < page.index("Default settings")


def test_the_predictions_come_before_the_training(shared_run):
    page = report(shared_run)
    titles = ("Confusion matrix", "Highest-loss errors", "Learning curves")
    places = [page.rindex(f">{title}") for title in titles]
    assert places == sorted(places)


def test_whitening_filters_were_computed_from_images(tmp_path):
    folder = write_folder(tmp_path / "photos", count=20, channels=3)
    run = trained(folder, "white", model="fast_small", image_size=16)
    assert "They were computed from training images, and are not trained." in report(
        run
    )


def test_a_module_that_is_given_may_have_been_trained(shared_folder, tmp_path):
    data = st.load_data(shared_folder)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    run = st.train(model, data, epochs=1, out=tmp_path / "own", quiet=True)
    page = report(run)
    assert "before training" in page
    assert "before training: random" not in page
    frozen = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    frozen[0].requires_grad_(False)
    run = st.train(frozen, data, epochs=1, out=tmp_path / "own-2", quiet=True)
    assert "The layer is frozen" in report(run)


def test_filters_that_did_not_change_for_no_known_reason(copied):
    """With a learning rate of almost 0, for example."""
    name = "weights/first_layer_initial.safetensors"
    weights = st.load_run(copied.path).model.state_dict()
    first = next(k for k in weights if k.endswith("weight")).removesuffix(".weight")
    from striate.engine.weights_io import save_weights

    save_weights(copied.path / name, {first: weights[f"{first}.weight"]})
    assert "Training did not change them." in report(copied)


def test_how_often_the_test_split_was_evaluated(copied, shared_folder):
    assert evaluation_text(copied).startswith("Evaluated once on the test split, using")
    st.resume(copied.path, epochs=5, quiet=True)
    again = Run(copied.path)
    assert again.manifest["resumed"][0]["was_finished"] is True
    text = evaluation_text(again)
    assert text.startswith("Evaluated on the test split, using")
    assert "continued after 1 earlier evaluation on this split" in text
    assert "Evaluated once" not in report(again)


def test_a_logistic_head_without_a_test_split(copied):
    (copied.path / "predictions_test.csv").unlink()
    write_csv(
        copied.path / "penalties.csv", ("penalty", "loss", "accuracy"), [(1, 1, 1)]
    )
    text = evaluation_text(Run(copied.path))
    assert text.endswith("evaluated on the val split; there is no test split.")
    (copied.path / "penalties.csv").unlink()
    text = evaluation_text(Run(copied.path))
    assert text.startswith("There is no test split. These validation results are opt")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "Training loss: mean over the steps"),
        (
            {"label_smoothing": 0.1},
            "computed with label smoothing; the validation loss is not.",
        ),
        ({"class_weights": "loss"}, "computed with class weights; "),
        ({"class_weights": "sampling"}, "computed with class-balanced sampling; "),
        (
            {"label_smoothing": 0.1, "class_weights": "auto", "augment": "six"},
            "and logit adjustment (class frequencies) and augmentation; the",
        ),
    ],
)
def test_the_note_on_the_training_loss_names_what_the_run_used(settings, text):
    settings = {"label_smoothing": 0.0, **settings}
    assert text in loss_note(Recipe(data="digits", **settings).resolved())


def test_why_there_are_no_images(shared_run, tmp_path):
    assert "could not be read" in no_images_text(shared_run)
    manifest = read_json(shared_run.path / "manifest.json")
    folder = shutil.copytree(shared_run.path, tmp_path / "memory")
    manifest["data"]["source"] = ""
    write_json(folder / "manifest.json", manifest)
    page = report(Run(folder))
    assert "The cells show no images: the run was trained on images in memory" in page


def test_errors_with_a_low_loss_are_errors_too(copied):
    """The images with the highest losses may all be classified correctly."""
    path = copied.path / "predictions_test.csv"
    rows = read_csv(path)
    columns = list(rows[0])
    for row in rows:
        row["loss"] = "9"
    rows[0]["loss"] = "1"
    classes = [c.removeprefix("p_") for c in columns if c.startswith("p_")]
    true = rows[0].get("true") or rows[0]["label"]
    for name in classes:
        rows[0][f"p_{name}"] = "0.4" if name == true else "0.6"
    write_csv(path, columns, [[row[c] for c in columns] for row in rows])
    section = report(Run(copied.path)).partition("Highest-loss errors")[2]
    assert "All predictions are correct." not in section[:3000]


def test_epochs_count_from_one_in_every_file(shared_run):
    rows = read_csv(shared_run.path / "results.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["epoch"] for row in shared_run.history] == [1, 2, 3, 4]
    timing = read_csv(shared_run.path / "timing.csv")
    assert [row["epoch"] for row in timing] == ["1", "2", "3", "4"]
    lines = (shared_run.path / "events.jsonl").read_text().splitlines()
    epochs = [int(line.partition('"epoch": ')[2].partition(",")[0]) for line in lines]
    assert sorted(set(epochs)) == [1, 2, 3, 4]
    best = [int(row["epoch"]) for row in rows if row["best"] == "true"][-1]
    assert shared_run.manifest["best_epoch"] == best
    assert f"best epoch: {best}" in report(shared_run)


def test_a_history_of_an_earlier_version_counts_from_one_too(copied):
    path = copied.path / "results.csv"
    header, *rows = path.read_text().splitlines()
    old = [f"{i},{row.partition(',')[2]}" for i, row in enumerate(rows)]
    write_text(path, "\n".join([header, *old, ""]))
    assert [row["epoch"] for row in Run(copied.path).history] == [1, 2, 3, 4]


def test_patterns_are_a_list_and_sizes_a_product(copied):
    text = (copied.path / "args.yaml").read_text()
    assert "freeze: null" in text
    changed = text.replace("freeze: null", "freeze: [conv1, 'conv2*']")
    write_text(copied.path / "args.yaml", changed)
    page = report(Run(copied.path))
    assert "conv1, conv2*" in page
    assert "conv1×conv2*" not in page
    assert "8×8" in page
