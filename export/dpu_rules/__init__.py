"""What a DPU holds: types, positions, shifts; and what brings a model there."""
