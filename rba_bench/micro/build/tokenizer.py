"""The tokenizer of the micro world: one token a word, characters for any other text."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

from rba_bench.micro import world

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


def build(folder: Path, samples: int = 60_000) -> Any:
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
