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


class _Kept:
    """A tensor that is kept, and its version: hooks switch autograd's own check for changes off."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.version = tensor, tensor._version


class _Again:
    """A tensor that is made again: the node that made it, and the shape it was used in."""

    def __init__(self, node: Any, shape: torch.Size) -> None:
        self.node, self.shape = node, shape


def recompute_in_backward() -> AbstractContextManager[Any]:
    """In it, what autograd keeps is kept lean."""
    return torch.autograd.graph.saved_tensors_hooks(_pack, _unpack)


def _pack(tensor: Tensor) -> _Kept | _Again:
    node = tensor.grad_fn
    if node is not None and tensor.nbytes >= LEAST:
        if node.name() in VIEWS:
            node = node.next_functions[0][0]
        if node is not None and _cheap(node):
            return _Again(node, tensor.shape)
    return _Kept(tensor)


def _cheap(node: Any) -> bool:
    """Whether an elementwise operation keeps all its inputs; a factor that wants no gradient has kept it from that."""
    name = node.name()
    return name == "SiluBackward0" or (
        name == "MulBackward0" and all(into for into, _ in node.next_functions)
    )


@torch.no_grad()
def _unpack(kept: _Kept | _Again) -> Tensor:
    if isinstance(kept, _Kept):
        if kept.tensor._version != kept.version:
            raise RuntimeError("a tensor that backward needs was changed in place since")
        return kept.tensor
    node = kept.node
    made = (
        F.silu(node._saved_self) if node.name() == "SiluBackward0" else node._saved_self * node._saved_other
    )
    return made.view(kept.shape)
