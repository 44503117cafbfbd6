"""Training engine: loop, step, optimizers, schedules, checkpoints."""
