"""Where a class lives: the folders, nbgrader's configuration, the roster, the assignments.

`solutions/` is the source and `exercises/` what students get. All else of a class (submissions,
marks, feedback) stands under `grading/`, which git ignores. An instructor who wants hidden tests to
be hidden sets COURSE_SOLUTIONS to a private folder: a chapter that is there takes the place of the
public one, and students then get `grading/release/`. Where several machines grade, COURSE_GRADEBOOK
names a PostgreSQL database, which takes the place of the file `grading/gradebook.db`.
"""

import csv
import fcntl
import io
import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from traitlets.config import Config

from course import sandbox
from course.chapters import ROOT, find
from course.exercises import path_of
from course.notebooks import write_text

GRADED_CELL_SECONDS = 20  # COURSE_CELL_SECONDS overrules it, for a slow machine
STEERING = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")  # categories of Unicode
NBGRADER_LOGGERS = ("traitlets", "course.nbgrader")
COURSE_ID = "gpt2-course"


def class_folder() -> Path:
    """Return the folder of the class."""
    return ROOT / "grading"


def private_sources() -> Path | None:
    """Return the instructor's private folder of sources, if there is one.

    Raises FileNotFoundError if COURSE_SOLUTIONS names no folder.
    """
    name = os.environ.get("COURSE_SOLUTIONS")
    if not name:
        return None
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"COURSE_SOLUTIONS names {folder}, which is not a folder: correct or unset it"
        )
    return folder


def source_folder() -> Path:
    """Return the folder of the sources in force: solutions/, or with private ones over them."""
    return class_folder() / "source" if private_sources() else ROOT / "solutions"


def release_folder() -> Path:
    """Return the folder of what students get."""
    return class_folder() / "release" if private_sources() else ROOT / "exercises"


def overlay() -> Path:
    """Bring the sources in force up to date and return their folder.

    Raises ValueError if a private folder has a notebook that the course does not know, or none at
    all, and if the class was made from private sources that are not named now.
    """
    private, target = private_sources(), source_folder()
    if private is None:
        if (class_folder() / "source").exists():
            raise ValueError(
                "this class has private sources: set COURSE_SOLUTIONS to their folder. To go back "
                "to the public ones, remove grading/source and grading/release"
            )
        return target
    ours = [path for path in private.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    if not ours:
        raise ValueError(f"COURSE_SOLUTIONS names {private}, which holds no notebook")
    for path in ours:
        if not (ROOT / "solutions" / path.relative_to(private)).exists():
            raise ValueError(
                f"{path} replaces no notebook of the course: name it as in solutions/, as in "
                "04_attention/attention.ipynb"
            )
    wanted = {path.relative_to(ROOT / "solutions"): path.read_bytes()
              for path in (ROOT / "solutions").glob("*/*.ipynb")}  # fmt: skip
    wanted |= {path.relative_to(private): path.read_bytes() for path in ours}
    if {path.relative_to(target): path.read_bytes() for path in target.glob("*/*.ipynb")} == wanted:
        return target  # other commands of the class may be reading it
    target.parent.mkdir(exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=".source-"))
    for name, data in wanted.items():
        (fresh / name).parent.mkdir(exist_ok=True)
        (fresh / name).write_bytes(data)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


