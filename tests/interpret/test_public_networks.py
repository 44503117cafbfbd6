"""Default maps and features of the networks of timm and torchvision (`make twins`).

Every network has random weights. Its map is that of an independent computation, or the
network is refused with the reason; there is no traceback.
"""

import pytest
import torch

import striate as st
from striate.core.errors import StriateError
from striate.core.logits import logits_of
from striate.interpret.attribution.attribute import attribute
from striate.interpret.layer_choice import layer_shapes
from support.optional_packages import imported

# The packages warn about their own plans.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# One of the smallest networks of each family.
TIMM = """
    beit_base_patch16_224 botnet26t_256 cait_xxs24_224 coat_lite_tiny
    coatnet_nano_rw_224 convformer_s18 convit_tiny convmixer_768_32 convnext_atto
    convnextv2_atto crossvit_tiny_240 cspresnet50 darknet53 davit_tiny
    deit_tiny_distilled_patch16_224 deit_tiny_patch16_224 densenet121 dla34 dpn68
    eca_resnet33ts edgenext_xx_small efficientformer_l1 efficientformerv2_s0
    efficientnet_b0 efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224
    fastvit_t8 fbnetc_100 focalnet_tiny_srf gcvit_xxtiny gernet_s ghostnet_100
    gmixer_24_224 gmlp_s16_224 halonet26t hardcorenas_a hgnetv2_b0 hiera_tiny_224
    hrnet_w18_small inception_next_tiny inception_v3 lcnet_050 lambda_resnet26t
    levit_128s maxvit_rmlp_pico_rw_256 mixer_s16_224 mixnet_s mnasnet_100
    mobilenetv2_100 mobilenetv3_small_100 mobilenetv4_conv_small mobileone_s0
    mobilevit_xxs mobilevitv2_050 mvitv2_tiny nest_tiny nextvit_small nf_regnet_b0
    nfnet_l0 pit_ti_224 poolformer_s12 pvt_v2_b0 regnetx_002 regnety_002
    repghostnet_050 repvgg_a0 repvit_m0_9 res2net50_14w_8s resmlp_12_224 resnest14d
    resnet18 resnetv2_50 resnext26ts rexnet_100 sebotnet33ts_256 selecsls42
    semnasnet_075 seresnet18 sequencer2d_s shvit_s1 skresnet18 spnasnet_100
    starnet_s1 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 tinynet_e
    tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m twins_pcpvt_small vgg11
    visformer_tiny vit_tiny_patch16_224 vit_base_patch16_siglip_224 volo_d1_224
    vovnet39a wide_resnet50_2 xception41 xcit_nano_12_p16_224
"""
TORCHVISION = """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet
    inception_v3 maxvit_t mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_x_400mf
    regnet_y_400mf resnet18 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 swin_t
    swin_v2_t vgg11 vit_b_16 wide_resnet50_2
"""
NAMES = [f"timm/{name}" for name in TIMM.split()]
NAMES += [f"torchvision/{name}" for name in TORCHVISION.split()]


def network(name):
    """A network with random weights in evaluation mode, and an image of its size."""
    torch.manual_seed(0)
    package, _, kind = name.partition("/")
    imported("torchvision")
    if package == "timm":
        timm = imported("timm")
        if kind not in timm.list_models():
            pytest.skip(f"this version of timm has no {kind}")
        model = timm.create_model(kind, num_classes=10)
        size = model.default_cfg["input_size"]
    else:
        models = imported("torchvision").models
        model = models.get_model(kind, weights=None, num_classes=10)
        side = 256 if kind == "swin_v2_t" else 299 if kind == "inception_v3" else 224
        size = (3, side, side)
    _spread(model)
    draw = torch.Generator().manual_seed(1)
    return model.eval(), torch.randn(1, *size, generator=draw)


def _spread(model):
    """Replace constant weights, such as zero layer scales, by random values."""
    for weight in model.parameters():
        if float(weight.detach().std(unbiased=False)) == 0:
            weight.data += 0.1 * torch.randn_like(weight)


def cells(output, size):
    """A layer's output as NCHW, by the shapes alone; None if two readings fit."""
    height, width = size
    count = height * width
    readings = []
    if output.ndim == 4:
        if tuple(output.shape[2:]) == size:
            readings.append(output)
        if tuple(output.shape[1:3]) == size and output.shape[3] not in size:
            readings.append(output.permute(0, 3, 1, 2))
    if output.ndim == 3 and output.shape[1] >= count:
        tokens = output[:, output.shape[1] - count :]  # class tokens come first
        readings.append(tokens.transpose(1, 2).unflatten(2, size))
    return readings[0] if len(readings) == 1 else None


def independent_grad_cam(model, x, layer, size, target):
    """Grad-CAM in plain PyTorch: a hook, one backward pass and the paper's formula."""
    outputs = []
    name, _, number = layer.partition(" #")
    module = model.get_submodule(name)

    def hook(module, inputs, output):
        output = output.clone()
        output.retain_grad()
        outputs.append(output)
        return output.clone()

    handle = module.register_forward_hook(hook)
    try:
        score = logits_of(model(x))[0, target]
    finally:
        handle.remove()
    output = outputs[int(number or 1) - 1]
    (gradient,) = torch.autograd.grad(score, output)
    maps, gradients = cells(output.detach(), size), cells(gradient, size)
    if maps is None or gradients is None:
        return None
    weights = gradients.mean((2, 3), keepdim=True)
    return (weights * maps).sum(1).relu()[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_default_map_is_right_or_refused(name):
    model, x = network(name)
    try:
        result = attribute(model, x, target=3, sanity_checks=False)
    except StriateError as error:
        assert error.what  # noqa: PT017
        return
    height, width = x.shape[2:]
    assert result.heatmap.shape == (height, width)
    assert result.heatmap.isfinite().all()
    rows, columns = result.layer_map.shape
    # Cells are about as wide as they are high.
    assert abs(rows * width - columns * height) <= max(height, width)
    assert not result.layer.layout.assumed
    if result.method == "cam":
        weights = model.get_submodule(_last_linear(model)).weight[3]
        bias = model.get_submodule(_last_linear(model)).bias[3]
        with torch.no_grad():
            logit = float(logits_of(model(x))[0, 3])
        assert weights.ndim == 1
        assert float(result.layer_map.sum() + bias) == pytest.approx(logit, abs=1e-3)
        return
    expected = independent_grad_cam(model, x, result.layer.call, (rows, columns), 3)
    assert expected is not None
    limit = 1e-4 * float(expected.max()) + 1e-8  # of the smallest gradients
    assert torch.allclose(result.layer_map, expected, atol=limit)


def _last_linear(model):
    return [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)][-1]


@pytest.mark.parametrize("name", NAMES)
def test_features_of_every_layer(name):
    """All layers of one image: the shapes of the layers that ran, the others named."""
    model, x = network(name)
    result = st.features(model, x, "*")
    shapes = layer_shapes(model, x)
    first = {call: shape for call, shape in shapes.items() if " #" not in call}
    assert {call: shape[1:] for call, shape in result.shapes.items()} == first
    names = {name for name, _ in model.named_modules() if name}
    assert set(result.left_out) == names - set(first)
    assert all(result.left_out.values())
