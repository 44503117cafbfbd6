"""`striate export`: files that give the answers of the run, or no file."""

import errno
import inspect
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import striate as st
from striate.core.errors import RunError, SettingError, StriateError
from striate.exporters import onnx_preprocess, portable_decode
from striate.exporters.ort_session import onnx_session
from striate.exporters.runtimes import open_session
from striate.run.parse_settings import make_recipe
from striate.workflows.export import formats, samples
from striate.workflows.export.export import ExportRefusedError
from support.photo_folder import write_photos

pytestmark = pytest.mark.filterwarnings("ignore:.*TypedStorage.*")


def trained(out, data, **settings):
    recipe = make_recipe({"data": str(data), "epochs": 1, **settings})
    return st.train_recipe(recipe, out=out, quiet=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """JPEG files of several sizes, some of them with an EXIF orientation."""
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def photo_run(photos, tmp_path_factory):
    """A run on them; look, do not touch."""
    out = tmp_path_factory.mktemp("run") / "photos"
    return trained(
        out, photos, model="cifar_resnet20", image_size=20, resize="pad", batch_size=8
    )


def answers(path, image):
    program = onnx_session(path.read_bytes(), threads=1)
    names = [output.name for output in program.get_outputs()]
    return dict(zip(names, program.run(None, {"image": image}), strict=True))


def test_the_file_answers_as_predict_does(photo_run, photos, tmp_path):
    result = st.export(photo_run, tmp_path / "photos.onnx", verify=None)
    assert result.report.passed
    assert result.report.same_class == result.report.images > 5
    stages = [stage.stage for stage in result.report.stages]
    wanted = ["classes", "decode", "resize", "normalize", "logits", "probabilities"]
    assert stages == [*wanted, "batch"]
    files = sorted(photos.rglob("*.jpg"))
    expected = photo_run.predict(files).predictions
    for file, prediction in zip(files, expected, strict=True):
        pixels = portable_decode.decode_with_pillow(file.read_bytes(), 3)
        values = answers(result.path, pixels[None])
        probs = list(prediction.probs.values())
        assert np.abs(values["probabilities"][0] - probs).max() < 1e-5
        assert photo_run.labels.names[values["label_index"][0]] == prediction.pred
        assert not values["unknown"][0]


def test_metadata_say_what_the_file_is(photo_run, tmp_path):
    path = st.export(photo_run, tmp_path / "m.onnx", threshold=0.999).path
    model = onnx.load(path)
    facts = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert facts["striate.classes"] == list(photo_run.labels.names)
    assert facts["striate.preprocess"]["resize"] == "pad"
    assert facts["striate.probabilities"]["temperature"] == photo_run.temperature
    assert facts["striate.network"] == "cifar_resnet20"
    assert model.opset_import[0].version == 18
    assert {node.op_type for node in model.graph.node}.isdisjoint({"Resize"})
    pixels = np.zeros((2, 9, 30, 3), np.uint8)
    assert answers(path, pixels)["unknown"].tolist() == [True, True]


def test_the_same_bytes_twice(photo_run, tmp_path):
    for name in ("a", "b"):
        st.export(photo_run, tmp_path / f"{name}.onnx", verify=2)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_logits_features_and_class_activation_maps(photo_run, tmp_path):
    outputs = ("probabilities", "logits", "features", "cam")
    path = st.export(photo_run, tmp_path / "all.onnx", outputs=outputs, verify=2).path
    values = answers(
        path, np.random.default_rng(0).integers(0, 255, (3, 40, 31, 3), np.uint8)
    )
    assert values["features"].shape == (3, 64)
    bias = photo_run.model.fc.bias.detach().numpy()
    mean = values["cam"].mean((2, 3)) + bias
    assert np.abs(mean - values["logits"]).max() < 1e-4


@pytest.mark.parametrize("kind", ["resized", "tensor"])
def test_smaller_inputs(photo_run, tmp_path, kind):
    result = st.export(photo_run, tmp_path / "k.onnx", input=kind, verify=3)
    assert result.input == kind
    model = onnx.load(result.path)
    assert len(model.graph.input) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_openvino(photo_run, tmp_path):
    pytest.importorskip("openvino")
    first = st.export(photo_run, tmp_path / "a.xml", verify=4)
    assert [path.name for path in first.paths] == ["a.xml", "a.bin"]
    assert first.report.passed
    st.export(photo_run, tmp_path / "b.xml", verify=4)
    for suffix in (".xml", ".bin"):
        files = [(tmp_path / f"{name}{suffix}").read_bytes() for name in "ab"]
        assert files[0] == files[1]
    assert str(tmp_path).encode() not in first.path.read_bytes()
    with pytest.raises(SettingError, match="single precision"):
        st.export(photo_run, tmp_path / "c.xml", input="image")
    half = st.export(
        photo_run, tmp_path / "h.xml", precision="fp16", tolerance=0.05, verify=4
    )
    assert half.size < 0.75 * first.size


@pytest.mark.parametrize("layers", ["pool 2 > conv 3x3 4", "dense 8"])
def test_openvino_without_a_convolution_at_the_input(photos, tmp_path, layers):
    """OpenVINO then cannot hide in the weights that it normalizes by a product."""
    pytest.importorskip("openvino")
    run = trained(tmp_path / "run", photos, model=f"12x12x3 > {layers} > dense 2")
    report = st.export(run, tmp_path / "net.xml", verify=4).report
    stages = {stage.stage: stage for stage in report.stages}
    assert 0 < stages["normalize"].max_difference < 1e-5
    assert report.passed


def test_triton(photo_run, tmp_path):
    result = st.export(photo_run, tmp_path / "repository", format="triton", verify=2)
    folder = tmp_path / "repository" / "repository"
    config = (folder / "config.pbtxt").read_text()
    assert "dims: [-1, -1, 3]" in config
    assert (folder / "labels.txt").read_text().split() == list(photo_run.labels.names)
    onnx.checker.check_model(onnx.load(folder / "1" / "model.onnx"))
    assert len(result.paths) == 3


def test_several_labels(tmp_path, several_labels_run):
    result = st.export(several_labels_run, tmp_path / "labels.onnx", verify=None)
    program = onnx_session(result.path.read_bytes())
    assert {o.name for o in program.get_outputs()} == {"probabilities", "predicted"}


@pytest.fixture
def several_labels_run(tmp_path):
    draw = np.random.default_rng(0)
    rows = ["image_path,label"]
    for i in range(30):
        pixels = draw.integers(0, 90, (12, 12), np.uint8)
        names = [name for name, bit in (("left", 1), ("right", 2)) if i & bit]
        for name in names:
            columns = slice(0, 6) if name == "left" else slice(6, 12)
            pixels[:, columns] += 120
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{';'.join(names)}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    sketch = "12x12x1 > conv 3x3 4 same > pool 2 > dense 2"
    return trained(tmp_path / "run", tmp_path / "labels.csv", model=sketch)


def test_own_networks(photos, tmp_path):
    code = (
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes=2):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 6, 3)\n"
        "        self.fc = nn.Linear(6, num_classes)\n"
        "    def forward(self, x):\n"
        "        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))\n"
    )
    (tmp_path / "net.py").write_text(code)
    name = f"{tmp_path / 'net.py'}:Net"
    run = trained(tmp_path / "run", photos, model=name, image_size=12)
    assert st.export(run, tmp_path / "net.onnx").report.passed


