"""Make the student notebooks of exercises/ out of the instructor notebooks of solutions/.

`python -m course.release` writes them; `strip` is what the tests use to see that they are current.
nbgrader does the stripping, but never on the project itself: it empties what it writes to.
"""

import logging
import shutil
import tempfile
from pathlib import Path

from course.chapters import ROOT


def strip(solutions: Path, target: Path) -> None:
    """Write every assignment below `solutions` into `target`, without solutions and hidden tests.

    Raises ValueError if a folder holds anything but notebooks: nbgrader would copy it to students.
    """
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

    logging.getLogger("traitlets").setLevel(logging.ERROR)
    for folder in sorted(path for path in solutions.iterdir() if path.is_dir()):
        refuse_leaks(folder)
        config = Config()
        config.CourseDirectory.root = str(target)
        config.CourseDirectory.source_directory = str(solutions)
        config.CourseDirectory.release_directory = str(target)
        config.CourseDirectory.assignment_id = folder.name
        config.CourseDirectory.ignore = [".ipynb_checkpoints"]
        config.SaveCells.enabled = False
        course = CourseDirectory(config=config)
        GenerateAssignment(coursedir=course, config=config, no_database=True, force=True).start()


def refuse_leaks(folder: Path) -> None:
    """Raise ValueError on a file that nbgrader would copy to students as it is."""
    for path in folder.rglob("*"):
        checkpoint = ".ipynb_checkpoints" in path.parts
        if path.is_file() and path.suffix != ".ipynb" and not checkpoint:
            raise ValueError(f"{path} would be handed out with the exercises: move it elsewhere.")


def release(root: Path = ROOT) -> None:
    """Replace the folders of exercises/ by freshly stripped ones."""
    with tempfile.TemporaryDirectory() as scratch:
        strip(root / "solutions", Path(scratch))
        for folder in sorted(Path(scratch).iterdir()):
            target = root / "exercises" / folder.name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder, target)
            print(f"exercises/{folder.name}")


if __name__ == "__main__":
    release()
