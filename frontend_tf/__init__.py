"""Any TensorFlow source -> one frozen inference graph -> ONNX with its batch norms still in it.

frozen = load("net.pb")        # or .meta, SavedModel, checkpoint folder, .keras, .h5, a live keras.Model, a tf.function
model = to_onnx(frozen)        # onnx_ir.Model, opset 21, dynamic batch
frozen.run({"input": x})       # what TensorFlow computes: the reference for the conversion
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read once, when TensorFlow's library is loaded

from .quiet import quiet

with quiet():  # TensorFlow writes to stderr while it is being loaded
    from .conversion.convert import to_onnx
    from .frozen import FrozenGraph
    from .load import load

__all__ = ["FrozenGraph", "load", "to_onnx"]
