"""What a newcomer and a host see first: licence, versions, address, workflows, help."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from course import __main__ as course
from course import doctor
from course.address import Address, cite, read_address, sync_citation, theme_options
from course.chapters import CHAPTERS, ROOT
from gpt2.__main__ import parser

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.11.0", "3.11.4", "3.11.5", "3.12.0", "3.13.0", "3.14.0")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def words(text):
    return " ".join(text.split())


def licence_of(package, ending):
    """Return the text of a licence file that an installed package carries."""
    (file,) = [f for f in metadata.files(package) if str(f).endswith(ending)]
    return file.read_text()


def requirements(*extras):
    """Return the project's requirements; with extras, theirs instead, "*" for all of them."""
    optional = PROJECT["optional-dependencies"]
    names = optional if extras == ("*",) else extras
    lines = [line for name in names for line in optional[name]] if extras else []
    return [Requirement(line) for line in lines or PROJECT["dependencies"]]


def others():
    """Return every requirement that names another project."""
    every = [*requirements(), *requirements("*")]
    return [r for r in every if r.name != PROJECT["name"]]


# -- licence ---------------------------------------------------------------------------------------


def test_license_is_the_plain_mit_text_that_hosts_recognize():
    head, _, body = words(read("LICENSE")).partition("Permission is hereby granted")
    assert re.fullmatch(r"MIT License Copyright \(c\) \d{4} The authors of the course ", head)
    assert (
        body == words(licence_of("pytest", "LICENSE")).partition("Permission is hereby granted")[2]
    )


def test_notice_carries_unicode_license_whole_and_says_what_is_under_what():
    notice = read("NOTICE.md")
    theirs = licence_of("babel", "LICENSE.unicode").partition("SPDX")[0]
    assert words(theirs) in words(notice)
    for part in ("src/miniweb/countries.tsv", "chapters/", "src/", "models/"):
        assert f"`{part}`" in notice and (ROOT / part).exists()
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE.md"]
    assert PROJECT["license"].split(" AND ") == ["MIT", "CC-BY-4.0", "Unicode-3.0"]


# -- versions --------------------------------------------------------------------------------------


def test_no_bound_turns_newcomers_away():
    python = SpecifierSet(PROJECT["requires-python"])
    assert "3.11.0" in python and "3.10.99" not in python and "3.99" in python
    (torch,) = [r for r in requirements() if r.name == "torch"]
    assert "99.0" in torch.specifier and "2.10" not in torch.specifier


def test_each_requirement_has_a_lowest_version_and_pins_stand_in_constraints_alone():
    for requirement in others():
        operators = {s.operator for s in requirement.specifier}
        assert ">=" in operators, f"{requirement}: the oldest version is unknown"
        assert "==" not in operators, f"{requirement}: pins stand in constraints.txt"


def pins(python):
    """Return the versions of constraints.txt that hold for a Python."""
    found = {}
    for line in read("constraints.txt").splitlines():
        pin, _, condition = line.partition(";")
        here = {"python_full_version": python}
        if not line.startswith("#") and (not condition or Marker(condition).evaluate(here)):
            name, version = pin.strip().split("==")
            assert canonicalize_name(name) not in found, f"{name} twice for {python}"
            found[canonicalize_name(name)] = version
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_one_allowed_version_of_each_requirement(python):
    pinned = pins(python)
    for requirement in others():
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_name_the_same_packages_for_each_python(python):
    assert pins(python).keys() == pins("3.11.7").keys()


def imported(folder):
    """Yield module and file for what is imported anywhere below a folder."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], file) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module.partition(".")[0], file


def test_what_the_packages_import_is_declared():
    ours = {path.name for path in (ROOT / "src").iterdir()} | set(sys.stdlib_module_names)
    ours |= {path.stem for path in (ROOT / "_ext").glob("*.py")}
    distributions = metadata.packages_distributions()
    declared = {canonicalize_name(r.name) for r in others()}
    for folder in ("src", "_ext"):
        for module, file in imported(ROOT / folder):
            if module not in ours:
                providers = {canonicalize_name(name) for name in distributions[module]}
                assert providers & declared, f"{file.name} imports {module}: declare it"


def test_doctor_sends_no_newer_python_away(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 15, 0, "final", 0))
    assert not doctor.python().cure
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 13, "final", 0))
    assert "3.11" in doctor.python().cure


@pytest.mark.parametrize(
    "version, goes_on", [("3, 10, 13", False), ("3, 11, 0", True), ("4, 0", True)]
)
def test_make_names_an_old_python_before_pip_gets_lost(tmp_path, version, goes_on):
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || {{ touch {tmp_path}/begun; exit 1; }}\n'
        f'exec {sys.executable} -c "import sys; sys.version_info = ({version}); $2"\n'
    )
    python.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text(read(name))
    run = subprocess.run(
        ["make", ".venv/ready", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode and (tmp_path / "begun").exists() == goes_on
    assert ("Python 3.11 or newer is needed" in run.stderr) != goes_on


# -- the public address ----------------------------------------------------------------------------

NOWHERE = Address()
GITHUB = Address("https://github.com/Ann/gpt2-course", "https://ann.github.io/gpt2-course/")
SETTINGS = [
    ("", NOWHERE),
    ('Repository = "https://github.com/Ann/gpt2-course"', GITHUB),
    ('Repository = "https://github.com/Ann/gpt2-course.git"', GITHUB),
    ('Repository = "https://github.com/Ann/gpt2-course/"', GITHUB),
    (
        'Repository = "https://github.com/Ann/gpt2-course"\nDocumentation = "https://b.example"',
        Address(GITHUB.repository, "https://b.example/"),
    ),
    (
        'Repository = "https://gitlab.com/group/sub/gpt2"',
        Address("https://gitlab.com/group/sub/gpt2", ""),
    ),
    ('Repository = "https://git.example.org/a/b"', Address("https://git.example.org/a/b", "")),
]


def project_at(folder, setting):
    """Write a project that has an address and a citation into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(f'[project]\nname = "x"\n[project.urls]\n{setting}\n')
    (folder / "CITATION.cff").write_text(cite(read("CITATION.cff"), NOWHERE))
    return folder