def relative(path: Path) -> str:
    """Write a path as nbgrader wants it: from the root of the course where it is below it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def configure(c: Config) -> Config:
    """Fill in nbgrader's configuration: the folders, the sandbox, what our own steps replace."""
    c.CourseDirectory.root = str(ROOT)
    c.CourseDirectory.course_id = COURSE_ID
    c.CourseDirectory.source_directory = relative(source_folder())
    c.CourseDirectory.release_directory = relative(release_folder())
    for step in ("submitted", "autograded", "feedback"):
        setattr(c.CourseDirectory, f"{step}_directory", relative(class_folder() / step))
    c.CourseDirectory.db_url = gradebook_url()
    c.CourseDirectory.ignore = [".ipynb_checkpoints", "__pycache__"]
    c.OverwriteCells.add_missing_cells = True
    c.Execute.timeout = int(os.environ.get("COURSE_CELL_SECONDS", GRADED_CELL_SECONDS))
    # A script in an answer must not run in the browser of who grades it, or of who reads feedback.
    c.HTMLExporter.preprocessors = ["course.marks.HarmlessHTML"]
    c.HTMLExporter.filters = {
        "markdown2html": "course.marks.markdown",
        "highlight_code": "course.marks.colored",
        "strip_files_prefix": "course.marks.unchanged",
    }
    c.LimitOutput.max_lines = 500
    steps = "course.submissions"
    c.Autograde.sanitize_preprocessors = [
        "nbgrader.preprocessors.ClearOutput",
        f"{steps}.RestoreCells",
        "nbgrader.preprocessors.DeduplicateIds",
        "nbgrader.preprocessors.OverwriteKernelspec",
        "nbgrader.preprocessors.OverwriteCells",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    c.Autograde.autograde_preprocessors = [
        f"{steps}.SandboxedExecute",
        "nbconvert.preprocessors.ClearMetadataPreprocessor",
        "nbgrader.preprocessors.LimitOutput",
        f"{steps}.SaveGrades",
        "nbgrader.preprocessors.AssignLatePenalties",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    c.GenerateFeedback.preprocessors = [
        "nbgrader.preprocessors.GetGrades",
        "course.marks.MarksByExercise",
        f"{steps}.HideHiddenTests",
        "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
    ]
    return c


def course_directory(c: Config | None = None, **settings: str) -> Any:
    """Return nbgrader's view of the folders; `settings` are its traits, such as student_id."""
    from nbgrader.coursedir import CourseDirectory

    c = c or configure(Config())
    for name, value in settings.items():
        setattr(c.CourseDirectory, name, value)
    return CourseDirectory(config=c)


class GradebookError(OSError):
    """The database of the marks cannot be used; the message says why, without its password."""


def gradebook_url() -> str:
    """Return the URL of the database of the marks: COURSE_GRADEBOOK, or the file in grading/.

    A wrong one is returned as it is: `open_database` refuses it with its cure, and nbgrader fails
    on it.
    """
    if named := os.environ.get("COURSE_GRADEBOOK"):
        return re.sub("^postgres(ql)?://", "postgresql+psycopg://", named)
    return f"sqlite:///{class_folder() / 'gradebook.db'}?timeout=600"


def class_note() -> Path:
    """Return the file that says which database has the marks, and by what name it knows the class.

    There is none if the marks are in grading/gradebook.db.
    """
    return class_folder() / "gradebook.txt"


def has_gradebook() -> bool:
    """Say whether the class has a gradebook."""
    return class_note().exists() or (class_folder() / "gradebook.db").exists()


def gradebook_name() -> str:
    """Return what to call the database of the marks: its URL, without what is secret.

    Raises ValueError if COURSE_GRADEBOOK is no URL of a PostgreSQL database.
    """
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

    if not os.environ.get("COURSE_GRADEBOOK"):
        return "grading/gradebook.db"
    try:
        url = make_url(gradebook_url())
        right = url.drivername == "postgresql+psycopg" and "@" not in (url.host or "")
    except (ArgumentError, ValueError):
        right = False
    if not right or not url.database:
        raise ValueError(
            "COURSE_GRADEBOOK is no URL of a PostgreSQL database: write "
            "postgresql://USER@HOST/DATABASE and put the password into ~/.pgpass, or write "
            "USER:PASSWORD, with @ as %40 and / as %2F"
        )
    return str(URL.create("postgresql", url.username, None, url.host, url.port, url.database))


def trouble(error: BaseException | None) -> str:
    """Say why the database of the marks could not be used, or nothing if it could.

    nbgrader puts exceptions of its own in the place of what the database says.
    """
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    if isinstance(error, GradebookError):
        return str(error)
    if isinstance(error, DBAPIError):
        denied = type(error.orig).__name__ == "InsufficientPrivilege"
        if denied or isinstance(error, InterfaceError | OperationalError):
            return cannot_be_used(error.orig)
    return trouble(error.__cause__ or error.__context__) if error else ""


def cannot_be_used(why: object) -> str:
    """Say in a line that the database of the marks cannot be used, and the cure."""
    from sqlalchemy.engine import make_url

    text = str(why).strip().partition("\n")[0]
    if password := make_url(gradebook_url()).password:
        text = text.replace(str(password), "...")
    first = "start its server or correct COURSE_GRADEBOOK, and "
    cure = f"{first if os.environ.get('COURSE_GRADEBOOK') else ''}give the same command again"
    return f"the gradebook {gradebook_name()} cannot be used ({shown(text)}): {cure}"


@contextmanager
def open_database() -> Iterator[Any]:
    """Open the database of the marks; make its tables if there are none.

    Raises ValueError if COURSE_GRADEBOOK names none, GradebookError if it cannot be used, now or
    while it is open.
    """
    from nbgrader.api import Gradebook, InvalidEntry
    from sqlalchemy.exc import SQLAlchemyError

    gradebook_name()
    try:
        book = Gradebook(gradebook_url(), COURSE_ID)
    except ImportError:
        cure = 'pip install -c constraints.txt -e ".[postgres]"'
        raise GradebookError(f"COURSE_GRADEBOOK needs psycopg: run `{cure}`") from None
    except (SQLAlchemyError, InvalidEntry) as error:
        raise GradebookError(trouble(error) or cannot_be_used(error)) from error
    try:
        with book:
            yield book
    except Exception as error:
        if why := trouble(error):
            raise GradebookError(why) from error
        raise


@contextmanager
def gradebook() -> Iterator[Any]:
    """Open the gradebook of the class.

    Raises what `open_database` raises, FileNotFoundError if there is no class yet, ValueError if
    its marks are not where COURSE_GRADEBOOK says.
    """
    from nbgrader.api import Course

    if not has_gradebook():
        raise FileNotFoundError("there is no class yet: run `course new-class roster.csv`")
    key = class_key()
    with open_database() as book:
        if key and not book.db.get(Course, key):
            raise ValueError(
                f"{gradebook_name()} is not the database of this class, which is "
                f"{class_note().read_text(encoding='utf-8').split()[0]}: correct COURSE_GRADEBOOK"
            )
        yield book


def class_key() -> str:
    """Return the name by which a server's database knows this class, or nothing without a server.

    Raises ValueError if the class has its marks on a server and COURSE_GRADEBOOK names none, or
    the other way round.
    """
    named = os.environ.get("COURSE_GRADEBOOK")
    if class_note().exists():
        where, key = class_note().read_text(encoding="utf-8").split()
        if not named:
            raise ValueError(f"the marks of this class are in {where}: set COURSE_GRADEBOOK to it")
        return key
    if named and (class_folder() / "gradebook.db").exists():
        raise ValueError(
            "the marks of this class are in grading/gradebook.db: unset COURSE_GRADEBOOK. To begin "
            "anew on a server, move grading/ away"
        )
    return ""


@contextmanager
def new_gradebook() -> Iterator[Any]:
    """Open the gradebook of a class that is being made, or is there already.

    Raises what `gradebook` raises, and ValueError if the database has another class.
    """
    from nbgrader.api import Course, Student

    key = class_key()
    with open_database() as book:
        if os.environ.get("COURSE_GRADEBOOK"):
            key = key or f"class-{secrets.token_hex(8)}"
            if not book.db.get(Course, key) and book.db.query(Student).first():
                raise ValueError(
                    f"{gradebook_name()} has the marks of another class: make a database for this "
                    "one, and set COURSE_GRADEBOOK to it"
                )
            class_folder().mkdir(exist_ok=True)
            write_text(class_note(), f"{gradebook_name()} {key}\n")
            book.check_course(key)
        yield book


@dataclass(frozen=True)
class Student:
    """A line of the roster. `id` names folders; `lms_id` is the learning system's own number."""

    id: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    lms_id: str = ""

    @property
    def name(self) -> str:
        """Return the full name, or the id where there is none."""
        return f"{self.first_name} {self.last_name}".strip() or self.id


HEADERS = {  # what Canvas, Moodle and people call the columns
    "id": ("id", "student id", "student_id", "id number", "username", "login"),
    "first_name": ("first_name", "first name", "given name", "firstname"),
    "last_name": ("last_name", "last name", "surname", "family name", "lastname"),
    "email": ("email", "email address", "e-mail"),
    "lms_id": ("lms_id", "lms id", "identifier", "canvas id", "moodle id"),
    "name": ("student", "student name", "name", "full name"),
}


def read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV; return the line and the values by lower-case header of each row that has any.

    Commas, semicolons (Excel in much of Europe) and tabs are told apart by the header. Raises
    ValueError if it is no text in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a CSV in UTF-8: save it as `CSV UTF-8`") from None
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=header.count))
    rows = []
    for row in reader:
        low = {(key or "").strip().lower(): value.strip() for key, value in row.items()
               if isinstance(value, str)}  # fmt: skip
        if any(low.values()):
            rows.append((reader.line_num, low))
    return rows


