"""The command line of the course: `course --help`."""

import argparse
import sys

from course import chapters, doctor


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0 if all is well, 1 if something is wrong, 2 on a wrong call."""
    parser = argparse.ArgumentParser(prog="course", description="Build, run and check the course.")
    commands = parser.add_subparsers(dest="command", required=True)
    sync = commands.add_parser(
        "sync", help="write the definitions of src/ into the chapters' cells"
    )
    sync.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if a cell differs"
    )
    execute = commands.add_parser("execute", help="run chapters and store their outputs")
    execute.add_argument("chapter", nargs="*", help="4, 04_attention or attention; default: all")
    commands.add_parser(
        "doctor", help="say whether the course will run here, and how long it takes"
    )
    models = commands.add_parser(
        "models", help="train the models of chapter 8, or go on where it stopped; score them"
    )
    models.add_argument(
        "--check", action="store_true", help="only compute the card again from the weights"
    )
    options = parser.parse_args(arguments)
    run = {"sync": run_sync, "execute": run_execute, "doctor": run_doctor, "models": run_models}
    try:
        return run[options.command](options)
    except (ValueError, FileNotFoundError) as error:
        print(f"course: {error}", file=sys.stderr)
        return 2


def run_sync(options: argparse.Namespace) -> int:
    """Sync, or name what differs."""
    from course.sync import sync

    differences = sync(check=options.check)
    for difference in differences:
        print(difference)
    if options.check and differences:
        print("Edit the definition in src/, then run `course sync`.")
        return 1
    return 0


def run_execute(options: argparse.Namespace) -> int:
    """Execute the named chapters, or all of them; report each as it ends."""
    from nbclient.exceptions import CellExecutionError

    from course.execute import execute

    names = options.chapter or [chapter.stem for chapter in chapters.written()]
    failed = 0
    for chapter in [chapters.find(name) for name in names]:
        print(f"{chapter.stem} ...", flush=True)
        try:
            print(f"{chapter.stem}: {execute(chapter):.0f} s", flush=True)
        except CellExecutionError as error:
            failed = 1
            print(f"{chapter.stem}: a cell failed; the notebook is unchanged\n{error}", flush=True)
    return failed


def run_models(options: argparse.Namespace) -> int:
    """Train, score and describe the models, or name what the card says wrongly."""
    from course import models

    if not options.check:
        models.train_all()
        models.collect()
        models.write_card()
    wrong = models.check_card()
    print("\n".join([f"the card should say: {line}" for line in wrong] or [models.card()]))
    return 1 if wrong else 0


def run_doctor(options: argparse.Namespace) -> int:
    """Print the report; exit 1 if anything in it needs a cure."""
    findings = doctor.examine()
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{finding.what:{width}}  {finding.value}")
    cures = [f"{finding.what}: {finding.cure}" for finding in findings if finding.cure]
    print("\nThe course will run here." if not cures else "\nTo do first:\n" + "\n".join(cures))
    return 1 if cures else 0


if __name__ == "__main__":
    sys.exit(main())
