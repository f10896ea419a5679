"""The Markdown page of a study: the answer first, then the comparisons behind it, tables and conditions."""

from rba_bench.leaderboard.pages import MICRO, hash_cell, protocol_table
from rba_bench.leaderboard.tables import TextTable
from rba_bench.study.analysis import Analysis
from rba_bench.study.study_answer import answer_sentence, grid_table, outcome_grids, reading
from rba_bench.study.study_texts import conditions, failures, legend


def index_page(analysis: Analysis, claims: TextTable | None, tables: list[TextTable]) -> str:
    """The page.

    Args:
        analysis: The numbers.
        claims: What became of the claims.
        tables: All other tables.
    """
    data = analysis.data
    blocks = [f"# Study, {data.study.track} track"]
    blocks += [MICRO] if data.study.track == "micro" else []
    blocks += [f"**{answer_sentence(analysis)}**", reading(analysis)]
    if failed := [f"- {failure}" for failure in failures(data)]:
        blocks.append("\n".join(failed))
    blocks.append(
        f"Differences from `{analysis.study.baseline}` in points on a scale of 100, mean over the training seeds; "
        "without a word, they are not told apart:"
    )
    for grid in outcome_grids(analysis):
        table = grid_table(analysis, grid)
        blocks += [f"## {table.title}", table.markdown()]
    blocks += ["## Claims", claims.markdown()] if claims else []
    blocks += ["## Tables", legend(data)]
    for table in tables:
        blocks += [f"### {table.title}", table.markdown()]
    blocks += ["## Conditions", "\n".join(f"- {line}" for line in conditions(data))]
    rows = []
    for task, metrics in analysis.study.tasks.items():
        scores = next((system.tasks[task] for system in data.systems if task in system.tasks), None)
        if scores is not None:
            n = f"{len(scores.clusters)} ({len(set(scores.clusters))} texts)"
            hashes = hash_cell(scores.protocol_hash), hash_cell(scores.data_hash)
            rows.append([task, ", ".join(metrics), n, *hashes])
    blocks += [protocol_table(rows, ["task", "metrics", "n", "protocol", "test set"])]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"