def read_roster(path: Path, known: Iterable[Student] = ()) -> list[Student]:
    """Read a roster: a CSV with a column `id`, or the export of Canvas or Moodle.

    Where such an export has no id of a student, it is that of the `known` one with the same address
    or name, or else made of the address, the number or the name. Raises ValueError that names the
    line and the cure.
    """
    students: dict[str, Student] = {}
    for number, row in read_rows(path):
        where = f"{path}, line {number}"
        canvas = "id" in row and ("student" in row or {"lastname", "firstname"} <= set(row))
        if canvas:  # its ID is the number in file names
            name = row.get("student") or row.get("lastname", "") + row.get("firstname", "")
            if not name or name.startswith("Points Possible"):
                continue
            row["lms_id"] = row["id"]
            row["id"] = row.get("sis login id") or row.get("sis user id") or row["id"]
        found = {field: next((row[n] for n in names if row.get(n)), "")
                 for field, names in HEADERS.items()}  # fmt: skip
        full = found.pop("name")
        if full and not found["last_name"]:
            last, comma, first = full.partition(",")
            if not comma:
                first, _, last = full.rpartition(" ")
            found["first_name"], found["last_name"] = first.strip(), last.strip()
        if "identifier" in row:  # Moodle's worksheet says `Participant 4711`, in its language
            found["lms_id"] = "".join(re.findall(r"\d+$", found["lms_id"]))
        if not found["id"] and (canvas or "identifier" in row):
            found["id"] = made_id(Student(**found), known)
        if not found["id"]:
            raise ValueError(f"{where}: no id; each student needs one in a column `id`")
        student = Student(**{**found, "id": check_id(found["id"], where)})
        if student.id in students:
            raise ValueError(f"{where}: {student.id} appears twice; ids must differ")
        students[student.id] = student
    if not students:
        raise ValueError(f"{path} has no students: write a header `id,first_name,last_name,email`")
    return list(students.values())


