"""Measure the rendered book: `python tests/pages.py [_build/html] [--audit]` prints a table.

For each page: code blocks wider than their box at three widths, whether the page itself scrolls
sideways, what a visitor loads before a touch, and stops of the Tab key. For the book: its size,
broken links and anchors, what search finds first. With --audit, axe in both themes at two sizes.
"""

import argparse
import collections
import contextlib
import functools
import gzip
import html
import http.server
import re
import shutil
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

from axe_playwright_python.sync_playwright import Axe
from conftest import CHROMIUM_FLAGS

from course.chapters import ROOT, written

OTHERS = [
    f"chapters/{name}.html"
    for name in ("teaching", "troubleshooting", "notation", "glossary", "api", "bibliography")
]
PAGES = [
    "index.html",
    *(f"chapters/{chapter.stem}.html" for chapter in written()),
    *(f"exercises/{c.stem}/{c.stem[3:]}.html" for c in written()),
    *OTHERS,
]
WIDTHS = (390, 768, 1366)
THEMES = ("light", "dark")
RULES = {"label-content-name-mismatch": {"enabled": True}, "target-size": {"enabled": True}}
# Contrast takes axe milliseconds a word: of code and of signatures, one token of each color on each
# ground is left.
HIDE_REPEATED_TOKENS = """() => {
    const spans = document.querySelectorAll(".highlight pre span, dt.sig span:not(a *)");
    const tokens = [...spans].filter(span => !span.firstElementChild), seen = new Set();
    const look = e => (s => s.color + s.backgroundColor)(getComputedStyle(e));
    const looks = tokens.map(token => look(token) + look(token.closest("pre, dt")));
    tokens.forEach((token, i) => {
        token.style.visibility = seen.has(looks[i]) ? "hidden" : "visible";
        seen.add(looks[i]);
    });
}"""
PATIENCE = 120_000  # milliseconds that a busy machine may take

ZERO_SHOT = "misconception-zero-shot-means-that-the-prompt-holds-no-examples"
PERPLEXITY = "misconception-a-perplexity-is-a-perplexity-the-lower-one-is-the-better-model"
# What a reader types, and the section where the answer is.
QUERIES = {
    "causal mask": "04_attention#all-positions-at-once",
    "byte pair": "02_tokens#ten-words-by-hand",
    "byte pair encoding": "02_tokens#ten-words-by-hand",
    "BPE": "02_tokens#ten-words-by-hand",
    "TLDR": "08_prompting#a-task-is-a-text",
    "TL;DR": "08_prompting#a-task-is-a-text",
    "temperature": "07_generation#temperature",
    "top-k": "07_generation#top-k",
    "top-p": "07_generation#two-kinds-of-top-p",
    "nucleus sampling": "07_generation#two-kinds-of-top-p",
    "KV cache": "07_generation#repeated-work",
    "beam search": "07_generation#repetition-penalty-and-beam-search",
    "repetition penalty": "07_generation#repetition-penalty-and-beam-search",
    "greedy decoding": "07_generation#greedy-decoding-the-likeliest-token-every-time",
    "streaming": "07_generation#streaming-whole-characters",
    "cross-attention": "10_transformer#cross-attention",
    "label smoothing": "10_transformer#label-smoothing",
    "sinusoidal": "10_transformer#where-a-word-is",
    "warmup": "06_training#the-learning-rate-up-then-down",
    "learning rate": "06_training#the-learning-rate-up-then-down",
    "AdamW": "06_training#adamw-every-parameter-at-its-own-pace",
    "weight decay": "06_training#adamw-every-parameter-at-its-own-pace",
    "gradient clipping": "06_training#clipping-one-bad-batch-is-not-a-catastrophe",
    "gradient accumulation": "06_training#accumulation-a-large-batch-in-little-memory",
    "bfloat16": "06_training#half-the-bits-bfloat16",
    "mixed precision": "06_training#half-the-bits-bfloat16",
    "checkpoint": "06_training#a-run-that-survives",
    "resume": "06_training#a-run-that-survives",
    "overfitting": "06_training#misconception-more-epochs-always-help",
    "LayerNorm": "05_decoder#one-scale-for-every-layer",
    "GELU": "05_decoder#the-nonlinearity-gelu",
    "residual connection": "05_decoder#carry-the-input-along",
    "skip connection": "05_decoder#carry-the-input-along",
    "weight tying": "05_decoder#the-head-is-the-embedding",
    "dropout": "05_decoder#what-this-model-leaves-out-dropout",
    "number of parameters": "05_decoder#four-sizes-to-the-last-digit",
    "pre-norm": "05_decoder#one-scale-for-every-layer",
    "multi-head attention": "04_attention#several-heads",
    "sqrt": "04_attention#why-the-scores-are-divided",
    "leak test": "04_attention#the-leak-test",
    "perplexity": "01_language_models#how-good-is-a-model",
    "bits per byte": "01_language_models#" + PERPLEXITY,
    "entropy": "01_language_models#the-best-that-anyone-can-do",
    "zero-shot": "01_language_models#" + ZERO_SHOT,
    "padding": "03_batches#rows-of-documents",
    "shuffle": "03_batches#misconception-shuffle-the-data-means-the-tokens",
    "broadcasting": "00_pytorch#broadcasting",
    "autograd": "00_pytorch#autograd-in-forty-lines",
    "momentum": "00_pytorch#a-step-with-and-without-momentum",
    "hook": "00_pytorch#hooks-looking-inside-a-running-model",
    "fine-tuning": "09_bert#fine-tuning",
    "masked language model": "09_bert#hide-and-guess",
    "LAMBADA": "11_pretrained#lambada-four-ways",
    "Conv1D": "05_decoder#the-same-numbers-as-the-reference",
}


