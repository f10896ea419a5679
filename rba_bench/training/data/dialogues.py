"""Which runs may train on dialogues, the rows of an alignment set with earlier `turns`.

What the speech model itself reads holds the earlier turns, as text in its chat: its prompts with speech, and those of
the methods that give it the instruction as text. Other models that read what the user said (a teacher, a judge, a
reward model, an author of answers) take one text, and one turn of a dialogue is not what the answer was given to. A run
that needs such a model is refused before it begins.
"""

from collections.abc import Iterator

from rba_bench.errors import UserError
from rba_bench.training.data.groups import TrainingData
from rba_bench.training.rewards.combined import reward_names
from rba_bench.training.rewards.reward import TEXT_REWARDS
from rba_bench.training.training_recipe import TrainingRecipe

# Rewards that compare an answer with the teacher's answer, or count in it, and never read what the user said
BLIND = frozenset(TEXT_REWARDS) | {"similarity"}


def refuse_text_readers(recipe: TrainingRecipe, data: TrainingData) -> None:
    """Refuse a run in which a text model would read a dialogue as one turn.

    Raises:
        UserError: a set has dialogues and the run such a model.
    """
    with_turns = [
        choice for choice, source in zip(data.chosen, data.sources, strict=True) if source.data.has_turns
    ]
    readers = list(_readers(recipe, data)) if with_turns else []
    if readers:
        raise UserError(
            f"alignment set {with_turns[0].path} has dialogues, and {readers[0]} reads one turn: use a set without the "
            "column `turns`, or a method and rewards without such a model (sft; rewards such as chrf or alias)"
        )


def _readers(recipe: TrainingRecipe, data: TrainingData) -> Iterator[str]:
    if recipe.kind == "distillation":
        yield f"the text teacher of {recipe.method}"
    if recipe.writes_answers:
        yield f"the LLM that writes the answers for {recipe.method}"
    validates = recipe.eval_every or recipe.validate_ends
    if recipe.uses_reward or (validates and recipe.validation.metric == "reward"):
        for name in sorted(reward_names(recipe.reward, data.kinds) - BLIND):
            yield f"the reward {name}"
