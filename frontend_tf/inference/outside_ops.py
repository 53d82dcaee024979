"""Operators that reach outside the graph. TensorFlow runs them where it finds them, even to infer a shape.

What keeps a state is called stateful by its definition: readers, tables, queues, network, Python functions, file writers.
The lists name what is not called so and still opens files (`ReadFile`, `ImmutableConst`, a descriptor file of `DecodeProtoV2`),
writes them (`DebugIdentity` by its `debug_urls`, `PrintV2`), calls Python, or brings a program along for a compiler.
"""

from __future__ import annotations

from typing import Any, Final

from tensorflow.python.framework import op_def_registry

_ACTING: Final = frozenset(
    {"ReadFile", "WriteFile", "MatchingFiles", "ImmutableConst", "GenerateVocabRemapping", "LoadAndRemapMatrix", "PrintV2", "Print"}
) | frozenset(
    {"PyFunc", "PyFuncStateless", "EagerPyFunc", "DecodeProtoV2", "EncodeProto", "MlirPassthroughOp", "RemoteFusedGraphExecute"}
)
_ACTING_FIRST: Final = ("Debug", "Copy", "Xla", "_Xla", "TPU", "_TPU", "Tpu", "DTensor", "Reader", "Save", "Restore", "MergeV2")
_ACTING_INSIDE: Final = ("Dataset", "RecordReader", "FileReader", "LineReader", "LMDBReader", "Checkpoint", "Rpc", "Summary")
_REMOTE_FIRST: Final = ("_Send", "_Recv", "_HostSend", "_HostRecv", "Send", "Recv", "Collective", "Nccl", "Assign", "Apply")
"""Of the names of operators: how they begin, and what may stand in them."""


def acts_outside(node: Any) -> bool:
    """Whether a session must not run a node that comes out of a file. Operators that TensorFlow does not know are not meant."""
    if node.op in _ACTING or node.op.startswith(_ACTING_FIRST + _REMOTE_FIRST):
        return True
    if any(part in node.op for part in _ACTING_INSIDE):
        return True
    if any(attr.HasField("func") or attr.list.func for attr in node.attr.values()):
        return True  # what a function does is not looked at
    definition = op_def_registry.get(node.op)
    return definition is not None and bool(definition.is_stateful)
