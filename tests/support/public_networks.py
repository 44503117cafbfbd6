"""Small networks of timm and torchvision with random weights, one of each family."""

import pytest
import torch

from support.optional_packages import imported

TIMM = """
    beit_base_patch16_224 botnet26t_256 cait_xxs24_224 coat_lite_tiny
    coatnet_nano_rw_224 convformer_s18 convit_tiny convmixer_1024_20_ks9_p14
    convnext_atto convnextv2_atto crossvit_tiny_240 cspresnet50 darknet53 davit_tiny
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
    tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m twins_pcpvt_small
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
    """A network with random weights in evaluation mode, and the shape of its images."""
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
    return model.eval(), size


def first_outputs(model, x):
    """The first output of each layer that is a tensor, by forward hooks of PyTorch."""
    outputs, handles = {}, []
    for name, module in model.named_modules():

        def hook(module, inputs, output, name=name):
            if isinstance(output, torch.Tensor) and name and name not in ran:
                outputs[name] = output.clone()
            ran.add(name)

        handles.append(module.register_forward_hook(hook))
    ran = set()
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return outputs


def check_refused(reasons, name, error):
    """A network is refused only if it is listed, and with the listed reason."""
    assert name in reasons, error
    assert reasons[name] in str(error)