def made_id(student: Student, known: Iterable[Student]) -> str:
    """Return the id of the same student in the class, or one for a student who is new."""
    email, name = student.email.casefold(), f"{student.first_name} {student.last_name}".strip()
    same = [s for s in known if email and s.email.casefold() == email]
    same = same or [s for s in known if name and s.name == name and not (email and s.email)]
    if len(same) == 1:
        return same[0].id
    if student.lms_id and not email:
        return f"participant-{student.lms_id}"
    return re.sub(r"[^a-z0-9._@+-]", "-", email or name.casefold())


def check_id(name: str, where: str) -> str:
    """Return an id if it can name a folder.

    Raises ValueError if it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,99}", name) or not name.strip("_.@+-"):
        raise ValueError(
            f"{where}: the id {shown(repr(name))} cannot name a folder: use a-z, A-Z, 0-9 and "
            "_, and after the first character also - . @ +"
        )
    return name


def roster() -> list[Student]:
    """Return the students of the class.

    Raises FileNotFoundError if there is no class yet.
    """
    path = class_folder() / "roster.csv"
    if not path.exists():
        raise FileNotFoundError("there is no class yet: run `course new-class roster.csv`")
    return read_roster(path)


def new_class(path: Path) -> list[Student]:
    """Make the class, or bring its roster up to date; nobody who is in it is ever removed.

    What a roster does not say of a student stays as it was. Returns the students. Raises ValueError
    or FileNotFoundError if the roster cannot be read, and what `new_gradebook` raises.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: write a CSV with a column `id`")
    known = {s.id: s for s in roster()} if (class_folder() / "roster.csv").exists() else {}
    for student in read_roster(path, known.values()):
        said = {field: value for field, value in asdict(student).items() if value}
        known[student.id] = replace(known.get(student.id, student), **said)
    if not os.environ.get("COURSE_GRADEBOOK"):
        class_folder().mkdir(exist_ok=True)
    here = str(Path(sys.executable).parent)  # nbgrader makes its tables by calling `alembic`
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
    with new_gradebook() as book:
        for student in known.values():
            names = {k: v for k, v in asdict(student).items() if k not in ("id", "lms_id") and v}
            book.update_or_create_student(student.id, **names)
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Student)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(student) for student in known.values())
    write_text(class_folder() / "roster.csv", text.getvalue())
    return list(known.values())


