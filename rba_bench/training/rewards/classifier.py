"""Reward models: sequence classifiers that read the instruction and the answer.

`LlamaForRewardModelWithGating` is ArmoRM (Wang et al. 2024, arXiv 2406.12845): many objectives, weighted by a gate that
reads the prompt. It was written from the paper and the names and shapes of the weights of
RLHFlow/ArmoRM-Llama3-8B-v0.1, because the code on the Hub needs a part of transformers that version 5 has removed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.progress import say
from rba_bench.textlm.chat import ANSWER, SENTINEL, ContentTokenizer, render_chat
from rba_bench.textlm.weights import load_model, local_folder, resolve_device
from rba_bench.training.rewards.reward import NOT_JUDGED, Reward


class GatedOutput(NamedTuple):
    """What one batch of conversations is worth.

    Attributes:
        score: The reward, [B].
        logits: The objectives that it is made of, before the gate, [B, objectives].
    """

    score: Tensor
    logits: Tensor


class Gate(nn.Module):
    """Weights of the objectives, from the state at the end of the prompt: a ReLU network and a softmax.

    Args:
        width: Of the state.
        objectives: How many weights.
        hidden: Width of the layers between.
        depth: Number of these layers.
        temperature: The softmax's.
    """

    def __init__(self, width: int, objectives: int, hidden: int, depth: int, temperature: float) -> None:
        super().__init__()
        sizes = [width, *[hidden] * depth, objectives]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.logit_scale = nn.Parameter(torch.ones(1))
        self.temperature = temperature

    def forward(self, state: Tensor) -> Tensor:
        """Weights [B, objectives] from states [B, width]; they add up to `logit_scale`."""
        *between, last = self.layers
        for layer in between:
            state = layer(state).relu()
        return (last(state) / self.temperature).softmax(dim=-1) * self.logit_scale


class LlamaForRewardModelWithGating(LlamaPreTrainedModel):
    """ArmoRM's form of Llama. Rows are padded on the right.

    Attributes:
        turn: Tokens between the user's words and the answer. The gate reads the state at the first of them, which is
            the end of the user's turn.
    """

    turn: tuple[int, ...] = ()

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        objectives = int(getattr(config, "num_objectives", 19))
        self.model = LlamaModel(config)
        self.regression_layer = nn.Linear(config.hidden_size, objectives, bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.eye(objectives), requires_grad=False)
        self.gating = Gate(
            config.hidden_size,
            objectives,
            int(getattr(config, "gating_hidden_dim", 1024)),
            int(getattr(config, "gating_n_hidden", 3)),
            float(getattr(config, "gating_temperature", 10)),
        )
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> GatedOutput:
        """Score conversations of ids [B, T]; the heads compute in float32.

        Raises:
            UserError: A row has no turn of the assistant.
        """
        turn, width = torch.tensor(self.turn, device=input_ids.device), input_ids.shape[1]
        fits = 0 < len(turn) <= width
        matches = (input_ids.unfold(1, len(turn), 1) == turn).all(dim=-1) if fits else None
        if matches is None or not bool(matches.any(dim=1).all()):
            raise UserError("the gate of the reward model finds no turn of the assistant")
        # where `turn` begins for the last time
        prompt_ends = (torch.arange(matches.shape[1], device=matches.device) * matches).argmax(dim=1)
        states = self.model(input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        rows = torch.arange(len(input_ids), device=input_ids.device)
        last = attention_mask.sum(dim=1) - 1
        objectives = self.regression_layer.float()(states[rows, last].float())
        weights = self.gating.float()(states[rows, prompt_ends].float())
        score = (weights * (objectives @ self.reward_transform_matrix.float())).sum(dim=-1)
        return GatedOutput(score, objectives)


GATED = "LlamaForRewardModelWithGating"
ENDLESS = 10**9  # tokenizers without a limit name a huge number
NO_TEMPLATE = (
    "its tokenizer has no chat template, which the reward model needs to read an answer: use another model"
)

_Text = tuple[list[int], list[int]]  # token ids; token types, 1 for the second text of a sentence pair


class RewardModel(Reward):
    """A frozen `AutoModelForSequenceClassification`.

    It reads the chat template's rendering of [user, assistant], or, where the tokenizer has none but knows sentence
    pairs (BERT, DeBERTa), the pair (instruction, answer). The reward is the output's `score` if the model names one
    (ArmoRM); else its one output; of two the logit of class 1 (good) minus that of class 0; of more the one that
    `output` says. A conversation longer than the model reads is not cut but not judged (NaN).

    Args:
        model: The classifier, on its device.
        tokenizer: Its tokenizer.
        batch_size: Conversations per batch.
        output: Which output is the reward; None as above.
        max_length: Longest conversation in tokens; None = as long as the model can read.

    Attributes:
        too_long: Conversations so far that were not judged for their length.

    Raises:
        UserError: The outputs leave open which is the reward, or there is no way to show it a conversation.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batch_size: int = 64,
        output: int | None = None,
        max_length: int | None = None,
    ) -> None:
        if tokenizer.chat_template is None and (tokenizer.sep_token is None or tokenizer.cls_token is None):
            raise UserError(NO_TEMPLATE)
        self.model = model.eval().requires_grad_(False)
        model.config.use_cache = False  # one pass a conversation: nothing to keep
        self.tokenizer = tokenizer
        self.content = ContentTokenizer(tokenizer)
        self.batch_size = batch_size
        self.output = output
        self.too_long = 0
        longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        limits = [limit for limit in (longest, tokenizer.model_max_length) if limit and 0 < limit < ENDLESS]
        room: int | None = min(limits, default=None)
        if max_length is not None and room is not None and max_length > room:
            raise UserError(f"reward.max_length is {max_length}, but the model reads at most {room} tokens")
        self.room = room if max_length is None else max_length
        self._shipped_pad = model.config.get_text_config().pad_token_id
        self._score([self._read("hello", "hello")])  # what does not work is found before the run begins

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str,
        device: str = "cpu",
        batch_size: int = 64,
        output: int | None = None,
        max_length: int | None = None,
        trust_remote_code: bool = False,
    ) -> "RewardModel":
        """Load a folder or a Hub id: float32 on the CPU; elsewhere at most 16 bits, the head in float32.

        Raises:
            MissingPrerequisite: no such folder, and the Hub cannot provide it.
            UserError: no classifier with a usable output, or it needs code that may not run.
        """
        from transformers import AutoTokenizer

        folder = local_folder(path, "reward model")
        where = resolve_device(device)
        model = _load(folder, where, trust_remote_code)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no usable tokenizer: {str(error).splitlines()[0]}") from error
        if isinstance(model, LlamaForRewardModelWithGating):
            if tokenizer.chat_template is None:
                raise UserError(NO_TEMPLATE)
            # what the template writes between the user's words and the answer, without the spaces at its end
            between = _render(tokenizer, SENTINEL, ANSWER).partition(SENTINEL)[2].partition(ANSWER)[0]
            model.turn = tuple(tokenizer(between.rstrip(), add_special_tokens=False)["input_ids"])
        if not where.startswith("cpu"):
            # half the memory, twice the speed; a model stored in 16 bits stays as it is
            if model.dtype == torch.float32:
                model = model.to(torch.bfloat16)
            head_in_float32(model)
        return cls(model, tokenizer, batch_size, output, max_length)

    def render(self, row: AlignmentRow, response: str) -> str:
        """The conversation as the classifier reads it: user turn (prompt and instruction), assistant turn."""
        return _render(self.tokenizer, row.user_text, response)

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        return self.score([row.user_text for row in rows], responses)

    def score(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """The same for user turns without rows."""
        texts = [self._read(*pair) for pair in zip(user_texts, responses, strict=True)]
        scores = [NOT_JUDGED] * len(texts)
        fitting = [i for i, text in enumerate(texts) if self.room is None or len(text[0]) <= self.room]
        too_long = len(texts) - len(fitting)
        if too_long and not self.too_long:
            say(f"reward model: it reads {self.room} tokens; longer conversations are left out")
        self.too_long += too_long
        fitting.sort(key=lambda i: (-len(texts[i][0]), i))  # longest first: memory peaks at once
        for start in range(0, len(fitting), self.batch_size):
            batch = fitting[start : start + self.batch_size]
            for index, score in zip(batch, self._score([texts[i] for i in batch]), strict=True):
                scores[index] = score
        return scores

    def counts(self) -> dict[str, int]:
        """Conversations that were too long to judge."""
        return {"reward_model_too_long": self.too_long}

    def _read(self, user_text: str, response: str) -> _Text:
        if self.tokenizer.chat_template is None:
            return self.content.pair(user_text, response)
        ids = self.content.ids(lambda texts: _render(self.tokenizer, *texts), [user_text, response])
        return ids, [0] * len(ids)

    def _score(self, texts: Sequence[_Text]) -> list[float]:
        rows, types = [ids for ids, _ in texts], [types for _, types in texts]
        pad, width = self._pad_id(rows), max(map(len, rows))
        # On the right: positions count from the first token, in absolute embeddings too.
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        inputs = {"input_ids": ids, "attention_mask": mask}
        if any(map(any, types)):
            inputs["token_type_ids"] = torch.tensor([row + [0] * (width - len(row)) for row in types])
        self.model.config.get_text_config().pad_token_id = pad
        with torch.inference_mode():
            outputs = self.model(**{name: tensor.to(self.model.device) for name, tensor in inputs.items()})
        return self._reward(outputs, len(rows)).double().tolist()

    def _pad_id(self, rows: Sequence[list[int]]) -> int:
        """The token that fills up rows.

        Llama-type classifiers read their verdict at the last token that is no padding. Where the model's authors name
        a padding token, it is theirs. Else it must be one that no row holds: the tokenizer's is often the end token,
        and then the verdict would be read one token too early.
        """
        if self._shipped_pad is not None and self._shipped_pad >= 0:
            return int(self._shipped_pad)
        used = {token for row in rows for token in row}
        preferred = self.tokenizer.pad_token_id
        if preferred is not None and preferred not in used:
            return int(preferred)
        return next(token for token in range(len(used) + 1) if token not in used)

    def _reward(self, outputs: Any, count: int) -> Any:
        """Rewards [B], float32."""
        if self.output is None and getattr(outputs, "score", None) is not None:
            return outputs.score.float().reshape(count, -1)[:, 0]
        logits = outputs.logits.float().reshape(count, -1)
        width = logits.shape[1]
        if self.output is not None:
            if self.output >= width:
                raise UserError(f"reward.output is {self.output}, but the outputs are 0 to {width - 1}")
            return logits[:, self.output]
        if width > 2:
            raise UserError(f"it has {width} outputs: set reward.output to the one that is the reward")
        return logits[:, 0] if width == 1 else logits[:, 1] - logits[:, 0]


def head_in_float32(model: Any) -> None:
    """Let a linear head compute in float32 behind a backbone of 16 bits.

    bfloat16 has 8 bits of mantissa: rewards around 4 would come in steps of 1/32, and answers would tie.
    """
    for name in ("score", "classifier"):
        head = getattr(model, name, None)
        if isinstance(head, nn.Linear):
            head.float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))


def _load(folder: Path, device: str, trust_remote_code: bool) -> Any:
    """The classifier, ArmoRM's kind by our own class: the code it ships with needs a transformers of 2024."""
    from transformers import AutoModelForSequenceClassification

    config = read_json(folder / "config.json")
    if GATED in (config.get("architectures") or ()):
        return load_model(LlamaForRewardModelWithGating, folder, "reward model", device)
    own_code = "AutoModelForSequenceClassification" in (config.get("auto_map") or {})
    if own_code and not trust_remote_code:
        raise UserError(f"{folder} runs Python code of its own: add --trust if you trust its authors")
    try:
        return load_model(
            AutoModelForSequenceClassification, folder, "reward model", device, trust_remote_code
        )
    except (ImportError, AttributeError, TypeError) as error:
        if not own_code:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"the code that comes with {folder} does not run here: {reason}") from error


def _render(tokenizer: Any, user_text: str, response: str) -> str:
    turns = [{"role": "user", "content": user_text}, {"role": "assistant", "content": response}]
    return render_chat(tokenizer, turns)
