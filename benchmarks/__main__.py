"""Run every benchmark beside its peer and write benchmarks/RESULTS.md: `make bench`."""

import importlib
import platform
from datetime import date
from importlib import metadata
from pathlib import Path

import torch

BENCHMARKS = [
    "bench_training_step",
    "bench_generation",
    "bench_tokenizer",
    "bench_miniweb",
    "bench_prompting",
    "bench_pretrained",
    "bench_grading",
    "bench_shakespeare",
]
RESULTS = Path(__file__).with_name("RESULTS.md")


def processor() -> str:
    """Name the CPU as the system does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cell(value: object) -> str:
    """Write a number with four digits, anything else as it is."""
    if isinstance(value, int | float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value or "")


def main() -> None:
    """Measure, print as we go, and write the table."""
    versions = ", ".join(
        f"{n} {metadata.version(n)}" for n in ("torch", "transformers", "tokenizers")
    )
    machine = f"{processor()}, {torch.get_num_threads()} threads, {platform.system()}"
    lines = [
        "# Benchmarks",
        "",
        f"Measured on {date.today()} by `make bench`: {machine}, Python "
        f"{platform.python_version()}, {versions}.",
        "Ours and the peer alternate in one process; figures are medians.",
        "",
        "| what | ours | peer | unit | ratio | asked |",
        "|---|---|---|---|---|---|",
    ]
    for name in BENCHMARKS:
        print(f"{name} ...", flush=True)
        try:
            rows = importlib.import_module(f"benchmarks.{name}").run()
        except FileNotFoundError as error:  # the text that it measures on is not here
            print(f"{name} is skipped: {error}", flush=True)
            continue
        for row in rows:
            keys = ("what", "ours", "peer", "unit", "ratio", "limit")
            lines.append("| " + " | ".join(cell(row.get(key)) for key in keys) + " |")
            print(lines[-1], flush=True)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