def test_test_time_augmentation_is_part_of_the_file(photos, tmp_path):
    sketch = "12x12x3 > conv 3x3 4 > dense 2"
    run = trained(tmp_path / "run", photos, model=sketch, tta="flip")
    path = st.export(run, tmp_path / "net.onnx").path
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("Conv") == 2


# --- faults that exporters of the field have shipped ---


def changed_source(monkeypatch, module, function, old, new):
    """Replace a function by its own code with one change."""
    source = inspect.getsource(getattr(module, function))
    assert old in source
    space = dict(vars(module))
    exec(source.replace(old, new), space)  # noqa: S102 - the test's own change
    monkeypatch.setattr(module, function, space[function])


def changed_file(monkeypatch, change):
    """Change the finished file before it is compared."""
    write = formats.write_onnx

    def faulty(*args, **kwargs):
        model = onnx.load_model_from_string(write(*args, **kwargs))
        change(model)
        return model.SerializeToString(deterministic=True)

    monkeypatch.setattr(formats, "write_onnx", faulty)


def changed_settings(monkeypatch, key, change):
    """Change what the file is written from."""
    write = formats.write_onnx

    def faulty(graph, **settings):
        return write(graph, **{**settings, key: change(settings[key])})

    monkeypatch.setattr(formats, "write_onnx", faulty)


def bgr(monkeypatch):
    def change(model):
        node = next(n for n in model.graph.node if n.output[0] == "resized/chw")
        node.output[0] = "resized/rgb"
        index = onnx.numpy_helper.from_array(np.array([2, 1, 0]), "order")
        model.graph.initializer.append(index)
        made = onnx.helper.make_node(
            "Gather", ["resized/rgb", "order"], ["resized/chw"], axis=1
        )
        model.graph.node.insert(list(model.graph.node).index(node) + 1, made)

    changed_file(monkeypatch, change)


