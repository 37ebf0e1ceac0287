"""Tiny Shakespeare by characters: the loss of the command line's own settings, three seeds.

The peer is the figure that nanoGPT publishes for this size on a laptop's CPU: 4 layers, 4 heads,
width 128, context 64, batch 12, 2,000 steps, no dropout, validation loss 1.88.
"""

import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from gpt2 import __main__ as cli
from gpt2.training import evaluate, load_model

TEXT = Path(__file__).parents[1] / "../shared/data/tinyshakespeare/input.txt"
PEER = 1.88  # nats a character
SEEDS = (0, 1, 2)


def train_once(seed: int, folder: Path) -> tuple[float, float]:
    """Return the loss over the whole validation part, and the seconds of `python -m gpt2 train`."""
    out, start = folder / str(seed), perf_counter()
    if cli.main(["train", str(TEXT), "--out", str(out), "--seed", str(seed)]):
        raise RuntimeError("`python -m gpt2 train` failed: its message is above.")
    seconds = perf_counter() - start
    _, validation = cli.windows(out, cli.read_run(out, {}))
    return evaluate(load_model(out), validation), seconds


def run() -> list[dict[str, object]]:
    """Train once a seed; report the worst loss beside the peer's, and the median time."""
    if not TEXT.is_file():
        raise FileNotFoundError(f"no tiny Shakespeare at {TEXT}: put its input.txt there.")
    with tempfile.TemporaryDirectory() as folder:
        runs = [train_once(seed, Path(folder)) for seed in SEEDS]
    losses = [loss for loss, _ in runs]
    rows: list[dict[str, object]] = [
        row(f"tiny Shakespeare, seed {seed}: loss", loss)
        for seed, loss in zip(SEEDS, losses, strict=True)
    ]
    seconds = median(time for _, time in runs)
    what = "tiny Shakespeare: time to train, median"
    time = {"what": what, "ours": round(seconds, 1), "peer": None, "unit": "s"}
    return [*rows, time | {"ratio": None, "limit": None}]


def row(what: str, loss: float) -> dict[str, object]:
    """Put our loss beside the peer's; the ratio is ours over the peer's and should be below 1."""
    unit = "nats/character"
    ratio = round(loss / PEER, 3)
    return {
        "what": what,
        "ours": round(loss, 4),
        "peer": PEER,
        "unit": unit,
        "ratio": ratio,
        "limit": "<= 1.88",
    }


if __name__ == "__main__":
    for result in run():
        print(result)
