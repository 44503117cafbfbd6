"""Table: names of settings and commands in other libraries, and in striate.

The names are those of timm, torchvision's reference scripts, Hugging Face, Lightning,
Ultralytics, Keras, fastai and PyTorch's ImageNet example. striate answers them with its
own name, and does not accept them: one thing has one name in all scripts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Synonym:
    """Names in other libraries for one setting, and its name in striate.

    Example:
        >>> Synonym("weights", "pretrained RUN").target_in(["RUN", "IMAGE"])
        'RUN'
    """

    names: str  # names in other libraries, separated by spaces
    # Settings, or arguments in capitals, separated by spaces; the first that a command
    # has is meant. Empty: striate has no such setting.
    targets: str = ""
    value: str = ""  # the value to give; empty: the value is the user's
    # How striate differs; without `targets`, what to do instead.
    note: str = ""
    absent: str = ""  # what to say if the command has none of the targets

    def target_in(self, names: Collection[str]) -> str:
        """Return the first target among some names; empty if there is none."""
        return next((name for name in self.targets.split() if name in names), "")


_BF16 = "mixed precision is computed in bfloat16"
_DATA = "DATA PATH IMAGE"  # metavars of the argument for the images
_FRACTION = "a fraction of the images, 0-1"
_ONE_FOLDER = "put the folders train, val and test into one folder, and give it as DATA"
_ON_RESUME = "`striate train --resume RUN` continues an interrupted run"
_SCHEDULE = "the learning-rate schedule is set by --schedule and --lr"
_UNFREEZE = "`--unfreeze N` unfreezes one more block every N epochs"
_TORCHRUN = "start with `torchrun --nproc-per-node N -m striate train`"
_START = "fraction of the image size at the start"
_WRITTEN = "the run folder always has the best weights, the results and the charts"

SYNONYMS = (
    # Optimization
    Synonym("learning_rate base_lr init_lr initial_lr max_lr lr0", "lr"),
    Synonym("auto_lr_find lr_find", "lr", "auto"),
    Synonym("num_epochs num_train_epochs max_epochs n_epochs nb_epochs e", "epochs"),
    Synonym("batch bs b train_batch_size mini_batch_size", "batch_size"),
    Synonym("auto_scale_batch_size auto_find_batch_size", "batch_size", "auto"),
    Synonym(
        "per_device_train_batch_size batch_per_gpu",
        "batch_size",
        note="total batch size over all processes",
    ),
    Synonym("wd l2 weight_decay_rate", "weight_decay"),
    Synonym("opt optim optimizer_name", "optimizer"),
    Synonym(
        "beta1 adam_beta1",
        "momentum",
        note="momentum of sgd and muon; beta1 of adam and adamw",
    ),
    Synonym(
        "sched scheduler lr_scheduler lr_scheduler_type lr_schedule lr_policy",
        "schedule",
        note="one of one_cycle, cosine, step, constant",
    ),
    Synonym("cos_lr", "schedule", "cosine"),
    Synonym(
        "warmup warmup_epochs warmup_steps warmup_ratio lr_warmup_epochs",
        note="the default --schedule one_cycle raises the learning rate in the first "
        "quarter of the training",
    ),
    Synonym(
        "lr_gamma gamma lr_step_size decay_epochs decay_rate milestones min_lr lrf",
        note=_SCHEDULE,
    ),
    Synonym(
        "clip_grad clip_grad_norm max_grad_norm gradient_clip_val grad_clip clipnorm",
        note="gradients are not clipped; lower --lr, or use --on-nonfinite lower-lr",
    ),
    Synonym(
        "accumulation_steps grad_accum_steps gradient_accumulation_steps grad_accum "
        "accumulate_grad_batches",
        "accumulate",
        note="it splits each batch, so the batch size stays the same",
    ),
    Synonym("smoothing label_smoothing_factor label_smooth ls", "label_smoothing"),
    Synonym("drop drop_rate dropout_rate", "dropout"),
    Synonym(
        "drop_path_rate stochastic_depth stochastic_depth_prob drop_connect",
        "drop_path",
    ),
    Synonym("ema_decay model_ema_decay", "ema"),
    Synonym("model_ema use_ema", "ema", "0.999", note="the value is the decay"),
    Synonym(
        "early_stopping early_stopping_patience es_patience early_stop",
        "patience",
        note="a number of epochs",
    ),
    Synonym("class_weight", "class_weights", note="one of auto, loss, sampling"),
    Synonym("weighted_loss", "class_weights", "loss"),
    Synonym(
        "weighted_sampler balanced_sampling oversample", "class_weights", "sampling"
    ),
    Synonym("test_time_augmentation", "tta", "flip"),
    Synonym(
        "loss criterion loss_fn",
        note="the loss is cross-entropy, with --label-smoothing and --class-weights",
    ),
    Synonym(
        "metric metrics eval_metric metric_for_best_model monitor",
        note="all metrics are always computed; the weights with the best validation "
        "accuracy are kept",
    ),
    Synonym("progressive_resizing", "progressive_resize", note=_START),
    # Network and weights
    Synonym(
        "arch a architecture model_name model_name_or_path backbone net network "
        "encoder",
        "model TARGET RUN",
    ),
    Synonym("model run", "TARGET RUN"),
    Synonym(
        "weights weights_path pretrained_weights initial_checkpoint init_from",
        "pretrained RUN TARGET",
        note="a run folder or a weights file",
    ),
    Synonym(
        "checkpoint ckpt checkpoint_path ckpt_path model_path",
        "RUN TARGET pretrained",
        note=f"a run folder; {_ON_RESUME}",
    ),
    Synonym(
        "resume_from_checkpoint resume_from auto_resume continue_from load_checkpoint",
        "resume",
        note="a run folder or its name",
    ),
    Synonym("start_epoch last_epoch initial_epoch", note=_ON_RESUME),
    Synonym(
        "freeze_backbone freeze_encoder freeze_base feature_extract",
        note="`striate transfer` freezes the network and trains a new head",
    ),
    Synonym("freeze_layers frozen_layers frozen", "freeze", note="names of layers"),
    Synonym("llrd discriminative_lr", "layer_decay"),
    Synonym(
        "lr_decay",
        "layer_decay",
        note="learning-rate factor from each block to the block before it",
        absent=_SCHEDULE,
    ),
    Synonym("gradual_unfreezing", "unfreeze", note=_UNFREEZE),
    Synonym("unfreeze_epochs freeze_epochs", note=_UNFREEZE),
    Synonym("head_dim hidden_dim hidden_units", "head_hidden"),
    Synonym(
        "num_classes n_classes nc num_labels classes",
        "num_classes",
        absent="the number of classes is read from the data",
    ),
    # Images
    Synonym(
        "data data_dir data_path dataset dataset_dir dataset_name dataset_path "
        "data_root root train_dir train_data train_data_dir input_dir image_dir "
        "image_folder img_dir folder path dir d",
        _DATA,
    ),
    Synonym("source image images input inputs file files", "IMAGE DATA PATH"),
    Synonym(
        "val_dir valid_dir validation_dir val_data test_dir test_data train_split",
        note=_ONE_FOLDER,
    ),
    Synonym(
        "imgsz img_size img image_res resolution input_size input_shape crop_size "
        "train_crop_size size img_height img_width",
        "image_size",
    ),
    Synonym("in_channels channels num_channels input_channels", "in_chans"),
    Synonym("grayscale gray greyscale", "in_chans", "1"),
    Synonym(
        "val_split validation_split valid_pct val_size val_ratio val_pct valid_size",
        "val_fraction",
        note=_FRACTION,
    ),
    Synonym(
        "test_split test_size test_ratio test_pct", "test_fraction", note=_FRACTION
    ),
    Synonym(
        "subset train_fraction limit_train_batches train_size",
        "fraction",
        note="a fraction of the training split, 0-1",
    ),
    Synonym("k_folds kfold kfolds n_splits num_folds n_folds cv", "folds"),
    Synonym("split_file split_csv", "split"),
    Synonym(
        "num_workers j workers_per_gpu dataloader_num_workers n_jobs num_proc nproc "
        "n_workers jobs",
        "workers",
    ),
    Synonym("img_mean image_mean norm_mean", "mean"),
    Synonym("img_std image_std norm_std", "std"),
    Synonym("normalization rescale", "normalize"),
    Synonym("cache_dir cache_folder cache_path", "cache"),
    Synonym("cache_images", note="decoded images are cached; --cache off turns it off"),
    Synonym("shuffle", note="the training images are shuffled in each epoch"),
    Synonym(
        "pin_memory pin_mem persistent_workers prefetch_factor no_prefetcher",
        note="image loading needs no setting",
    ),
    Synonym(
        "label labels label_column label_col target_column x_col y_col",
        note="a label is the name of the folder, or the column `label` of a CSV file",
    ),
    # Augmentation
    Synonym("hflip fliplr horizontal_flip random_flip do_flip", "flip", "horizontal"),
    Synonym("vflip flipud vertical_flip flip_vert", "flip", "vertical"),
    Synonym(
        "degrees rotation rotation_range random_rotation max_rotate",
        "rotate",
        note="degrees",
    ),
    Synonym(
        "translate translation width_shift_range height_shift_range",
        "shift",
        note="a fraction of the image size",
    ),
    Synonym("zoom zoom_range max_zoom", "scale", note="0.2: a factor of up to 1.2"),
    Synonym("shear_range", "shear", note="degrees"),
    Synonym("elastic elastic_transform", "warp"),
    Synonym(
        "max_warp perspective random_perspective distortion_scale",
        note="there is no perspective transform",
    ),
    Synonym("reprob random_erase random_erasing erasing cutout", "erase"),
    Synonym(
        "color_jitter colour jitter brightness hsv_h hsv_s hsv_v max_lighting",
        "color",
        note="a random shift of each channel, 0-1",
    ),
    Synonym("random_crop random_resized_crop", "crop", "0.15"),
    Synonym(
        "aa auto_augment autoaugment randaugment rand_augment ra trivial_augment aug "
        "augmentation data_augmentation augmentations aug_transforms",
        "augment",
        "six",
        note="six has rotation, shear, deformation, flip, crop and color",
    ),
    Synonym("no_aug no_augment no_augmentation", "augment", "none"),
    Synonym("mixup_alpha mix_up", "mixup"),
    Synonym("cutmix_alpha cut_mix", "cutmix"),
    Synonym("mosaic copy_paste", note="use --mixup or --cutmix"),
    # Machine
    Synonym("amp use_amp fp16 half bf16", "precision", "bf16", note=_BF16),
    Synonym("mixed_precision amp_dtype dtype", "precision", note=_BF16),
    Synonym("fp32 no_amp", "precision", "fp32"),
    Synonym("gpu gpus cuda use_cuda", "device", "cuda", note=f"several: {_TORCHRUN}"),
    Synonym("accelerator", "device", note="cpu, cuda or auto"),
    Synonym("cpu no_cuda use_cpu no_gpu", "device", "cpu"),
    Synonym(
        "devices num_gpus nproc_per_node world_size local_rank distributed ddp "
        "strategy dist_url dist_backend multi_gpu",
        note=_TORCHRUN,
    ),
    Synonym("torchcompile torch_compile use_compile", "compile", "on"),
    Synonym("channels_last memory_format", "layout", "nhwc"),
    Synonym("sync_bn syncbn sync_batchnorm", "sync_batch_norm"),
    Synonym("random_seed random_state manual_seed rng_seed", "seed"),
    Synonym(
        "deterministic",
        note="--seed N seeds all random numbers; on one CPU, runs are reproducible",
    ),
    # Output
    Synonym("exist_ok force force_overwrite overwrite_output_dir f", "overwrite"),
    Synonym(
        "output_dir output save_dir save_path out_dir output_path result_dir o "
        "results_dir log_dir logdir work_dir checkpoint_dir default_root_dir",
        "out",
    ),
    Synonym("project", "out", note="the whole path of the folder, PROJECT/NAME"),
    Synonym(
        "name exp_name experiment experiment_name run_name exp",
        "out",
        note="the whole path of the folder",
    ),
    Synonym("cfg c config_file hparams hyp opts", "config"),
    Synonym("save_txt save_csv output_csv output_file", "out csv", "result.csv"),
    Synonym(
        "save_period save_steps save_freq checkpoint_every checkpoint_freq",
        "save_every",
        "60",
        note="in seconds",
    ),
    Synonym("save save_best save_best_only save_model plots plot", note=_WRITTEN),
    Synonym("tb use_tensorboard log_tb tensorboard_dir", "tensorboard"),
    Synonym(
        "wandb log_wandb report_to mlflow logger use_wandb",
        note="use --tensorboard, or read results.csv in the run folder",
    ),
    Synonym("silent no_progress disable_tqdm q", "quiet"),
    Synonym(
        "verbose v log_interval print_freq p log_every_n_steps logging_steps",
        note="progress is shown; results.csv has one row per epoch",
    ),
    Synonym(
        "evaluate eval eval_only test_only do_eval val do_train test",
        note="`striate train` evaluates at the end; later: `striate evaluate RUN`",
    ),
    Synonym("mode task", note="the command is the first word, such as `striate train`"),
    # Other commands
    Synonym("topk top_k", "top"),
    Synonym(
        "conf conf_thres conf_threshold confidence min_score",
        "threshold",
        note="less certain predictions are marked for review, not left out",
    ),
    Synonym("pos_label positive_class", "operating_point"),
    Synonym("min_recall target_recall sensitivity", "recall"),
    Synonym("target_layer target_layers layer_name", "layer"),
    Synonym("cam_method algorithm attribution", "method"),
    Synonym("class_idx target_class category class_index", "target"),
    Synonym("max_depth", "depth"),
    Synonym("report html_file", "html"),
)

# Commands of other tools: the command of striate, without the word `striate`.
COMMANDS: Mapping[str, str] = {
    **dict.fromkeys(("fit", "training", "run", "learn"), "train"),
    **dict.fromkeys(("resume", "continue"), "train --resume"),
    **dict.fromkeys(
        ("finetune", "fine-tune", "fine_tune", "tune", "transfer-learning"), "transfer"
    ),
    **dict.fromkeys(("test", "val", "validate", "valid", "eval", "score"), "evaluate"),
    **dict.fromkeys(
        ("infer", "inference", "classify", "predict-images", "pred"),
        "predict",
    ),
    **dict.fromkeys(
        ("visualize", "visualise", "viz", "cam", "gradcam", "heatmap", "attribute"),
        "explain",
    ),
    **dict.fromkeys(("info", "inspect", "profile", "flops", "torchinfo"), "summary"),
    **dict.fromkeys(("diff", "versus"), "compare"),
    **dict.fromkeys(("zoo", "list", "list-models", "list_models"), "models"),
    **dict.fromkeys(("check", "clean", "verify", "data-check", "lint"), "data check"),
    **dict.fromkeys(("split", "data-split"), "data split"),
    **dict.fromkeys(("preview", "show", "data-preview"), "data preview"),
    **dict.fromkeys(("augment", "data-augment"), "data augment"),
    **dict.fromkeys(("curve", "learning-curve", "data-curve"), "data curve"),
    **dict.fromkeys(("dataset", "datasets"), "data check"),
    **dict.fromkeys(("convert", "onnx", "deploy", "to-onnx"), "export"),
    **dict.fromkeys(("quantize", "quantise", "benchmark", "race"), "optimize"),
    "help": "--help",
    "version": "--version",
}

# Commands that are planned but missing: what to do instead.
UNAVAILABLE: Mapping[str, str] = {
    **dict.fromkeys(
        ("serve", "server", "api"), "classify image files: striate predict RUN IMAGE"
    ),
    **dict.fromkeys(
        ("doctor", "diagnose", "debug"), "read the report: striate report RUN"
    ),
    **dict.fromkeys(
        ("ui", "gui", "app", "dashboard"), "read the report: striate report RUN"
    ),
    **dict.fromkeys(
        ("sweep", "search", "hpo"),
        "compare settings with several seeds: striate lab run STUDY.yaml (docs/lab.md)",
    ),
}
