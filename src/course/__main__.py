"""The command line of the course: `course --help`."""

import argparse
import io
import os
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from course import chapters, doctor
from course.sandbox import OPT_OUT


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0 if all is well, 1 if something is wrong, 2 on a wrong call."""
    parser = argparse.ArgumentParser(prog="course", description="Build, run and check the course.")
    commands = parser.add_subparsers(dest="command", required=True)
    sync = commands.add_parser(
        "sync", help="write definitions, numbers of exercises and maps where they are shown"
    )
    sync.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if anything differs"
    )
    execute = commands.add_parser("execute", help="run chapters and store their outputs")
    execute.add_argument("chapter", nargs="*", help="4, 04_attention or attention; default: all")
    execute.add_argument(
        "--changed", action="store_true", help="only those that changed, they or what they import"
    )
    commands.add_parser(
        "doctor", help="say whether the course will run here, and how long it takes"
    )
    weights = commands.add_parser(
        "weights", help="fetch OpenAI's GPT-2 for chapter 11, and verify it"
    )
    weights.add_argument("size", help="124M, 355M, 774M or 1558M")
    weights.add_argument(
        "--from", dest="source", metavar="FOLDER",
        help="take model.safetensors from there, and not from the hub",
    )  # fmt: skip
    models = commands.add_parser(
        "models", help="list the models of chapter 8, or train some of them, in pieces"
    )
    models.add_argument("run", nargs="*", help="as listed, 0.3M-0 or 0.3M-0-36000; default: none")
    models.add_argument("--all", action="store_true", help="all that are missing, one a core")
    models.add_argument("--minutes", type=float, default=85, help="to train for (default: 85)")
    models.add_argument("--world", type=int, default=0, help="an invented one, to tune on")
    models.add_argument(
        "--card", action="store_true", help="keep each first seed's weights, write the card"
    )
    models.add_argument(
        "--check", action="store_true", help="compute the card again from results and weights"
    )
    translators = commands.add_parser(
        "translators", help="train the translators of chapter 10, or go on where it stopped"
    )
    translators.add_argument(
        "--web", type=int, metavar="SEED", help="train on a web that repeats 400 pairs, instead"
    )
    translators.add_argument("--fresh", action="store_true", help="... whose pairs are always new")
    rules = commands.add_parser(
        "rules", help="search the strongest rule of each task that needs no model"
    )
    rules.add_argument("task", nargs="*", help="default: all")
    rules.add_argument("--pages", type=int, default=48_000, help="to count on (default: 48000)")
    rules.add_argument("--single", action="store_true", help="score items, not pairs of them")
    rules.add_argument("--save", action="store_true", help="keep what was found, for the card")
    mutants = commands.add_parser(
        "mutants", help="run every wrong answer against the tests of its exercise; list survivors"
    )
    mutants.add_argument("chapter", nargs="*", help="default: all")
    start = commands.add_parser(
        "start", help="lay out a package of stubs: GPT-2 for you to write, from an empty file"
    )
    start.add_argument("package", help="its name, as in my_gpt2; the folder is made here")
    check = commands.add_parser("check", help="run your exercises and say what is still wrong")
    check.add_argument("chapter", help="4, 04_attention, attention, or a notebook file")
    check.add_argument(
        "--package",
        metavar="NAME",
        help="check your own module of the chapter, from `course start`",
    )
    teaching(commands)
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # a terminal without an o with dots stops nothing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    run = globals()[f"run_{options.command.replace('-', '_')}"]
    try:
        return int(run(options))
    except (ValueError, OSError) as error:
        print(f"course: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("course: stopped; give the same command again to go on", file=sys.stderr)
        return 130


def teaching(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the instructor's commands."""
    release = commands.add_parser("release", help="teach: write exercises/ out of solutions/")
    release.add_argument("--force", action="store_true", help="keep work in exercises/ as a copy")
    plan = commands.add_parser("syllabus", help="teach: add up a plan of weeks")
    plan.add_argument(
        "week",
        nargs="*",
        help="its chapters, as in 1,2, or any words; default: the plans of the book",
    )
    new_class = commands.add_parser("new-class", help="teach: make a class, or add students to it")
    new_class.add_argument(
        "roster", help="a CSV with a column `id`, or Canvas's or Moodle's export"
    )
    collect = commands.add_parser("collect", help="teach: take submissions from a folder or a zip")
    collect.add_argument("chapter")
    collect.add_argument("source", help="what the learning system gave you")
    grade = commands.add_parser("grade", help="teach: grade what has been handed in")
    grade.add_argument("chapter")
    grade.add_argument("--student", action="append", help="only this one; may be repeated")
    grade.add_argument("--workers", type=int, default=2, help="processes at a time (default: 2)")
    grade.add_argument("--seconds", type=float, default=180, help="for one submission (180)")
    grade.add_argument("--again", action="store_true", help="grade anew what is graded")
    grade.add_argument(
        f"--{OPT_OUT}",
        action="store_true",
        help="run submissions WITHOUT the sandbox: any of them can then do what its name says",
    )
    review = commands.add_parser("review", help="teach: what needs a person, and the formgrader")
    review.add_argument("chapter")
    review.add_argument("--accept", metavar="STUDENT", help="you have looked; the marks stand")
    review.add_argument("--note", default="", help="with --accept: what you found")
    review.add_argument("--open", action="store_true", help="start JupyterLab at the formgrader")
    feedback = commands.add_parser("feedback", help="teach: write the students' pages")
    feedback.add_argument("chapter")
    feedback.add_argument("--everyone", action="store_true", help="also those that need review")
    export = commands.add_parser("export", help="teach: write the marks as CSV")
    export.add_argument("chapter", nargs="+")
    export.add_argument("--format", default="plain", help="plain (default), canvas or moodle")
    export.add_argument("--out", help="a file; default: to the screen")
    export.add_argument("--excel", action="store_true", help="with the mark by which Excel knows "
                        "UTF-8")  # fmt: skip