def scaled_twice(monkeypatch):
    changed_settings(
        monkeypatch,
        "preprocess",
        lambda p: replace(p, std=tuple(255 * s for s in p.std)),
    )


def wrong_mean(monkeypatch):
    changed_settings(
        monkeypatch, "preprocess", lambda p: replace(p, mean=(0.485, 0.456, 0.406))
    )


def no_antialias(monkeypatch):
    old, new = 'n.add("Max", scale, 1.0)', 'n.add("Mul", 1.0, 1.0)'
    changed_source(monkeypatch, onnx_preprocess, "_taps", old, new)


def half_pixel_shift(monkeypatch):
    old, new = 'n.add("Add", column, 0.5)', 'n.add("Add", column, 0.0)'
    changed_source(monkeypatch, onnx_preprocess, "_taps", old, new)


def crop_before_resize(monkeypatch):
    changed_settings(monkeypatch, "preprocess", lambda p: replace(p, resize="crop"))


def permuted_classes(monkeypatch):
    changed_settings(
        monkeypatch, "probabilities", lambda p: replace(p, classes=p.classes[::-1])
    )


def training_mode_batch_norm(monkeypatch):
    """The statistics of a batch of one image, instead of the running ones."""

    def change(model):
        name = "layer2.0.bn1/batch_norm"
        node = next(n for n in model.graph.node if n.output[0] == name)
        node.output[0] = "before"
        channels = (
            len(
                next(
                    t for t in model.graph.initializer if t.name == f"{name}/bias"
                ).raw_data
            )
            // 4
        )
        for key, value in (("ones", 1), ("zeros", 0)):
            values = np.full(channels, value, np.float32)
            tensor = onnx.numpy_helper.from_array(values, key)
            model.graph.initializer.append(tensor)
        inputs = ["before", "ones", "zeros"]
        made = onnx.helper.make_node("InstanceNormalization", inputs, [name])
        model.graph.node.insert(list(model.graph.node).index(node) + 1, made)

    changed_file(monkeypatch, change)


def frozen_batch(monkeypatch):
    changed_settings(monkeypatch, "options", lambda o: replace(o, batch=1))


def half_precision_overflow(monkeypatch):
    def change(model):
        for tensor in model.graph.initializer:
            if tensor.name == "layer3.2.conv2.weight":
                values = onnx.numpy_helper.to_array(tensor).copy()
                values.flat[0] = np.float16(np.inf)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    changed_file(monkeypatch, change)


def missing_softmax(monkeypatch):
    def change(model):
        node = next(n for n in model.graph.node if n.op_type == "Softmax")
        node.op_type = "Identity"
        del node.attribute[:]

    changed_file(monkeypatch, change)


def ignored_exif(monkeypatch):
    old, new = "ImageOps.exif_transpose(file)", "file"
    changed_source(monkeypatch, portable_decode, "decode_with_pillow", old, new)
    monkeypatch.setattr(
        samples, "decode_with_pillow", portable_decode.decode_with_pillow
    )


FAULTS = {
    bgr: "normalize",
    scaled_twice: "normalize",
    wrong_mean: "normalize",
    no_antialias: "resize",
    half_pixel_shift: "resize",
    crop_before_resize: "resize",
    permuted_classes: "classes",
    training_mode_batch_norm: "layers",
    frozen_batch: "batch",
    half_precision_overflow: "layers",
    missing_softmax: "probabilities",
    ignored_exif: "decode",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_refused_with_its_stage(
    photo_run, tmp_path, monkeypatch, fault
):
    fault(monkeypatch)
    with pytest.raises(ExportRefusedError) as error:
        st.export(photo_run, tmp_path / "out" / "net.onnx", verify=None)
    assert error.value.exit_code == 1
    assert f"'{FAULTS[fault]}'" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_first_differing_layer_is_named(photo_run, tmp_path, monkeypatch):
    training_mode_batch_norm(monkeypatch)
    with pytest.raises(ExportRefusedError, match=r"layer layer2\.0\.bn1"):
        st.export(photo_run, tmp_path / "net.onnx")


# --- bad input ---


def test_an_existing_file_is_kept(photo_run, tmp_path):
    path = tmp_path / "mine.onnx"
    path.write_text("mine")
    with pytest.raises(RunError, match="exists"):
        st.export(photo_run, path)
    assert path.read_text() == "mine"
    st.export(photo_run, path, overwrite=True, verify=2)
    assert path.stat().st_size > 1000
    weights = tmp_path / "own.bin"
    weights.write_text("mine")
    with pytest.raises(RunError, match="exists"):
        st.export(photo_run, tmp_path / "own.xml")


def copied(run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run.path, folder)
    return folder


def test_an_unfinished_run(photo_run, tmp_path):
    folder = copied(photo_run, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["status"] = "stopped"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"not finished.*stopped"):
        st.export(folder, tmp_path / "net.onnx")


def test_weights_that_are_not_finite(photo_run, tmp_path):
    run = st.load_run(copied(photo_run, tmp_path))
    with torch.no_grad():
        run.model.fc.bias[0] = float("nan")
    with pytest.raises(StriateError, match=r"fc\.bias.*not finite"):
        st.export(run, tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"format": "onx"}, "onnx"),
        ({"input": "images"}, "image"),
        ({"outputs": ("logit",)}, "logits"),
        ({"batch": 0}, "at least 1"),
        ({"verify": 0}, "at least 1"),
        ({"tolerance": 0}, "between 0 and 1"),
        ({"threshold": 1.5}, "0–1"),
        ({"precision": "fp16"}, "openvino"),
        ({"precision": "int3"}, "fp32"),
    ],
)
def test_wrong_settings(photo_run, tmp_path, settings, words):
    with pytest.raises(SettingError, match=words):
        st.export(photo_run, tmp_path / "net.onnx", **settings)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_suffix(photo_run, tmp_path):
    with pytest.raises(SettingError, match=r"\.tflite"):
        st.export(photo_run, tmp_path / "net.tflite")


