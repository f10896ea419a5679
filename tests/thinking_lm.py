"""A tiny language model that thinks by default, as Qwen3 does.

Its template opens nothing, `enable_thinking=false` writes an empty block, and the model has learnt by heart what to say
after either.
"""

from pathlib import Path

TURNS = (
    ("plan a trip to the lake", "pack a bag"),
    ("what is the largest river", "the amazon"),
    ("write a letter to a friend", "dear friend"),
    ("who painted the garden", "an artist"),
)
THOUGHT = "<think>\nhm a bag , the amazon\n</think>\n\n"
EMPTY = "<think>\n\n</think>\n\n"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'audio' %}<|audio|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '"
    + EMPTY.replace("\n", "\\n")
    + "' }}"
    "{% elif opens is defined and opens %}{{ '<think>\\n' }}{% endif %}{% endif %}"
)


def teach(tiny_textlm_dir: Path, folder: Path) -> Path:
    """Save in `folder` a model like the tiny one that thinks unless it is told not to."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tiny_textlm_dir)
    tokenizer.chat_template = TEMPLATE
    model = AutoModelForCausalLM.from_pretrained(tiny_textlm_dir, dtype=torch.float32)
    tokenizer.add_tokens(["<think>", "</think>"])  # ordinary tokens, as in Qwen3
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    texts = [
        f"<|bos|><|user|>{ask}<|end|><|assistant|>{block}{answer}<|end|>"
        for ask, answer in TURNS
        for block in (THOUGHT, EMPTY)
    ]
    batch = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    ids = batch["input_ids"]
    opened = tokenizer.convert_tokens_to_ids("<think>")
    blank = tokenizer("<think>\n\n</think>", add_special_tokens=False)["input_ids"]
    for row, line in zip(labels, ids.tolist(), strict=True):  # the empty block is the template's, not its own
        at = line.index(opened)
        if line[at : at + len(blank)] == blank:
            row[at : at + len(blank)] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        model(ids, attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