def chromium(playwright):
    """Start the machine's Chromium."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    return playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)


@contextlib.contextmanager
def serve(folder):
    """Serve the pages on this machine; give their address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def overflowing(page):
    """Return by how many pixels each block of code or output is wider than its box."""
    return page.locator(".bd-article pre").evaluate_all(
        "blocks => blocks.map(b => b.scrollWidth - b.clientWidth).filter(x => x > 1)"
    )


def tab_stops(page):
    """Count what the Tab key stops at."""
    return page.evaluate(
        """[...document.querySelectorAll(
            'a[href], button, input, summary, select, textarea, [tabindex]')].filter(
            e => e.tabIndex >= 0 && !e.disabled && e.checkVisibility({visibilityProperty: true})
        ).length"""
    )


@functools.cache
def sizes(path):
    """Return the bytes of a file, and its bytes as a server with compression sends them."""
    data = path.read_bytes()
    packed = path.suffix in (".woff2", ".png")
    return len(data), len(data) if packed else len(gzip.compress(data, 6))


def settle(page, address):
    """Open a page and wait until it is read and quiet; a busy machine can be quiet too early."""
    page.goto(address, wait_until="load")
    page.wait_for_load_state("networkidle")


def load(page, folder, site, name):
    """Open a page; return the bytes, compressed bytes and requests that it takes untouched."""
    urls = []
    note = lambda request: urls.append(request.url)  # noqa: E731
    page.on("request", note)
    settle(page, f"{site}/{name}")
    page.remove_listener("request", note)
    paths = dict.fromkeys(urlsplit(u).path for u in urls if u.startswith(site))  # once
    files = [folder / unquote(path).lstrip("/") for path in paths]
    both = [sizes(file) for file in files if file.is_file()]
    return sum(a for a, _ in both), sum(b for _, b in both), len(files)


def broken(folder):
    """Return the links in the book that lead nowhere, as (page, link), and the number of all."""
    pages = {p: p.read_text(encoding="utf-8") for p in folder.rglob("*.html")}
    ids = {p: set(re.findall(r'\b(?:id|name)="([^"]+)"', text)) for p, text in pages.items()}
    found, n = [], 0
    for page, text in pages.items():
        for link in map(html.unescape, re.findall(r'<a\b[^>]*?\bhref="([^"]*)"', text)):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link in ("", "#"):
                continue
            n += 1
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = unquote(parts.fragment)
            if not target.is_file() or (target in ids and anchor and anchor not in ids[target]):
                found.append((page.relative_to(folder).as_posix(), link))
    return found, n


def first_hits(page, site, queries):
    """Search as a reader does; return the first result of each query as CHAPTER#SECTION."""
    page.goto(f"{site}/search.html?q=attention")
    page.wait_for_selector("#search-results li")
    hits = page.evaluate(
        """queries => queries.map(q =>
            Search._performSearch(...Search._parseQuery(q)).at(-1) ?? ["nothing", "", ""])""",
        list(queries),
    )
    return {q: Path(hit[0]).name + hit[2] for q, hit in zip(queries, hits, strict=True)}


def audit(page, site, name, theme, width):
    """Return what axe finds on a page, a rule a line."""
    page.set_viewport_size({"width": width, "height": 844})
    settle(page, f"{site}/{name}")
    page.add_style_tag(content="* { transition: none !important }")  # no color on its way
    page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
    page.evaluate(HIDE_REPEATED_TOKENS)
    options = {"resultTypes": ["violations"], "rules": RULES}
    return [
        f"{v['id']} x {len(v['nodes'])}: {v['nodes'][0]['html'][:160]}"
        for v in Axe().run(page, options=options).response["violations"]
    ]


def main():
    """Print the table."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--audit", action="store_true", help="axe, in both themes at two sizes")
    options = parser.parse_args()
    folder = options.folder.resolve()
    with serve(folder) as site, sync_playwright() as playwright:
        browser = chromium(playwright)
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE)
        print("| page | blocks | " + " | ".join(f"over at {w}" for w in WIDTHS), end="")
        print(" | worst | sideways | kB | gzip kB | requests | Tab |")
        print("|---" * 11 + "|")
        total = collections.Counter()
        for name in PAGES:
            page.set_viewport_size({"width": 1366, "height": 844})
            weight, packed, requests = load(page, folder, site, name)
            stops, blocks = tab_stops(page), page.locator(".bd-article pre").count()
            over, sideways = {}, 0
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 844})
                over[width] = overflowing(page)
                sideways += page.evaluate("document.scrollingElement.scrollWidth") > width
                total[width] += len(over[width])
            total["blocks"] += blocks
            worst = max(over[1366], default=0)
            row = [name, blocks, *(len(over[w]) for w in WIDTHS), worst, sideways]
            row += [weight // 1000, packed // 1000, requests, stops]
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
        over = ", ".join(f"{total[w]} at {w}" for w in WIDTHS)
        print(f"\nblocks wider than their box, of {total['blocks']}: {over}")
        lost, n = broken(folder)
        print(f"broken links and anchors: {len(lost)} of {n}", *lost[:9])
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        print(f"size of the site: {size / 1e6:.1f} MB")
        hits = first_hits(page, site, QUERIES)
        wrong = {query: hit for query, hit in hits.items() if hit != QUERIES[query]}
        print(f"search: {len(hits) - len(wrong)} of {len(hits)} find their section first", wrong)
        if options.audit:
            found = [
                f"{name}, {theme}, {width} px: {line}"
                for name in PAGES
                for theme in THEMES
                for width in (390, 1366)
                for line in audit(page, site, name, theme, width)
            ]
            print(f"axe: {len(found)} violations", *found, sep="\n")


if __name__ == "__main__":
    main()