def test_maps_need_global_average_pooling(shared_run, tmp_path):
    with pytest.raises(SettingError, match="global average pooling"):
        st.export(shared_run, tmp_path / "net.onnx", outputs=("cam",))


def test_class_names_of_any_kind(tmp_path):
    names = ['a "quote"', "new\nline", "ünï", "а", "a", "]]>", "=1+1"]
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (70, 8, 8), np.uint8)
    labels = [names[i % 7] for i in range(70)]
    data = st.load_data(st.from_arrays("odd", images, labels))
    model = st.create_model("8x8x1 > conv 3x3 4 > dense 7")
    run = st.train(model, data, epochs=1, out=tmp_path / "run")
    path = st.export(run, tmp_path / "net.onnx").path
    facts = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert json.loads(facts["striate.classes"]) == list(run.labels.names)
    assert set(run.labels.names) == set(names)


def test_the_command(striate, photo_run, tmp_path):
    path = tmp_path / "net.onnx"
    done = striate("export", photo_run.path, "--out", path, "--verify", "3", "--json")
    assert done.code == 0
    assert done.json["files"] == [str(path)]
    assert done.json["parity"]["passed"]
    shown = striate("export", photo_run.path, "--out", path, "--overwrite")
    assert "probabilities" in shown.out
    assert str(path) in shown.out.replace("\n", "")
    wrong = striate("export", photo_run.path, "--verify", "many")
    assert wrong.code == 2


def test_a_missing_package_names_the_extra(photo_run, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SettingError, match=r"striate\[export\]"):
        st.export(photo_run, tmp_path / "net.onnx")


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_batches_of_any_size(photo_run, tmp_path, suffix):
    if suffix == ".xml":
        pytest.importorskip("openvino")
    outputs = ("probabilities", "logits")
    path = tmp_path / f"net{suffix}"
    st.export(photo_run, path, input="resized", outputs=outputs, verify=2)
    program = open_session(path, "onnxruntime" if suffix == ".onnx" else "openvino")
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (64, 20, 20, 3), dtype=np.uint8)
    rows = [program.run(pixels[i : i + 1])["logits"] for i in range(64)]
    single = np.concatenate(rows)
    for size in (*range(1, 18), 64):
        values = program.run(pixels[:size])["logits"]
        assert np.abs(values - single[:size]).max() < 1e-4


def test_opencv_reads_the_file(photo_run, tmp_path):
    """Another program's own reader of ONNX, on tensors and logits."""
    cv2 = pytest.importorskip("cv2")
    path = st.export(
        photo_run, tmp_path / "net.onnx", input="tensor", outputs=("logits",), verify=2
    ).path
    x = torch.randn(1, 3, 20, 20)
    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(x.numpy())
    with torch.no_grad():
        expected = photo_run.model.cpu()(x).numpy()
    assert np.abs(network.forward() - expected).max() < 1e-4


@pytest.mark.parametrize("kind", ["onnx", "openvino", "bundle"])
def test_a_full_disk_leaves_nothing(photo_run, tmp_path, monkeypatch, kind):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StriateError, match="the disk is full"):
        st.export(photo_run, tmp_path / "net", format=kind, verify=2)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
