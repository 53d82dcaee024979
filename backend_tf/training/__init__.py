"""Training of the regenerated graph: schedule, loop, checkpoints, logs."""