def assignment(name: str) -> tuple[str, str]:
    """Return the names of a chapter's assignment and of its notebook.

    Raises ValueError with the names there are.
    """
    path = path_of(find(name), source_folder())
    if not path.exists() and not path_of(find(name), ROOT / "solutions").exists():
        raise ValueError(f"chapter {name} has no exercises")
    return path.parent.name, path.stem


def submitted(chapter: str) -> list[str]:
    """Return the students who have handed something in."""
    if class_folder().is_dir():
        with held(desk()) as ours:
            if ours:
                settle_all(chapter)
    folders = (class_folder() / "submitted").glob(f"*/{chapter}")
    return sorted(folder.parent.name for folder in folders if folder.is_dir())


@contextmanager
def held(lock: Path) -> Iterator[bool]:
    """Hold a lock, which a killed process loses; yield whether it was free."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def desk() -> Path:
    """Return the lock of the desk, at which one collects at a time."""
    return class_folder() / ".desk.lock"


def settle_all(chapter: str) -> None:
    """Bring to its end what a killed run has begun to collect; for who holds the desk."""
    for waiting in (class_folder() / "submitted").glob(f"*/.new-{chapter}"):
        settle(waiting)


def settle(waiting: Path) -> None:
    """Put a whole submission, `.new-04_attention`, into its place, and keep the one before it."""
    student, chapter = waiting.parent.name, waiting.name.removeprefix(".new-")
    target = waiting.with_name(chapter)
    if target.exists():
        kept = class_folder() / "superseded" / student / chapter
        kept.mkdir(parents=True, exist_ok=True)
        stamp = f"{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 10**9}"
        shutil.move(target, kept / stamp)
    waiting.rename(target)


def refusal(chapter: str, student: str) -> str:
    """Say why the file that a student has handed in last was refused, or nothing."""
    path = class_folder() / "refused" / chapter / f"{student}.txt"
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def refuse(chapter: str, student: str, why: str) -> None:
    """Write down why a file was refused, or with nothing, that a later one was not."""
    path = class_folder() / "refused" / chapter / f"{student}.txt"
    if why:
        write_text(path, shown(why) + "\n")
    else:
        path.unlink(missing_ok=True)


def shown(text: object, most: int = 300) -> str:
    """Write what a student has chosen, such as a name, so that it is one line and only that.

    Signs that steer a terminal or turn the direction of text are written as numbers.
    """
    line = "".join(
        ascii(sign)[1:-1] if unicodedata.category(sign) in STEERING else sign
        for sign in str(text)[: most + 1]
    )
    return line if len(line) <= most else f"{line[:most]}..."


def quiet_log(path: Path | None = None) -> None:
    """Send what nbgrader says to a file, or nowhere."""
    for name in NBGRADER_LOGGERS:
        log = logging.getLogger(name)
        log.handlers = [logging.FileHandler(path) if path else logging.NullHandler()]
        log.propagate = False


def describe_sandbox() -> str:
    """Say in a line how submissions will be run."""
    if sandbox.opted_out():
        return f"WITHOUT A SANDBOX ({sandbox.OPT_OUT})"
    return "in a sandbox (bubblewrap)"
