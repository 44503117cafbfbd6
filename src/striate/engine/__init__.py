"""Training engine: training loop, training step, optimizers, schedules, checkpoints."""
