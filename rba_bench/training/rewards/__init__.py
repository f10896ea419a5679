"""How good is an answer? Numbers that rank the samples of one group; only their order and their gaps matter.

reward-model       a sequence classifier on the chat-rendered instruction and answer (ArmoRM's role in the paper)
bleu, chrf         sentence BLEU or chrF++ against the teacher's answer (the paper's choice for translation)
exact              equal to the teacher's answer after normalisation (short spoken-QA answers)
alias              the teacher's answer, or one of the set's references, occurs in it
checks             share of the set's constraints that it keeps to
overlap            token F1 with the teacher's answer
teacher-logprob    log-likelihood of the answer under the text teacher; teacher-logprob-mean: per token
similarity         cosine of sentence embeddings with the teacher's answer
judge              grade by a text LLM
self-judge         grade by the policy's own LLM (self-rewarding)

A kind of item may also have a weighted sum of them. NaN means that an answer could not be judged.
"""

from rba_bench.training.rewards.classifier import RewardModel
from rba_bench.training.rewards.combined import (
    LengthPenalty,
    RewardByKind,
    WeightedSum,
    build_reward,
    reward_names,
)
from rba_bench.training.rewards.judge import JudgeReward, SelfJudgeReward
from rba_bench.training.rewards.reward import (
    NOT_JUDGED,
    TEXT_REWARDS,
    Reward,
    Similarity,
    TeacherLogprob,
    TextReward,
)

__all__ = [
    "NOT_JUDGED",
    "TEXT_REWARDS",
    "JudgeReward",
    "LengthPenalty",
    "Reward",
    "RewardByKind",
    "RewardModel",
    "SelfJudgeReward",
    "Similarity",
    "TeacherLogprob",
    "TextReward",
    "WeightedSum",
    "build_reward",
    "reward_names",
]
