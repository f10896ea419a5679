"""Every objective against numbers worked out by hand."""

import math
from pathlib import Path

import pytest
import torch

from rba_bench.training.objectives import dpo, preference, rba, sequence_logprobs, sft


def test_sequence_logprobs_sum_and_mean() -> None:
    tokens = torch.tensor([[-1.0, -2.0, -9.0], [-0.5, -9.0, -9.0], [-9.0, -9.0, -9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert sequence_logprobs(tokens, mask).tolist() == [-3.0, -0.5, 0.0]
    assert sequence_logprobs(tokens, mask, length_normalized=True).tolist() == [-1.5, -0.5, 0.0]


def test_padding_never_reaches_the_gradient() -> None:
    tokens = torch.tensor([[-1.0, -math.inf]], requires_grad=True)
    sequence_logprobs(tokens, torch.tensor([[True, False]])).sum().backward()
    assert tokens.grad is not None and tokens.grad.tolist() == [[1.0, 0.0]]


def test_sft_is_negative_log_likelihood() -> None:
    assert sft(torch.tensor([math.log(0.25), 0.0])).tolist() == pytest.approx([math.log(4.0), 0.0])


def test_reference_free_preference_by_hand() -> None:
    # beta 0.1, log-probs -2 against -12: sigmoid(0.1 * 10) = 0.7310585786; -log of it = 0.3132616875
    losses = preference(torch.tensor([-2.0, -12.0]), torch.tensor([-12.0, -2.0]), beta=0.1)
    assert losses.tolist() == pytest.approx([0.3132616875, 1.3132616875])


def test_dpo_closed_form() -> None:
    # log-ratios: chosen -2 + 3 = 1, rejected -5 + 4 = -1; 0.5 * 2 = 1; log(1 + e^-1) = 0.3132616875
    values = [torch.tensor([x]) for x in (-2.0, -5.0, -3.0, -4.0)]
    assert dpo(*values, beta=0.5).tolist() == pytest.approx([math.log1p(math.exp(-1.0))])


def test_dpo_with_the_policy_as_reference_is_log_two() -> None:
    chosen, rejected = torch.tensor([-7.0, -1.0]), torch.tensor([-3.0, -20.0])
    assert dpo(chosen, rejected, chosen, rejected, beta=0.3).tolist() == pytest.approx([math.log(2.0)] * 2)


def test_dpo_against_trl(tiny_textlm_dir: Path, tmp_path: Path) -> None:
    """The loss of a real DPOTrainer batch, where TRL is installed."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy, reference = (AutoModelForCausalLM.from_pretrained(tiny_textlm_dir) for _ in range(2))
    with torch.no_grad():
        reference.lm_head.weight.mul_(0.5)
    pairs = [
        {"prompt": "the lake", "chosen": " is in france", "rejected": " paris"},
        {"prompt": "a friend", "chosen": " sleeps", "rejected": " in the garden of a friend"},
    ]
    trainer = trl.DPOTrainer(
        policy,
        reference,
        args=trl.DPOConfig(output_dir=str(tmp_path), beta=0.2, use_cpu=True, report_to="none", bf16=False),
        train_dataset=Dataset.from_list(pairs),
        processing_class=AutoTokenizer.from_pretrained(tiny_textlm_dir),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    expected = trainer.compute_loss(policy.eval(), batch)
    ids, mask = batch["input_ids"], batch["completion_mask"][:, 1:].bool()
    scores = []
    for model in (policy, reference):
        logits = model(input_ids=ids, attention_mask=batch["attention_mask"]).logits[:, :-1]
        tokens = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        scores += sequence_logprobs(tokens, mask).chunk(2)  # TRL stacks chosen on rejected
    assert dpo(*scores, beta=0.2).mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_rba_by_hand() -> None:
    # pair: beta * (-1 - -3) = 0.1 * 2 = 0.2, loss log(1 + e^-0.2) = 0.5981388694
    # SFT: mean(2, 4) = 3; total 0.5981388694 + 0.2 * 3
    terms = rba(
        torch.tensor([-1.0]), torch.tensor([-3.0]), torch.tensor([-2.0, -4.0]), beta=0.1, sft_weight=0.2
    )
    assert terms.preference.item() == pytest.approx(0.5981388694)
    assert terms.sft.item() == pytest.approx(3.0)
    assert terms.loss.item() == pytest.approx(1.1981388694)


def test_rba_gradient_by_hand() -> None:
    # d/d chosen = -beta * sigmoid(-0.2) = -0.1 * 0.4501660027; d/d teacher = -w
    chosen, rejected, teacher = (torch.tensor([x], requires_grad=True) for x in (-1.0, -3.0, -2.0))
    rba(chosen, rejected, teacher, beta=0.1, sft_weight=0.2).loss.backward()
    gradients = [float(x.grad) for x in (chosen, rejected, teacher) if x.grad is not None]
    assert gradients == pytest.approx([-0.04501660027, 0.04501660027, -0.2])


def test_rba_with_reference_is_dpo_plus_sft() -> None:
    values = [torch.tensor([x]) for x in (-2.0, -5.0, -3.0, -4.0)]
    terms = rba(
        values[0],
        values[1],
        torch.tensor([-6.0]),
        beta=0.5,
        sft_weight=0.1,
        ref_chosen=values[2],
        ref_rejected=values[3],
    )
    assert terms.loss.item() == pytest.approx(math.log1p(math.exp(-1.0)) + 0.6)


def test_items_without_a_pair_count_in_the_mean() -> None:
    chosen, rejected = torch.tensor([0.0]), torch.tensor([0.0])
    terms = rba(chosen, rejected, torch.empty(0), beta=0.1, sft_weight=0.2, n_pairs=4)
    assert terms.loss.item() == pytest.approx(math.log(2.0) / 4)


def test_no_pair_at_all_leaves_the_sft_term() -> None:
    teacher = torch.tensor([-3.0], requires_grad=True)
    terms = rba(torch.empty(0), torch.empty(0), teacher, beta=0.1, sft_weight=0.2, n_pairs=2)
    terms.loss.backward()
    assert terms.loss.item() == pytest.approx(0.6) and teacher.grad is not None
    assert teacher.grad.tolist() == pytest.approx([-0.2])
