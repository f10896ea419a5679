"""How likely each of a few given answers is: the numbers of `LocalTextLM.logprobs`, for about the price of one.

What all prompts begin with is read once. Each prompt then is one row: its own rest, and behind it every token of all
answers as a tree, so that what two answers begin with is read once too. A mask shows a token of the tree its prompt and
its ancestors alone, and its position is its depth, as where the drafts of speculative decoding are verified (Miao et
al. 2024, "SpecInfer", arXiv 2305.09781).

    common beginning of the prompts | rest of one prompt | easy, medium, hard, very (easy, hard)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from rba_bench.textlm.engine_support import causal_lm_decoder
from rba_bench.textlm.generation import common_prefix
from rba_bench.textlm.local import LocalTextLM

Ids = tuple[int, ...]


@dataclass(frozen=True)
class AnswerTree:
    """Answers as a tree of tokens. Node 0 is the end of the prompt; a parent stands before its children.

    Attributes:
        tokens: Of the nodes behind node 0.
        depths: Of the same nodes, from 1.
        seen: [N, N] for N nodes without node 0: whether a node (row) attends to another (column).
        steps: For each answer the nodes behind which its tokens come, and the tokens.
    """

    tokens: list[int]
    depths: list[int]
    seen: Tensor
    steps: list[tuple[list[int], list[int]]]


def answer_tree(answers: Sequence[Ids]) -> AnswerTree:
    """The tree of some answers. Their last tokens are in none of its nodes: nothing is read behind them."""
    nodes: dict[Ids, int] = {(): 0}
    for answer in answers:
        for end in range(1, len(answer)):
            nodes.setdefault(answer[:end], len(nodes))
    begun = [beginning for beginning in nodes if beginning]
    seen = torch.zeros(len(begun), len(begun), dtype=torch.bool)
    for row, beginning in enumerate(begun):
        seen[row, [nodes[beginning[:end]] - 1 for end in range(1, len(beginning) + 1)]] = True
    steps = [([nodes[answer[:i]] for i in range(len(answer))], list(answer)) for answer in answers]
    return AnswerTree([one[-1] for one in begun], [len(one) for one in begun], seen, steps)


@torch.inference_mode()
def choice_logprobs(lm: LocalTextLM, user_texts: Sequence[str], choices: Sequence[str]) -> list[list[float]]:
    """Natural-log probability of each choice and the end token as the answer to each user turn.

    Args:
        lm: A causal LM of transformers. One that takes no masks of ours (sliding windows, states) reads every pair of
            prompt and choice by itself.
        user_texts: The turns.
        choices: The answers.

    Returns:
        [texts][choices], as of `lm.logprobs`; NaN for a turn that leaves no room in the model's context.
    """
    values = [[math.nan] * len(choices) for _ in user_texts]
    if not choices:
        return values
    pairs = [[lm.scored_ids(text, choice) for choice in choices] for text in user_texts]
    prompts, answers = [row[0][0] for row in pairs], [tuple(tuple(ids) for _, ids in row) for row in pairs]
    sizes = [len(prompt) + max(map(len, ids)) for prompt, ids in zip(prompts, answers, strict=True)]
    fitting = [i for i, size in enumerate(sizes) if lm.context is None or size <= lm.context]
    if causal_lm_decoder(lm.model) is None:
        found = iter(
            lm.logprobs([user_texts[i] for i in fitting for _ in choices], [*choices] * len(fitting))
        )
        for i in fitting:
            values[i] = [next(found) for _ in choices]
        return values
    groups: dict[tuple[Ids, ...], list[int]] = {}  # mostly one: answers are tokenised behind the same header
    for i in fitting:
        groups.setdefault(answers[i], []).append(i)
    for ids, members in groups.items():
        scores = _score(lm, [prompts[i] for i in members], answer_tree(ids))
        for i, row in zip(members, scores, strict=True):
            values[i] = row
    return values


def _score(lm: LocalTextLM, prompts: Sequence[list[int]], tree: AnswerTree) -> list[list[float]]:
    """Log-probabilities [prompts][answers]."""
    shared = common_prefix(prompts)
    beginning = DynamicCache()
    if shared:
        ids = torch.tensor([prompts[0][:shared]], device=lm.model.device)
        lm.model(input_ids=ids, past_key_values=beginning, use_cache=True, logits_to_keep=1)
    values: list[list[float]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))  # longest first
    for start in range(0, len(order), lm.batch_size):
        batch = order[start : start + lm.batch_size]
        logits = _read(lm, [prompts[i][shared:] for i in batch], tree, beginning, shared)
        for i, row in zip(batch, logits, strict=True):  # one by one: [nodes, V] in float32 are megabytes
            logprobs = row.float().log_softmax(-1).double()
            values[i] = [float(logprobs[behind, tokens].sum()) for behind, tokens in tree.steps]
    return values


def _read(
    lm: LocalTextLM, rests: Sequence[list[int]], tree: AnswerTree, beginning: DynamicCache, shared: int
) -> Tensor:
    """Logits [B, 1 + nodes, V] behind the end of each prompt and behind each token of the tree."""
    rows, width, nodes = len(rests), max(map(len, rests)), len(tree.tokens)
    pads = [width - len(rest) for rest in rests]
    ids = torch.tensor(
        [[lm.pad_id] * pad + rest + tree.tokens for pad, rest in zip(pads, rests, strict=True)]
    )
    places = torch.cat([torch.arange(width), width - 1 + torch.tensor(tree.depths, dtype=torch.long)])
    positions = (places - torch.tensor(pads)[:, None]).clamp(min=0) + shared
    allowed = torch.ones(width + nodes, width + nodes, dtype=torch.bool).tril()
    allowed[width:, width:] = tree.seen
    there = torch.arange(width + nodes) >= torch.tensor(pads)[:, None]
    # padding sees itself, so that no row is empty
    own = (allowed & there[:, None]) | torch.eye(width + nodes, dtype=torch.bool)
    mask = torch.cat([torch.ones(rows, width + nodes, shared, dtype=torch.bool), own], dim=-1)[:, None]
    states = DynamicCache()
    for number, layer in enumerate(beginning.layers):
        states.update(*(x.expand(rows, -1, -1, -1) for x in (layer.keys, layer.values)), number)
    device, dtype = lm.model.device, lm.model.dtype
    hidden = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
    output: Any = lm.model(
        input_ids=ids.to(device),
        attention_mask=hidden.to(device),
        position_ids=positions.to(device),
        past_key_values=states,
        use_cache=True,
        logits_to_keep=1 + nodes,
    )
    return torch.as_tensor(output.logits)