def run_sync(options: argparse.Namespace) -> int:
    """Sync, or name what differs."""
    from course.sync import sync

    differences = sync(check=options.check)
    for difference in differences:
        print(difference)
    if options.check and differences:
        print("Edit src/ or solutions/, never what is made from them; then run `course sync`.")
        return 1
    return 0


def run_execute(options: argparse.Namespace) -> int:
    """Execute the named chapters, or all of them; report each as it ends."""
    from nbclient.exceptions import CellExecutionError

    from course.execute import execute
    from course.inputs import has_changed
    from course.notebooks import read_notebook

    wanted = [chapters.find(name) for name in options.chapter] or chapters.written()
    if options.changed:
        wanted = [chapter for chapter in wanted if has_changed(read_notebook(chapter.path))]
    print("" if wanted else "no chapter has changed since it was executed\n", end="")
    failed = 0
    for chapter in wanted:
        print(f"{chapter.stem} ...", flush=True)
        try:
            print(f"{chapter.stem}: {execute(chapter):.0f} s", flush=True)
        except CellExecutionError as error:
            failed = 1
            print(f"{chapter.stem}: a cell failed; the notebook is unchanged\n{error}", flush=True)
    return failed


def run_syllabus(options: argparse.Namespace) -> int:
    """Print a plan that is given, or those of the book."""
    from course.syllabus import SYLLABI, syllabus

    if options.week:
        print(syllabus(options.week))
    else:
        print("\n\n".join(syllabus(plan, week_0=True) for plan in SYLLABI.values()))
    return 0


def run_weights(options: argparse.Namespace) -> int:
    """Fetch the weights of a published size, or take them from a folder; say what was checked."""
    from gpt2 import pretrained

    try:
        path, checked = pretrained.fetch(options.size, options.source)
    except (OSError, ImportError) as error:
        raise ValueError(error) from error
    print(f"{options.size}: {path}\n{checked}")
    print(f'try it: python -m gpt2 generate {options.size} --prompt "..."')
    return 0


