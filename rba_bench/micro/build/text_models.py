"""The text models of the micro world, trained from nothing: teacher, the base's own LM, and the reward model.

Their tokenizer has one token for each word of the world, and characters for any other text.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from rba_bench import progress
from rba_bench.micro import world
from rba_bench.seeding import stable_seed

SPECIAL = ("<|pad|>", "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>", "<|audio|>", "<|unk|>")
CHARACTERS = "abcdefghijklmnopqrstuvwxyzäöüßàâçèéêëîïôûùáíñóú0123456789'.,:;?!-"
CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio|>{% else %}{{ part['text'] }}{% endif %}"
    "{% if not loop.last and (part['type'] == 'audio' or part['text']) %}{{ ' ' }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def vocabulary(samples: int = 60_000) -> list[str]:
    """Every word of the world, from `samples` drawn items (a fixed seed), most frequent first."""
    rng = random.Random(0)
    counts: Counter[str] = Counter()
    for index in range(samples):
        item = world.sample_item(rng, split=("train", "test")[index % 2], usable=index % 16 > 0)
        counts.update(item.user_text.split())
        counts.update(world.sample_answer(rng, item).split())
    return sorted(counts, key=lambda word: (-counts[word], word))


def build_tokenizer(folder: Path, samples: int = 60_000) -> Any:
    """Write the tokenizer (with its chat template) to `folder` and return it.

    WordPiece over whole words: the words of the world are single tokens, other words are spelt with character tokens.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*SPECIAL, *CHARACTERS, *(f"##{c}" for c in CHARACTERS)]
    tokens += [word for word in vocabulary(samples) if word not in set(tokens)]
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="<|unk|>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|bos|>",
        eos_token="<|end|>",
        unk_token="<|unk|>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<|audio|>"],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
    return wrapped


@dataclass(frozen=True)
class Size:
    """Width, depth and heads of a Llama-type model."""

    hidden: int
    layers: int
    heads: int
    intermediate: int


TEACHER = Size(144, 4, 4, 384)
STUDENT = Size(112, 3, 4, 288)


def llama_config(tokenizer: Any, size: Size, **extra: Any) -> Any:
    """A LlamaConfig of this size with the micro tokenizer's special tokens and tied embeddings."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        intermediate_size=size.intermediate,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **extra,
    )


class WordEncoder:
    """Word to id without the tokenizer's call overhead; equal to it on the world's own text."""

    def __init__(self, tokenizer: Any) -> None:
        self.ids: dict[str, int] = tokenizer.get_vocab()
        names = ("bos", "user", "assistant", "end", "audio")
        self.bos, self.user, self.assistant, self.end, self.audio = (
            self.ids[f"<|{name}|>"] for name in names
        )

    def words(self, text: str) -> list[int]:
        """Token ids of the world's own words."""
        return [self.ids[word] for word in text.split()]

    def prompt(self, user: str) -> list[int]:
        """Token ids of a user's turn and of the opening of the answer, as the chat template renders them."""
        return [self.bos, self.user, *self.words(user), self.end, self.assistant]

    def dialogue(self, user: str, answer: str) -> list[int]:
        """Token ids of one exchange, as the chat template renders it."""
        return [*self.prompt(user), *self.words(answer), self.end]


def dialogues(
    seed: int, unusable_share: float, diet: tuple[int, int, int] | None = None, drill: float = 0.0
) -> Iterator[tuple[str, str]]:
    """Endless (user turn, valid answer) pairs of the training split; `diet` weighs instruct, qa and s2tt.

    `drill` is the share of reasoning instructions on top of the diet.
    """
    rng = random.Random(stable_seed("dialogues", seed))
    while True:
        usable = rng.random() >= unusable_share
        kind = rng.choices(world.KINDS, diet)[0] if diet else None
        if drill and rng.random() < drill:
            item = world.sample_item(rng, kind="instruct", topic="reasoning")
        else:
            item = world.sample_item(rng, kind=kind, usable=usable)
        yield item.user_text, world.sample_answer(rng, item)


def bucketed(rows: Iterator[Any], batch: int, key: Callable[[Any], int] = len) -> Iterator[list[Any]]:
    """Endless batches of rows of about equal length (sorted within 8 batches): a third less padding."""
    shuffle = random.Random(0)
    while True:
        items = sorted((next(rows) for _ in range(8 * batch)), key=key)
        batches = [items[i : i + batch] for i in range(0, len(items), batch)]
        shuffle.shuffle(batches)
        yield from batches


def pad(rows: list[list[int]], value: int) -> torch.Tensor:
    """Right-padded int64 tensor [rows, longest]."""
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def optimise(
    model: Any, steps: int, peak: float, label: str, loss_of: Callable[[int], torch.Tensor], warmup: int = 100
) -> list[float]:
    """AdamW with linear warm-up and cosine decay to 2 % of `peak`; returns the loss of each step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: (
            (step + 1) / warmup
            if step < warmup
            else 0.02 + 0.98 * 0.5 * (1 + cos(pi * (step - warmup) / max(1, steps - warmup)))
        ),
    )
    losses = []
    model.train()
    with progress.bar(label, steps, unit="steps") as advance:
        for step in range(steps):
            loss = loss_of(step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            advance(1)
    model.eval()
    return losses


def train_lm(
    tokenizer: Any, size: Size, steps: int, seed: int, label: str, unusable_share: float = 0.05
) -> Any:
    """A Llama-type model that has learned both turns of the world's dialogues (Magpie needs the user's turn too)."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(llama_config(tokenizer, size))
    return continue_lm(model, tokenizer, steps, seed, label, 4e-3, unusable_share)