@pytest.mark.parametrize("setting, address", SETTINGS)
def test_address_is_read_from_one_setting(tmp_path, setting, address):
    assert read_address(project_at(tmp_path, setting)) == address


def test_address_may_be_missing_altogether(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert read_address(tmp_path) == NOWHERE


@pytest.mark.parametrize("wrong", ["github.com/Ann/gpt2", "https://github.com/Ann", "Ann/gpt2"])
def test_wrong_address_is_refused_with_its_form(tmp_path, wrong):
    with pytest.raises(ValueError, match="write https://HOST/OWNER/NAME"):
        read_address(project_at(tmp_path, f'Repository = "{wrong}"'))


@pytest.mark.parametrize("setting, address", SETTINGS)
def test_citation_takes_the_address(tmp_path, setting, address):
    root = project_at(tmp_path, setting)
    before = (root / "CITATION.cff").read_text()
    assert bool(sync_citation(check=True, root=root)) == bool(address.repository)
    assert (root / "CITATION.cff").read_text() == before
    sync_citation(root=root)
    cited = yaml.safe_load((root / "CITATION.cff").read_text())
    assert cited.get("repository-code", "") == address.repository
    assert cited.get("url", "") == address.site
    assert not sync_citation(check=True, root=root)
    assert cite((root / "CITATION.cff").read_text(), NOWHERE) == before


def test_citation_of_this_project_agrees_with_its_address():
    assert sync_citation(check=True) == []


def test_theme_has_buttons_only_where_they_lead_somewhere():
    assert theme_options(NOWHERE) == {}
    assert theme_options(Address("https://git.example.org/a/b")) == {}
    assert theme_options(GITHUB)["repository_url"] == GITHUB.repository


@pytest.mark.parametrize("setting, address", [SETTINGS[0], SETTINGS[1]], ids=["without", "with"])
def test_book_has_buttons_and_canonical_links_if_there_is_an_address(tmp_path, setting, address):
    root = project_at(tmp_path / "book", setting)
    settings = {"title": "Tiny", "execute": {"execute_notebooks": "off"}}
    settings["sphinx"] = {"local_extensions": {"course_book": str(ROOT / "_ext")}}
    (root / "_config.yml").write_text(json.dumps(settings))
    (root / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters: [{file: page}]\n")
    (root / "index.md").write_text("# Tiny\n")
    (root / "page.ipynb").write_text(read("exercises/04_attention/attention.ipynb"))
    book = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(root), "-W", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(book, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    page = (root / "_build" / "html" / "page.html").read_text(encoding="utf-8")
    outside = re.findall(r'href="(https?://[^"]*)"', page)
    if not address.repository:
        assert outside == [] and "canonical" not in page
        return
    assert f'<link rel="canonical" href="{address.site}page.html"' in page
    starts = (
        address.repository,
        f"{address.repository}/issues/new",
        "https://mybinder.org/v2/gh/Ann/gpt2-course/main?urlpath=lab/tree/page.ipynb",
        address.site,
    )
    for start in starts:
        assert any(link.startswith(start) for link in outside), f"{start}: {outside}"
    assert all(link.startswith(starts) for link in outside), outside


# -- what runs on a host ---------------------------------------------------------------------------


def targets():
    """Return the targets of the Makefile that a person calls."""
    return set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))


def run_lines(workflow):
    """Return the commands of a workflow."""
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_names_commands_and_files_that_exist(workflow):
    commands = "\n".join(run_lines(workflow))
    assert commands
    for target in re.findall(r"\bmake (\S+)", commands):
        assert target in targets(), f"{workflow.name}: make {target}"
    for file in re.findall(r"\btests/\S+", commands):
        assert (ROOT / file).is_file(), f"{workflow.name}: {file}"
    assert "no run of this file has been seen yet" in workflow.read_text(encoding="utf-8")


def test_workflows_test_each_module_with_oldest_and_newest_on_three_systems():
    (text,) = [path.read_text(encoding="utf-8") for path in WORKFLOWS if path.name == "test.yml"]
    jobs = yaml.safe_load(text)["jobs"]
    matrix = jobs["course"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    oldest, newest = matrix["include"]
    assert oldest["versions"] == "oldest" and oldest["resolution"] == "lowest-direct"
    assert oldest["python"] == PROJECT["requires-python"].removeprefix(">=")
    assert newest["versions"] == "newest" and newest["resolution"] == "highest"
    written = {c.module for c in CHAPTERS if (ROOT / "src" / "gpt2" / f"{c.module}.py").exists()}
    for name in sorted({*written, "miniweb", "cli"}):
        assert f"tests/test_{name}.py" in text
    assert any("make test" in step.get("run", "") for step in jobs["everything"]["steps"])


def test_book_is_published_from_what_make_builds():
    (text,) = [path.read_text(encoding="utf-8") for path in WORKFLOWS if path.name == "book.yml"]
    steps = yaml.safe_load(text)["jobs"]["publish"]["steps"]
    (upload,) = [step for step in steps if "upload-pages" in step.get("uses", "")]
    assert upload["with"]["path"] + "/index.html" in read("Makefile")


def test_binder_and_container_install_the_tested_versions_on_a_python_that_is_allowed():
    allowed = SpecifierSet(PROJECT["requires-python"])
    text = re.sub(r"^\s*//.*\n", "", read(".devcontainer/devcontainer.json"), flags=re.MULTILINE)
    container = json.loads(text)
    assert container["image"].partition(":")[2] in allowed
    assert read(".binder/runtime.txt").strip().removeprefix("python-") in allowed
    for commands in (container["postCreateCommand"], read(".binder/postBuild")):
        assert "--torch-backend cpu -c constraints.txt" in commands
    assert os.access(ROOT / ".binder" / "postBuild", os.X_OK)
    for extra in re.search(r"\.\[(.*)\]", read(".binder/postBuild"))[1].split(","):
        assert extra in PROJECT["optional-dependencies"]
    for file in container["customizations"]["codespaces"]["openFiles"]:
        assert (ROOT / file).is_file()


def test_every_text_has_the_same_line_ends_on_every_system():
    run = ["git", "-C", str(ROOT), "ls-files", "--eol"]
    lines = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) > 100
    for line in lines:
        stored, _, attributes = line.partition("\t")[0].split(maxsplit=2)
        raw = "attr/-text" in attributes  # old runs, as they were written
        assert raw or stored in ("i/lf", "i/none", "i/-text"), line
        assert "-text" in attributes or "eol=lf" in attributes, line


# -- what a newcomer reads -------------------------------------------------------------------------


def test_version_is_the_same_in_package_citation_and_changelog():
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["version"] == PROJECT["version"]
    newest = re.search(r"^## (\S+) \((\d+) (\w+) (\d+)\)$", read("CHANGELOG.md"), re.MULTILINE)
    assert newest[1] == PROJECT["version"]
    day = cited["date-released"].split("-")
    months = "January February March April May June July August September October November December"
    assert [newest[4], months.split()[int(day[1]) - 1], newest[2]] == [
        day[0],
        newest[3],
        str(int(day[2])),
    ]


def test_troubleshooting_is_in_the_book():
    toc = yaml.safe_load(read("_toc.yml"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert "chapters/troubleshooting" in files
    assert "chapters/troubleshooting.md" in read("README.md")


def commands(page):
    """Yield the commands of a page: its code spans, and the lines of its blocks."""
    text = read(page)
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


@pytest.mark.parametrize("page", ["chapters/troubleshooting.md", "README.md"])
def test_commands_and_files_that_help_names_exist(page):
    helped, seen = parser().format_help(), 0
    for command in commands(page):
        if target := re.match(r"(?:\w+=\S+ )?make ([a-z]+)", command):
            assert target[1] in targets(), command
            seen += 1
        if verb := re.match(r"(?:\.venv/bin/)?course ([a-z-]+)", command):
            with pytest.raises(SystemExit) as stopped:
                course.main([verb[1], "--help"])
            assert stopped.value.code == 0, command
            seen += 1
        if verb := re.match(r"\S*python -m gpt2 (\w+)", command):
            assert verb[1] in helped, command
            seen += 1
        for file in re.findall(r"(?<!/)\b(?:constraints\.txt|exercises/\w+|[A-Z]+\.md)\b", command):
            assert (ROOT / file).exists(), command
            seen += 1
    assert seen > 5


def test_what_stands_in_for_make_is_what_make_does():
    recipes = read("Makefile").replace("$(PYTEST)", "$(BIN)/python -m pytest")
    recipes = recipes.replace("$(BIN)", ".venv/bin")
    rows = re.findall(
        r"^\| `make (\w+)` \| `\.venv/bin/(\S+)[^`]*` \|$",
        read("chapters/troubleshooting.md"),
        re.M,
    )
    assert len(rows) == 4
    for target, program in rows:
        recipe = re.search(rf"^(?:\.make/)?{target}:.*\n(?:\t.*\n)+", recipes, re.MULTILINE)
        assert f".venv/bin/{program}" in recipe[0], f"make {target} runs no {program}"