def run_models(options: argparse.Namespace) -> int:
    """List the runs, train those that are named for some minutes, or make or check the card."""
    from course import models

    runs = [models.parse(name, options.world) for name in options.run]
    if options.all:
        runs = [run for run in models.planned_runs() if not models.is_written_down(run)]
    if options.card:
        models.write_card()
        print((models.FOLDER / "README.md").read_text(encoding="utf-8"))
        return 0
    if options.check:
        wrong = models.check_card()
        print("\n".join(wrong) or "the card is what results, weights and rules say")
        return 1 if wrong else 0
    models.train_all(runs, options.minutes, n_processes=(os.cpu_count() or 1) if options.all else 1)
    print("\n".join(map(models.describe, runs or models.planned_runs())))
    return 0


def run_translators(options: argparse.Namespace) -> int:
    """Make the runs that are missing, or go on with one on a web of repeated pairs."""
    from course import translators

    if options.fresh and options.web is None:
        raise ValueError("--fresh is a kind of web: write --web SEED --fresh")
    if options.web is None:
        translators.train_lists()
    else:
        translators.train_on_web(options.web, repeated=not options.fresh)
    return 0


def run_rules(options: argparse.Namespace) -> int:
    """Print for each task the strongest cheap rules and the strongest database; keep the best."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from course import models, rules
    from miniweb.tasks import DIALS

    tasks = options.task or DIALS
    if unknown := [task for task in tasks if task not in DIALS]:
        raise ValueError(f"{unknown[0]!r} is no task; there are {', '.join(DIALS)}")
    search = partial(models.search_rules, n_pages=options.pages, paired=not options.single)
    print(rules.HEAD, flush=True)
    with ProcessPoolExecutor(min(len(tasks), os.cpu_count() or 1), get_context("spawn")) as pool:
        for task, rows in zip(tasks, pool.map(search, tasks), strict=True):
            print("\n".join(rules.row(task, line, rule) for line, rule in rows), flush=True)
            if options.save:
                models.keep_rules(task, options.pages, dict(rows))
    return 0


def run_mutants(options: argparse.Namespace) -> int:
    """List exercise, wrong answer and the test that kills it; exit 1 on a survivor."""
    import torch

    from course import exercises, mutants

    torch.set_num_threads(1)
    paths = exercises.sources()
    if options.chapter:
        wanted = [chapters.find(name) for name in options.chapter]
        paths = [exercises.path_of(chapter, chapters.ROOT / "solutions") for chapter in wanted]
    lines = [line for path in paths for line in print_each(mutants.report(path))]
    wrong = sum(bad for _, bad in lines)
    print(f"{wrong} to mend" if wrong else "no survivor")
    return int(wrong > 0)


def print_each(lines: Iterable[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Print lines as they come, and return them."""
    found = []
    for line, bad in lines:
        print(line, flush=True)
        found.append((line, bad))
    return found


def run_doctor(options: argparse.Namespace) -> int:
    """Print the report; exit 1 if anything in it needs a cure."""
    findings = doctor.examine()
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{finding.what:{width}}  {finding.value}")
    cures = [f"{finding.what}: {finding.cure}" for finding in findings if finding.cure]
    print("\nThe course will run here." if not cures else "\nTo do first:\n" + "\n".join(cures))
    return 1 if cures else 0


def run_start(options: argparse.Namespace) -> int:
    """Lay out a learner's package; say what is new and what comes first."""
    from course.stubs import start_package

    package = options.package
    if not (new := start_package(package, Path.cwd())):
        print(f"{package} is complete, and as it was. To begin a module again, rename its file;")
        print(f"then `course start {package}` writes a new one.")
        return 0
    print(f"{package}/ has new files: {', '.join(new)}")
    print("Open the module of a chapter, as attention.py of chapter 4: its first lines say what to")
    print("write. What goes with it, and what you will have done so far:")
    print(f"\n    course check 4 --package {package}")
    return 0


