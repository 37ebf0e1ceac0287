"""Six programs against the items of six tasks: what understanding would reach."""

import pytest

from course import models, programs
from miniweb.tasks import DIALS


@pytest.mark.parametrize("task", [task for task in DIALS if task != "question"])
def test_a_program_solves_its_task(task):
    solved = [programs.solve(task, item.prompt, ()) for item in models.items(task)]
    assert solved == [item.answer for item in models.items(task)]


def test_facts_are_found_on_pages_that_only_state_them():
    pages = ["In Surat people pay with the Indian rupee. The language of Bursa is Turkish."]
    asked = {
        "What do people pay with in Surat?": "Indian rupee",
        "Which language do people speak in Bursa?": "Turkish",
    }
    for text, answer in asked.items():
        assert programs.solve("question", f"Q: {text}\nA:", pages) == answer
    assert programs.solve("question", "Q: In which country is Bursa?\nA:", pages) == ""


def test_a_program_says_what_it_was_not_written_for():
    with pytest.raises(ValueError, match="no question about a city"):
        programs.solve_question("Q: What is the capital of Chad?\nA:", [])
    with pytest.raises(ValueError, match="no comparison"):
        programs.solve_choice("Q: Which is older, a hat or a cup?\nA:")
    with pytest.raises(ValueError, match="no point"):
        programs.solve_summary("I wore a hat at the zoo. Nobody noticed.\nTL;DR:")
