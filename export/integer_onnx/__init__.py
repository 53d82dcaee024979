"""A network in integers as ONNX operators on integers, and as JSON with its constants."""
