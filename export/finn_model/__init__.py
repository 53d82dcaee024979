"""The parts of the target `finn`: limits, thresholds, the two models."""
