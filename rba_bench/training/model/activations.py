"""Products that backward needs are made again instead of kept: a third less memory for activations, the same bits.

A gated layer keeps its gate, the gate's SiLU, the other half and the product of both, although the first and the third
give all four; a norm keeps the scaled and the weighted state beside the state. What autograd is about to keep is looked
at, and where it is a product or a SiLU whose inputs the graph keeps anyway, only the way to make it again is kept. Such
a node still has its inputs when it is asked: whoever uses its output is further from the parameters, and goes first.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST = 2**18  # bytes; smaller tensors are not worth a call
VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0")


def recompute_in_backward() -> AbstractContextManager[Any]:
    """In it, what autograd keeps is kept lean."""
    return torch.autograd.graph.saved_tensors_hooks(_pack, _unpack)


def _pack(tensor: Tensor) -> tuple[Any, Any]:
    """The node that makes the tensor again, and its shape; else the tensor and its version.

    Hooks switch autograd's own check of the version off.
    """
    node = tensor.grad_fn
    if node is not None and tensor.nbytes >= LEAST:
        if node.name() in VIEWS:
            node = node.next_functions[0][0]
        name = "" if node is None else node.name()
        # a product keeps both factors only where both want a gradient
        if name == "SiluBackward0" or (
            name == "MulBackward0" and all(into for into, _ in node.next_functions)
        ):
            return node, tensor.shape
    return tensor, tensor._version


@torch.no_grad()
def _unpack(kept: tuple[Any, Any]) -> Tensor:
    if isinstance(kept[0], Tensor):
        tensor, version = kept
        if tensor._version != version:
            raise RuntimeError("a tensor that backward needs was changed in place since")
        return tensor
    node, shape = kept
    made = (
        F.silu(node._saved_self) if node.name() == "SiluBackward0" else node._saved_self * node._saved_other
    )
    return made.view(shape)