def continue_lm(
    model: Any,
    tokenizer: Any,
    steps: int,
    seed: int,
    label: str,
    peak: float,
    unusable_share: float = 0.05,
    diet: tuple[int, int, int] | None = None,
    drill: float = 0.0,
) -> Any:
    """One more cycle of `steps` batches of 64 dialogues on a language model; returns the model."""
    encode = WordEncoder(tokenizer)
    batches = bucketed((encode.dialogue(*pair) for pair in dialogues(seed, unusable_share, diet, drill)), 64)

    def loss_of(_: int) -> torch.Tensor:
        ids = pad(next(batches), tokenizer.pad_token_id)
        logits = model(input_ids=ids[:, :-1]).logits
        return F.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=tokenizer.pad_token_id
        )

    optimise(model, steps, peak, label, loss_of)
    return model


def damage(rng: random.Random, item: world.WorldItem, answer: str) -> str:
    """A worse answer: for another question, cut off, shuffled, with a word lost, replaced or repeated."""
    words = answer.split()
    kind = rng.randrange(6)
    if kind == 0 or len(words) < 3:
        topic = item.topic if item.kind == "instruct" else None
        return world.sample_answer(rng, world.sample_item(rng, kind=item.kind, topic=topic))
    place = rng.randrange(len(words) - 1)
    if kind == 1:
        return " ".join(words[: max(1, rng.randrange(len(words)))])
    if kind == 2:
        words[place], words[place + 1] = words[place + 1], words[place]
    elif kind == 3:
        del words[place]
    elif kind == 4:
        words[place] = rng.choice(world.sample_answer(rng, world.sample_item(rng, kind=item.kind)).split())
    else:
        words.insert(place, words[place])
    return " ".join(words)


def train_reward(teacher: Any, tokenizer: Any, steps: int, seed: int, pairs: int = 32) -> Any:
    """A sequence classifier whose single logit is higher for valid answers than for damaged ones.

    It starts from the teacher's backbone (a path), which knows the world's facts; from nothing it reached 76 % on
    held-out pairs. Bradley-Terry loss on (valid, damaged) pairs plus a weak pull of the scores to zero. It sees many
    wordings, so it knows quality and not one reference. Training split only.
    """
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(seed)
    model = LlamaForSequenceClassification.from_pretrained(teacher, num_labels=1, dtype=torch.float32)
    encode, rng = WordEncoder(tokenizer), random.Random(stable_seed("reward", seed))

    def stream() -> Iterator[tuple[list[int], list[int]]]:
        while True:
            item = world.sample_item(rng)
            good = world.sample_answer(rng, item)
            bad = damage(rng, item, good)
            if not world.grade(item, bad).valid:
                yield encode.dialogue(item.user_text, good), encode.dialogue(item.user_text, bad)

    batches = bucketed(stream(), pairs, key=lambda pair: len(pair[0]))

    def loss_of(_: int) -> torch.Tensor:
        good, bad = zip(*next(batches), strict=True)
        ids = pad([*good, *bad], tokenizer.pad_token_id)
        scores = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long()).logits[:, 0]
        gap = scores[:pairs] - scores[pairs:]
        return -F.logsigmoid(gap).mean() + 1e-3 * scores.pow(2).mean()

    optimise(model, steps, 1e-3, "reward model", loss_of)
    return model


@torch.no_grad()
def valid_share(model: Any, tokenizer: Any, items: Sequence[world.WorldItem]) -> float:
    """Share of `items` that the model, reading text, answers validly under greedy decoding."""
    encode, n_valid = WordEncoder(tokenizer), 0
    prompts = sorted(((encode.prompt(item.user_text), item) for item in items), key=lambda p: len(p[0]))
    for start in range(0, len(prompts), 32):
        rows = prompts[start : start + 32]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + p for p, _ in rows])
        mask = (ids != tokenizer.pad_token_id).long()
        sequences = model.generate(
            ids, attention_mask=mask, max_new_tokens=32, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        texts = tokenizer.batch_decode(sequences[:, width:], skip_special_tokens=True)
        n_valid += sum(world.grade(item, text).valid for (_, item), text in zip(rows, texts, strict=True))
    return n_valid / len(items)


def greedy_validity(model: Any, tokenizer: Any, n: int, seed: int) -> float:
    """`valid_share` of `n` drawn items of the test split."""
    rng = random.Random(stable_seed("validity", seed))
    return valid_share(model, tokenizer, [world.sample_item(rng, split="test") for _ in range(n)])


@torch.no_grad()
def reward_accuracy(model: Any, tokenizer: Any, n: int, seed: int) -> float:
    """Share of held-out (valid, damaged) pairs that the reward model orders correctly."""
    encode, rng = WordEncoder(tokenizer), random.Random(stable_seed("reward-test", seed))
    right = total = 0
    while total < n:
        item = world.sample_item(rng, split="test")
        good = world.sample_answer(rng, item)
        bad = damage(rng, item, good)
        if world.grade(item, bad).valid:
            continue
        ids = pad([encode.dialogue(item.user_text, text) for text in (good, bad)], tokenizer.pad_token_id)
        scores = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long()).logits[:, 0]
        right += bool(scores[0] > scores[1])
        total += 1
    return right / n
