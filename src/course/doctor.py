"""Say whether the course will run here, how long it will take, and what to do if not."""

import os
import platform
import re
import shutil
import sys
import time
from dataclasses import dataclass
from importlib import metadata

from course.chapters import ROOT, written
from course.notebooks import read_notebook

NEEDED_MEMORY_GIB = 4
NEEDED_DISK_GIB = 2


@dataclass(frozen=True)
class Finding:
    """One line of the report; `cure` is empty where all is well."""

    what: str
    value: str
    cure: str = ""


def training_speed(seconds: float = 1.0) -> float:
    """Measure training steps per second of a small GPT on two CPU threads: the course's yardstick.

    4 layers, width 128, 12 x 64 tokens: the model that chapter 6 trains on tiny Shakespeare.
    """
    import torch

    from gpt2.decoder import GPT, GPTConfig

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    model = GPT(GPTConfig(n_vocab=65, n_ctx=64, n_embd=128, n_head=4, n_layer=4))
    x = torch.zeros(12, 64, dtype=torch.long)
    steps, start = -2, time.perf_counter()  # two steps to warm up
    while steps < 1 or time.perf_counter() - start < seconds:
        if steps == 0:
            start = time.perf_counter()
        model.zero_grad()
        model(x).logsumexp(-1).mean().backward()
        steps += 1
    torch.set_num_threads(threads)
    return steps / (time.perf_counter() - start)


def examine() -> list[Finding]:
    """Look at the machine, the versions and the time that the chapters will take."""
    return [python(), *versions(), device(), memory(), disk(), *chapter_times()]


def python() -> Finding:
    """Compare the running Python with the oldest that the course runs on."""
    good = sys.version_info >= (3, 11)
    cure = "" if good else "make the environment with Python 3.11 or newer"
    return Finding("Python", f"{platform.python_version()} on {platform.system()}", cure)


def versions() -> list[Finding]:
    """Compare what is installed with the versions that were tested."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", text, flags=re.MULTILINE))
    findings = []
    for name in ("torch", "numpy", "regex", "safetensors", "jupyter-book", "jupyterlab", "nbval"):
        try:
            have = metadata.version(name)
        except metadata.PackageNotFoundError:
            findings.append(Finding(name, "is missing", "run `make lab`, which installs it"))
            continue
        same = have.split("+")[0] == tested.get(name)
        findings.append(Finding(name, have if same else f"{have} (tested with {tested.get(name)})"))
    return findings


def device() -> Finding:
    """Name what the chapters will compute on."""
    import torch

    cores = f"{os.cpu_count()} CPU cores"
    if torch.cuda.is_available():
        return Finding("device", f"cuda ({torch.cuda.get_device_name()}), {cores}")
    return Finding("device", f"cpu, {cores}; a GPU is not needed before chapter 11")


def memory() -> Finding:
    """Check that the largest chapter fits in memory."""
    try:
        gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return Finding("memory", f"unknown; the course needs {NEEDED_MEMORY_GIB} GiB")
    cure = "" if gib >= NEEDED_MEMORY_GIB else f"close programs: {NEEDED_MEMORY_GIB} GiB are needed"
    return Finding("memory", f"{gib:.0f} GiB", cure)


def disk() -> Finding:
    """Check that there is room for the environment, the book and checkpoints."""
    gib = shutil.disk_usage(ROOT).free / 2**30
    cure = "" if gib >= NEEDED_DISK_GIB else f"make room: {NEEDED_DISK_GIB} GiB are needed"
    return Finding("free disk", f"{gib:.0f} GiB", cure)


def chapter_times() -> list[Finding]:
    """Estimate each chapter's time: its stored run, scaled by this machine's training speed."""
    speed, findings, total = training_speed(), [], 0.0
    for chapter in written():
        run = read_notebook(chapter.path).metadata.get("course")
        if run:
            seconds = run["run_seconds"] * run["training_steps_per_second"] / speed
            total += seconds
            findings.append(Finding(f"chapter {chapter.number}", f"about {seconds:.0f} s"))
    return [
        *findings,
        Finding("all chapters", f"about {total / 60:.0f} min at {speed:.0f} steps/s"),
    ]
