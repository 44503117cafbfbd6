"""Training accuracy of a finished run, and its place in the report."""

import pytest
import torch

import striate as st
from striate.run import train_accuracy
from striate.run.recipe import Recipe
from striate.run.report_page import write_report
from striate.run.run import Run
from striate.run.train_accuracy import (
    MAX_TRAIN_IMAGES,
    CorrectCount,
    measure_train_accuracy,
    training_sample,
)


def test_a_record_is_read_again():
    count = CorrectCount(177, 183)
    record = count.as_record()
    assert CorrectCount.from_record(record) == count
    assert CorrectCount.from_record(None) is None
    low, high = record["interval"]
    assert 0 < low < record["accuracy"] < high < 1


def test_the_sample_follows_from_the_seed():
    assert training_sample(40, 1) == list(range(40))
    sample = training_sample(9000, 1)
    assert len(set(sample)) == MAX_TRAIN_IMAGES
    assert sample == sorted(sample) == training_sample(9000, 1)
    assert sample != training_sample(9000, 2)
    assert 4000 < sum(sample) / len(sample) < 5000


def test_it_is_the_accuracy_of_the_best_weights(shared_run):
    record = shared_run.manifest["train_accuracy"]
    score = Run(shared_run.path).evaluate("train")
    assert record["accuracy"] == score.accuracy
    assert record["interval"] == list(score.interval)
    assert record["count"] == score.count == len(shared_run.data.subset("train"))


def test_it_is_measured_without_augmentation(shared_folder, no_report):
    """Random erasing of everything would leave nothing to recognize."""
    settings = {"epochs": 3, "batch_size": 8, "erase": 1.0, "seed": 1}
    recipe = Recipe(data=str(shared_folder), **settings)
    run = st.train_recipe(recipe, quiet=True)
    score = run.evaluate("train")
    assert run.manifest["train_accuracy"]["accuracy"] == score.accuracy


def test_a_large_training_split_is_sampled(shared_run, monkeypatch):
    monkeypatch.setattr(train_accuracy, "MAX_TRAIN_IMAGES", 9)
    state = torch.random.get_rng_state()
    count = measure_train_accuracy(shared_run)
    assert count.count == 9
    assert torch.equal(torch.random.get_rng_state(), state)
    assert measure_train_accuracy(shared_run) == count


def test_the_report_begins_with_the_verdict(shared_run):
    """The verdict and the accuracies of all splits are in the first section."""
    page = write_report(shared_run).read_text(encoding="utf-8").replace("\u00a0", " ")
    first = page.split("<section")[1]
    number = len(shared_run.predictions("test").paths)
    assert f"There are only {number} test images: the 95 % interval" in first
    assert first.index("There are only") < first.index("<dt>test accuracy</dt>")
    assert "Next steps" in first
    for name in ("training accuracy", "validation accuracy"):
        assert f"<dt>{name}</dt>" in first


@pytest.mark.parametrize("split", ["train", "val"])
def test_evaluate_prints_a_verdict(striate, shared_run, split):
    result = striate("evaluate", shared_run.path, "--split", split)
    assert result.code == 0
    shown = " ".join(result.out.split())
    words = (
        "clearly better than always predicting"
        if split == "train"
        else "There are only"
    )
    assert words in shown.split("accuracy 100.0 % 95")[0]
    assert ("training accuracy 100.0 %" in shown) == (split == "val")
    fields = striate("evaluate", shared_run.path, "--split", split, "--json").json
    assert fields["verdict"]["kind"] == (
        "above baseline" if split == "train" else "too few images"
    )
    assert fields["verdict"]["sentences"][0] in shown