def run_check(options: argparse.Namespace) -> int:
    """Print a verdict for each exercise, or definition of a package; exit 1 unless all pass."""
    if options.package:
        from course.own import check_package

        return check_package(options.chapter, options.package, Path.cwd())
    from course.check import check

    return check(options.chapter)


def run_release(options: argparse.Namespace) -> int:
    """Release, and say what is new."""
    from course.release import release

    changed = release(options.force)
    print("\n".join(changed) or "the exercises are up to date")
    return 0


def run_new_class(options: argparse.Namespace) -> int:
    """Make or extend the class, and register its assignments."""
    from course.classroom import class_folder, new_class
    from course.release import release

    students = new_class(Path(options.roster))
    release()
    print(
        f"{len(students)} students in {class_folder()}; hand out exercises/, then `course collect`"
    )
    return 0


def run_collect(options: argparse.Namespace) -> int:
    """Collect; exit 1 if something could not be told apart."""
    from course.collect import collect

    lines, problems = collect(options.chapter, Path(options.source))
    print("\n".join(lines))
    print(f"\n{len(lines)} students handed in.")
    if problems:
        print("\nNot collected, still where it was:\n" + "\n".join(problems))
    return int(bool(problems))


def run_grade(options: argparse.Namespace) -> int:
    """Grade and print the table; exit 1 if a submission failed."""
    import os

    from course import grading
    from course.sandbox import SandboxMissing

    if options.workers < 1:
        raise ValueError("--workers must be at least 1")
    if vars(options)[OPT_OUT.replace("-", "_")]:
        os.environ["COURSE_UNSANDBOXED"] = OPT_OUT
        print("WITHOUT A SANDBOX: " + OPT_OUT.replace("-", " "), flush=True)
    try:
        results = grading.grade(
            options.chapter, options.student, options.workers, options.again, options.seconds,
            say=lambda text: print(text, flush=True),
        )  # fmt: skip
    except SandboxMissing as error:
        print(f"course: {error}", file=sys.stderr)
        return 2
    graded = {result.student for result in results}
    print("\n" + grading.table([r for r in grading.standings(options.chapter)
                                if not options.student or r.student in graded]))  # fmt: skip
    return int(any(result.status == grading.FAILED for result in results))


def run_review(options: argparse.Namespace) -> int:
    """List what needs a person; accept a flagged submission; open the formgrader."""
    from course import classroom, grading

    if options.accept:
        grading.accept(options.chapter, options.accept, options.note)
    name = classroom.assignment(options.chapter)[0]
    waiting = [r for r in grading.standings(name) if r.status in (grading.REVIEW, grading.FAILED)]
    print(grading.table(waiting) if waiting else "nothing needs a person")
    if options.open:
        return subprocess.call(
            [sys.executable, "-m", "jupyter", "lab", "--ServerApp.default_url=/formgrader"],
            cwd=chapters.ROOT,
        )
    if waiting:
        print(f"\nMark written answers: course review {name} --open")
        print(f'A flag you have looked into: course review {name} --accept STUDENT --note "..."')
    return 0


def run_feedback(options: argparse.Namespace) -> int:
    """Write feedback and say who gets none."""
    from course.marks import feedback

    pages, without = feedback(options.chapter, options.everyone)
    print("\n".join(map(str, pages)))
    print(f"\n{len(pages)} pages.")
    if without:
        print("No page yet, or one of marks alone:\n" + "\n".join(without))
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Export marks."""
    from course.marks import export
    from course.notebooks import write_text

    text = "\ufeff" * options.excel + export(options.chapter, options.format)
    if options.out:
        write_text(Path(options.out), text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
