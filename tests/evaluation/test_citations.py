"""BibTeX that a BibTeX parser reads, with unique keys, for every task whose data others published."""

import json
from fnmatch import fnmatchcase

import pytest

from rba_bench import __version__
from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.evaluation import citations
from rba_bench.evaluation.task_registry import list_groups, list_tasks, tasks_dir

bibtexparser = pytest.importorskip("bibtexparser", reason="installed by `make setup`")
# Written for rba-bench, or whatever the user has spoken: these have no publication of their own
OWN = ("micro_*", "small_*", "spoken_questions", "spoken_instructions")
REQUIRED = {"misc": {"author", "title", "year"}, "inproceedings": {"author", "title", "year", "booktitle"},
            "article": {"author", "title", "year", "journal"}}  # fmt: skip


def keys(*names: str) -> list[str]:
    return [entry.key for entry in citations.cite_tasks(names).entries]


def parsed(bibtex: str):
    library = bibtexparser.parse_string(bibtex)
    assert not library.failed_blocks
    return library.entries


def test_the_whole_file_is_bibtex_with_unique_keys_and_what_each_kind_of_entry_needs() -> None:
    text = (tasks_dir() / citations.FILE).read_text(encoding="utf-8")
    entries = parsed(text)
    found = citations.read_citations()
    assert [entry.key for entry in entries] == [entry.key for entry in found] and len(found) > 15
    assert len({entry.key.casefold() for entry in entries}) == len(entries)
    for entry in entries:
        fields = {field.key: field.value for field in entry.fields}
        assert REQUIRED[entry.entry_type] <= fields.keys(), entry.key
        assert "et al" not in fields["author"] and "others" not in fields["author"]
        assert entry.entry_type != "misc" or fields.keys() & {"eprint", "doi", "howpublished", "note"}


def test_every_task_of_others_has_an_entry_and_every_pattern_a_task() -> None:
    found = citations.read_citations()
    for spec in list_tasks():
        own = any(fnmatchcase(spec.name, pattern) for pattern in OWN)
        assert own != any(entry.belongs_to(spec.name) for entry in found), spec.name
    names = [spec.name for spec in list_tasks()]
    for entry in found:
        for pattern in entry.patterns:
            assert pattern == "always" or any(fnmatchcase(name, pattern) for name in names), pattern


GENERAL = ["rba-bench", "gao2024lmeval"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["covost2_en_de"], ["wang2020covost2"]),
        (["covost2_en_x"], ["wang2020covost2"]),
        (["asr_fleurs_de", "fleurs_en_de", "fleurs_sw_hi"], ["conneau2022fleurs"]),
        (["dowis_asr_fleurs_de"], ["conneau2022fleurs", "zuefle2026dowis"]),
        (["triviaqa"], ["joshi2017triviaqa", "li2025baichuanaudio"]),
        (["triviaqa_fixie"], ["joshi2017triviaqa"]),
        (["mustc_en_x"], ["digangi2019mustc", "cattoni2021mustc"]),
        (["spoken_alpaca"], ["liu2025rba", "taori2023alpaca"]),
        (
            ["speech_ifeval,llama_questions_fixie"],
            ["nachmani2024spectron", "zhou2023ifeval", "lu2025speechifeval"],
        ),
        (["micro_triviaqa", "small_qa", "spoken_questions"], []),
    ],
)
def test_a_task_is_cited_with_what_it_is_made_of(names: list[str], expected: list[str]) -> None:
    assert keys(*names) == [*expected, *GENERAL]


def test_a_group_stands_for_all_its_tasks() -> None:
    [group] = [group for group in list_groups() if group.name == "dowis_written"]
    found = citations.read_citations()
    assert keys(group.name) == [e.key for e in found if any(map(e.belongs_to, group.tasks))] + GENERAL


def test_without_a_task_the_method_is_cited() -> None:
    assert keys() == [*GENERAL, "liu2025rba"]


def test_the_command_prints_bibtex_alone_and_says_what_has_no_publication(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["cite", "covost2_en_de", "micro_triviaqa"])
    assert end.value.code == 0
    printed = capsys.readouterr()
    entries = parsed(printed.out)
    assert [entry.key for entry in entries] == ["wang2020covost2", *GENERAL] and "% tasks" not in printed.out
    assert (
        f"Version {__version__}" in printed.out and "micro_triviaqa: no publication of its own" in printed.err
    )
    with pytest.raises(SystemExit):
        main(["cite", "micro_triviaqa", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert (
        shown["without_publication"] == ["micro_triviaqa"] and [e["key"] for e in shown["entries"]] == GENERAL
    )


def test_an_unknown_task_is_one_line_with_the_nearest_names() -> None:
    with pytest.raises(UserError, match=r"unknown task 'covost2_en_dd'.*covost2_en_de"):
        citations.cite_tasks(["covost2_en_dd"])
