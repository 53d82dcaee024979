"""The parts of the target `hls4ml`: limits, the graph in its dialect, the script that builds the project."""
