"""The main job on a generated set, scan to report, in ten seconds of one core."""

import time
from pathlib import Path

import pytest

import striate as st
from striate.run.report_page import write_report
from support.images import snapshot, write_folder


@pytest.mark.charts  # they belong to the ten seconds
def test_scan_train_predict_report(tmp_path):
    began = time.process_time()  # of this process alone: machines are busy
    photos = write_folder(
        tmp_path / "photos", ("across", "down", "aslant"), 20, (12, 12)
    )
    (photos / "down/broken.png").write_bytes(b"\x89PNG\r\n")
    before = snapshot(photos)
    data = st.load_data(photos)
    assert (data.num_files, len(data.rows), len(data.quarantined)) == (61, 60, 1)
    model = st.create_model("tutorial_gray", num_classes=3, in_chans=1, image_size=12)
    run = st.train(model, data, epochs=8, batch_size=16, quiet=True)
    assert run.scores["test"]["accuracy"] > 0.85
    answers = st.predict(run, [photos / "across", str(photos / "down/*.png")])
    labels = [one.pred for one in answers.predictions]
    assert labels.count("across") + labels.count("down") >= 36
    assert [skip.reason for skip in answers.skipped] == ["not-an-image"]
    page = write_report(st.load_run(run.path, model=model)).read_text(encoding="utf-8")
    assert run.path == Path("runs/train/photos-ImageClassifier")
    assert "broken.png" in page
    assert snapshot(photos) == before
    assert time.process_time() - began < 10
