"""How good is an answer? Numbers that rank the samples of one group; only their order within a group matters.

reward-model     a sequence classifier on the chat-rendered instruction and answer (ArmoRM's role in the paper)
bleu, chrf       sentence BLEU or chrF++ against the teacher's answer (the paper's choice for translation)
exact, alias     match with the teacher's answer after normalisation (short spoken-QA answers)
teacher-logprob  log-likelihood of the answer under the text teacher
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.metrics.bleu import sentence_bleu, sentence_chrf
from rba_bench.metrics.qa import alias_match, exact_match
from rba_bench.training.reward_options import RewardOptions

if TYPE_CHECKING:
    from rba_bench.textlm.base import TextLM


class Reward(Protocol):
    """Scores answers; higher is better. Must not depend on batch mates or earlier calls."""

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        ...


class TextReward:
    """A reward from one function of (answer, teacher's answer, target language)."""

    def __init__(self, score: Callable[[str, str, str], float]) -> None:
        self._score = score

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        return [
            self._score(response, row.response, row.target_lang)
            for row, response in zip(rows, responses, strict=True)
        ]


TEXT_REWARDS: dict[str, TextReward] = {
    "bleu": TextReward(lambda answer, teacher, lang: sentence_bleu(answer, teacher, lang)),
    "chrf": TextReward(lambda answer, teacher, lang: sentence_chrf(answer, teacher)),
    "exact": TextReward(lambda answer, teacher, lang: exact_match(answer, [teacher], lang)),
    "alias": TextReward(lambda answer, teacher, lang: alias_match(answer, [teacher], lang)),
}


class RewardModel:
    """A frozen `AutoModelForSequenceClassification` with a chat template.

    One output is the reward itself; with two, the reward is the logit of class 1 (good) minus that of class 0.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 64) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(cls, path: Path | str, device: str = "cpu", batch_size: int = 64) -> "RewardModel":
        """Load from a folder.

        Raises:
            MissingPrerequisite: no such folder.
            UserError: the classifier has more than two outputs, or its tokenizer no chat template.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if not Path(path).is_dir():
            raise MissingPrerequisite(
                f"no reward model at {path}: set reward.model to a folder, or choose other rewards"
            )
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForSequenceClassification.from_pretrained(path, use_safetensors=True)
        if model.config.num_labels > 2:
            raise UserError(
                f"reward model {path} has {model.config.num_labels} outputs; one or two are usable"
            )
        if tokenizer.chat_template is None:
            raise UserError(f"the tokenizer of reward model {path} has no chat template")
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        return cls(model.to(device), tokenizer, batch_size)

    def render(self, row: AlignmentRow, response: str) -> str:
        """The conversation as the classifier reads it: user turn (prompt and instruction), assistant turn."""
        turns = [{"role": "user", "content": row.user_text}, {"role": "assistant", "content": response}]
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False))

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        texts = [self.render(row, response) for row, response in zip(rows, responses, strict=True)]
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        scores = [0.0] * len(texts)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            for index, score in zip(batch, self._score([texts[index] for index in batch]), strict=True):
                scores[index] = score
        return scores

    def _score(self, texts: list[str]) -> list[float]:
        import torch

        inputs = self.tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False
        ).to(self.model.device)
        with torch.inference_mode():
            logits = self.model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).logits.float()
        values = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        return [float(value) for value in values]


class TeacherLogprob:
    """Log-likelihood (nats, summed over tokens) of the answer given the text instruction, under the text teacher."""

    def __init__(self, teacher: "TextLM") -> None:
        self.teacher = teacher

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        return list(self.teacher.logprobs([row.user_text for row in rows], list(responses)))


class RewardByKind:
    """Sends each row to the reward of its kind; equal (instruction, answer) pairs are scored once.

    Scoring equal answers once also keeps rounding noise between batch positions from inventing a reward gap.
    """

    def __init__(self, rewards: dict[str, Reward]) -> None:
        self.rewards = rewards

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        known: dict[tuple[str, str], float] = {}
        for kind in sorted({row.kind for row in rows}):
            todo: dict[tuple[str, str], AlignmentRow] = {}
            for row, response in zip(rows, responses, strict=True):
                if row.kind == kind:
                    todo.setdefault((row.group_id, response), row)
            values = self.rewards[kind](list(todo.values()), [response for _, response in todo])
            known.update(zip(todo, values, strict=True))
        return [known[row.group_id, response] for row, response in zip(rows, responses, strict=True)]


def build_reward(options: RewardOptions, kinds: Sequence[str], device: str = "cpu") -> RewardByKind:
    """The rewards for the kinds that occur; a model is loaded only if one of them needs it.

    Raises:
        MissingPrerequisite: a reward or teacher model is absent.
    """
    made: dict[str, Reward] = dict(TEXT_REWARDS)
    for name in sorted({options.name_for(kind) for kind in kinds} - made.keys()):
        made[name] = _reward_model(options, device) if name == "reward-model" else _teacher(options, device)
    return RewardByKind({kind: made[options.name_for(kind)] for kind in kinds})


def _reward_model(options: RewardOptions, device: str) -> Reward:
    return RewardModel.from_pretrained(_folder(options.model, "reward"), device, options.batch_size)


def _teacher(options: RewardOptions, device: str) -> Reward:
    from rba_bench.textlm.local import LocalTextLM

    path = _folder(options.teacher, "teacher")
    return TeacherLogprob(LocalTextLM.from_pretrained(path, device=device, batch_size=options.batch_size))


def _folder(name: str, shipped: str) -> str:
    if name != "micro":
        return name
    from rba_bench.micro.paths import part

    return str(part(shipped))
