"""The table of contents: the one list that the map, the tools and the tests read."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def commit() -> str:
    """Name the commit of the checkout, or say that there is none."""
    call = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip()
    return found or "unknown"


@dataclass(frozen=True)
class Chapter:
    """One room of the course: number, stem of its notebook, title, module, minutes to read.

    The preliminaries, chapter 0, build no module: theirs is "".
    """

    number: int
    stem: str
    title: str
    module: str
    reading: int = 60

    @property
    def path(self) -> Path:
        """Return where the notebook is, whether or not it has been written yet."""
        return ROOT / "chapters" / f"{self.stem}.ipynb"


CHAPTERS = [
    Chapter(0, "00_pytorch", "PyTorch in an hour", ""),
    Chapter(1, "01_language_models", "Language models", "language_model", 60),
    Chapter(2, "02_tokens", "Tokens", "tokenizer", 75),
    Chapter(3, "03_batches", "Text to batches", "data", 75),
    Chapter(4, "04_attention", "Masked self-attention", "attention"),
    Chapter(5, "05_decoder", "The decoder stack", "decoder"),
    Chapter(6, "06_training", "Training", "training"),
    Chapter(7, "07_generation", "Writing text", "generation"),
    Chapter(8, "08_prompting", "Zero-shot prompting", "prompting", 70),
    Chapter(9, "09_bert", "GPT and BERT", "bert"),
    Chapter(10, "10_transformer", "The whole Transformer", "transformer"),
    Chapter(11, "11_pretrained", "The published weights", "pretrained"),
    Chapter(12, "12_scale", "Scale", "scale"),
]


def written() -> list[Chapter]:
    """Return the chapters whose notebooks exist.

    Raises FileNotFoundError if the package does not stand in a checkout of the course.
    """
    chapters = [chapter for chapter in CHAPTERS if chapter.path.exists()]
    if not chapters:
        raise FileNotFoundError(
            f"{ROOT / 'chapters'} holds no chapter: run `course` from a clone of the project, "
            "installed with `pip install -e .`"
        )
    return chapters


def find(name: str) -> Chapter:
    """Return the written chapter that is called `name`: 4, 04_attention or attention.

    Raises ValueError with the names there are.
    """
    for chapter in written():
        if name and name in (str(chapter.number), chapter.stem, chapter.module, chapter.stem[3:]):
            return chapter
    names = ", ".join(chapter.stem for chapter in written())
    raise ValueError(f"no chapter is called {name!r}; there are: {names}")
