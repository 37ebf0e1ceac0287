"""Collecting: whose a file is, which one counts, and archives that are hostile or odd."""

import errno
import io
import os
import shutil
import time
import warnings
import zipfile

import pytest
from classkit import CHAPTER, NOTEBOOK

from course import classroom, collect
from course.chapters import ROOT

FILE = f"{NOTEBOOK}.ipynb"
STUDENTS = """id,first_name,last_name,lms_id
jdoe,Jane,Doe,4711
ann_lee,Ann,Lee,4712
jmueller,Jürgen,Müller von Aa,4713
kim1,Min,Kim,
kim2,Min,Kim,
annlee,Bo,Ek,4716
"""


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A course with a class, and a folder in which to put what was handed in."""
    shutil.copytree(ROOT / "solutions" / CHAPTER, tmp_path / "solutions" / CHAPTER)
    monkeypatch.setattr(classroom, "ROOT", tmp_path)
    monkeypatch.delenv("COURSE_SOLUTIONS", raising=False)
    fill(tmp_path, {"grading/roster.csv": STUDENTS})
    (tmp_path / "in").mkdir()
    return tmp_path


def fill(folder, files):
    """Write files, given by path, below a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def zipped(path, files):
    """Write a zip; a key is a name or a ZipInfo."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members with one name
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def zip_bytes(files):
    buffer = io.BytesIO()
    zipped(buffer, files)
    return buffer.getvalue()


def handed_in(place):
    """Map student to {file name: text} of what was collected."""
    folders = (place / "grading" / "submitted").glob(f"*/{CHAPTER}")
    return {
        folder.parent.name: {
            p.name: p.read_bytes().decode("utf-8", "replace")
            for p in folder.iterdir()
            if p.name not in ("timestamp.txt", "late.txt")
        }
        for folder in folders
    }


NAMES = {
    "Canvas": "doejane_4711_88_attention.ipynb",
    "Canvas, late": "doejane_LATE_4711_88_attention.ipynb",
    "Canvas, second version": "doejane_4711_88_attention-1.ipynb",
    "Canvas, name unknown and number known": "xyz_4711_88_attention.ipynb",
    "Canvas, in a folder of its own": "submissions/doejane_4711_88_attention.ipynb",
    "Moodle": "Jane Doe_4711_assignsubmission_file_/attention.ipynb",
    "Moodle, version 4": "Jane Doe_4711_assignsubmission_file/attention.ipynb",
    "Moodle, flat": "Jane Doe_4711_assignsubmission_file_attention.ipynb",
    "Moodle, nameless": "Participant_4711_assignsubmission_file_/attention.ipynb",
    "Blackboard": "Week 4_jdoe_attempt_2026-01-31-10-12-00_attention.ipynb",
    "Brightspace": "4711-99 - Jane Doe - Jan 31, 2026 1012 AM/attention.ipynb",
    "Brightspace, flat": "4711-99 - Jane Doe - Jan 31, 2026 1012 AM - attention.ipynb",
    "plain": "jdoe/attention.ipynb",
    "plain, in the archive's own folder": "x/jdoe_attention.ipynb",
    "plain, deeper": "week 4/jdoe/my work/attention.ipynb",
    "plain, by name": "Jane Doe/attention.ipynb",
    "plain, by name turned round": "Doe, Jane/attention.ipynb",
    "flat": "jdoe_attention.ipynb",
    "flat, the id alone": "jdoe.ipynb",
    "flat, late": "jdoe_LATE_attention.ipynb",
    "downloaded twice": "jdoe/attention (2).ipynb",
    "copied": "jdoe/attention copy.ipynb",
    "in another case": "jdoe/Attention.IPYNB",
}


@pytest.mark.parametrize("how", ["folder", "zip"])
@pytest.mark.parametrize("kind", NAMES)
def test_whose_a_file_is(desk, kind, how):
    files = {NAMES[kind]: "work"}
    source = zipped(desk / "x.zip", files) if how == "zip" else fill(desk / "x", files)
    lines, problems = collect.collect("4", source)
    name = "jdoe.ipynb" if "id alone" in kind else FILE
    assert (problems, handed_in(desk)) == ([], {"jdoe": {name: "work"}})
    assert ("late" in kind) == ("marked late" in lines[0])
    assert ("late" in kind) == bool(list(desk.glob("grading/submitted/*/*/late.txt")))


def test_umlauts_spaces_and_ids_that_look_alike(desk):
    composed, apart = "M\u00fcller von Aa J\u00fcrgen", "Mu\u0308ller von AaJu\u0308rgen"
    files = {f"{composed}_4713_assignsubmission_file_/attention.ipynb": "1"}
    collect.collect("4", zipped(desk / "a.zip", files))
    assert handed_in(desk) == {"jmueller": {FILE: "1"}}
    collect.collect("4", fill(desk / "in", {f"{apart}/attention.ipynb": "2"}))
    assert handed_in(desk) == {"jmueller": {FILE: "2"}}
    # annlee is one student's id and another's name: an exact id counts, a mere name is reported
    files = {"annlee/attention.ipynb": "ek", "ann_lee_attention.ipynb": "lee",
             "Lee Ann/attention.ipynb": "lee", "Ann Lee/attention.ipynb": "?"}  # fmt: skip
    _, problems = collect.collect("4", fill(desk / "two", files))
    assert handed_in(desk)["annlee"] == {FILE: "ek"} and handed_in(desk)["ann_lee"] == {FILE: "lee"}
    assert problems == ["Ann Lee/attention.ipynb: whose is it? it can be ann_lee and annlee; "
                        "put it into a folder with the id"]  # fmt: skip


def test_who_is_unknown_or_ambiguous_is_reported_and_left(desk):
    files = {
        "kimmin_77_88_attention.ipynb": "a",
        "nobody/attention.ipynb": "b",
        "attention.ipynb": "c",
        # a stranger's folder does not become Jane's by what is in it
        "Eve Evil_99_assignsubmission_file_/jdoe/attention.ipynb": "d",
        "evileve_99_1_x/jdoe_attention.ipynb": "e",
        "doejane_4711_88_attention.ipynb": "f",
    }
    lines, problems = collect.collect("4", fill(desk / "in", files))
    assert handed_in(desk) == {"jdoe": {FILE: "f"}} and len(lines) == 1
    assert len(problems) == 5 and all((desk / "in" / name).exists() for name in files)
    assert "kimmin_77_88_attention.ipynb: whose is it? it can be kim1 and kim2" in "".join(problems)
    assert "nobody/attention.ipynb: whose is it? the folder nobody is nobody's" in "".join(problems)


@pytest.mark.parametrize(
    "name, says",
    [
        ("doejane_1_88_attention.ipynb", "jdoe has the number 4711, and this is of 1"),
        ("doe_jane_1_88_attention.ipynb", "jdoe has the number 4711, and this is of 1"),
        ("Jane Doe_9_assignsubmission_file_/attention.ipynb", "jdoe has the number 4711"),
        ("9-99 - Jane Doe - Jan 31, 2026 1012 AM/attention.ipynb", "jdoe has the number 4711"),
        ("max/jdoe_attention.ipynb", "the folder max is nobody's"),
        ("max/doejane_4711_88_attention.ipynb", "the folder max is nobody's"),
        ("max/jdoe/attention.ipynb", "the folder max is nobody's"),
        ("9-99 - Max Muster - Jan 31, 2026 1012 AM/jdoe_attention.ipynb", "nobody on the roster"),
        ("Week 4_max_attempt_2026-01-31-10-12-00_jdoe_attention.ipynb", "nobody on the roster"),
        ("muxmax_9_90001_x_4711_assignsubmission_file_attention.ipynb", "in two ways"),
        ("x_4711_assignsubmission_file__9_assignsubmission_file_/attention.ipynb", "in two ways"),
        ("9-9 - Max - Jan 31, 2026 1 AM - x_4711_assignsubmission_file_.ipynb", "in two ways"),
        ("W_max_attempt_2026-01-31-10-12-00_jdoe_attempt_2026-01-31-10-12-00_x.ipynb", "nobody"),
    ],
)
def test_a_file_is_its_owners_or_nobodys(desk, name, says):
    lines, problems = collect.collect("4", fill(desk / "in", {name: "x"}))
    assert (lines, handed_in(desk), len(problems)) == ([], {}, 1) and says in problems[0]


def test_a_name_alone_will_do_where_no_number_is_known(desk):
    roster = STUDENTS.replace("4711", "")
    fill(desk, {"grading/roster.csv": roster})
    name = "Jane Doe_9_assignsubmission_file_/attention.ipynb"
    _, problems = collect.collect("4", fill(desk / "in", {name: "x"}))
    assert problems == [] and handed_in(desk) == {"jdoe": {FILE: "x"}}


def test_the_highest_version_wins_and_what_it_replaces_is_kept(desk):
    numbered = {f"doejane_4711_{n}_attention{v}.ipynb": v for n, v in
                enumerate(("-2", "", "-10", "-1"))}  # fmt: skip
    lines, _ = collect.collect("4", zipped(desk / "a.zip", numbered))
    assert handed_in(desk) == {"jdoe": {FILE: "-10"}} and "3 other files left out" in lines[0]
    files = {"doejane_4711_9_hw-1.zip": zip_bytes({"attention.ipynb": "one"}),
             "doejane_4711_8_hw-2.zip": zip_bytes({"x/attention.ipynb": "two", "b.ipynb": "b"}),
             "doejane_4711_7_hw.zip": zip_bytes({"attention.ipynb": "none"})}  # fmt: skip
    lines, _ = collect.collect("4", zipped(desk / "b.zip", files))
    assert handed_in(desk) == {"jdoe": {FILE: "two"}} and "handed in again" in lines[0]
    kept = list((desk / "grading" / "superseded" / "jdoe" / CHAPTER).glob(f"*/{FILE}"))
    assert [path.read_text() for path in kept] == ["-10"]


def test_collecting_twice_changes_nothing_and_older_work_is_named(desk):
    def stamps():
        return {p: p.stat().st_mtime_ns for p in (desk / "grading").rglob("*")}

    source = fill(desk / "in", {"jdoe/attention.ipynb": "new", "ann_lee_attention.ipynb": "x"})
    first, _ = collect.collect("4", source)
    before = stamps()
    second, _ = collect.collect("4", source)
    assert stamps() == before and [" new: " in line for line in first] == [True, True]
    assert [" as before: " in line for line in second] == [True, True]
    os.utime(fill(desk / "old", {"jdoe/attention.ipynb": "old"}) / "jdoe/attention.ipynb", (0, 0))
    [line], _ = collect.collect("4", desk / "old")
    assert "handed in again, OLDER than what it replaces" in line


def test_what_is_no_notebook_or_anothers_chapter(desk):
    files = {"jdoe/report.pdf": "pdf", "ann_lee_decoder.ipynb": "chapter 5",
             "annlee/work.ipynb": "w"}  # fmt: skip
    _, problems = collect.collect("4", fill(desk / "in", files))
    assert handed_in(desk) == {"jdoe": {"report.pdf": "pdf"}, "annlee": {"work.ipynb": "w"}}
    assert problems == ["ann_lee_decoder.ipynb: this is the notebook of 05_decoder"]
    assert classroom.refusal(CHAPTER, "ann_lee") == "this is the notebook of 05_decoder"
    collect.collect("4", fill(desk / "in", {"ann_lee_attention.ipynb": "chapter 4"}))
    assert classroom.refusal(CHAPTER, "ann_lee") == ""


def test_why_the_newest_file_was_refused_is_kept_beside_the_one_before(desk):
    big = bytes(21 * 2**20)
    files = {"doejane_4711_8_attention.ipynb": "old", "doejane_4711_9_attention-1.ipynb": big}
    lines, problems = collect.collect("4", zipped(desk / "x.zip", files))
    assert handed_in(desk) == {"jdoe": {FILE: "old"}} and len(lines) == len(problems) == 1
    assert "larger than 20 MiB" in classroom.refusal(CHAPTER, "jdoe")


def test_late_is_as_the_learning_system_says_it_last(desk):
    late = desk / "grading" / "submitted" / "jdoe" / CHAPTER / "late.txt"
    for mark in ("_LATE", "", "_LATE"):
        name = f"doejane{mark}_4711_88_attention.ipynb"
        collect.collect("4", zipped(desk / "x.zip", {name: "work"}))
        assert late.exists() == bool(mark)


def test_what_students_name_their_files_is_one_line_of_the_terminal(desk):
    name = "doejane_4711_8_\x1b[2K\r\u202eann   graded   16 of 16\nben.ipynb"
    lines, problems = collect.collect("4", zipped(desk / "x.zip", {name: "x", "\x1b]0;x\x07": "y"}))
    assert all(line.isprintable() for line in lines + problems) and len(problems) == 1
    assert r"\x1b[2K\r\u202eann" in lines[0]


@pytest.mark.parametrize("where", ["written", "waiting", "kept"])
def test_a_killed_run_loses_nothing_and_leaves_nothing(desk, where, monkeypatch):
    """A run that dies while a submission is written, or between two renames, is gone on with."""
    source = fill(desk / "in", {"jdoe/attention.ipynb": "old"})
    collect.collect("4", source)
    fill(source, {"jdoe/attention.ipynb": "new"})
    with monkeypatch.context() as killed:
        target, name = {"written": (collect, "mark_late"), "waiting": (collect, "settle"),
                        "kept": (classroom.shutil, "move")}[where]  # fmt: skip
        whole = getattr(target, name)

        def die(*arguments):
            if where == "kept":
                whole(*arguments)
            raise KeyboardInterrupt

        killed.setattr(target, name, die)
        if where == "written":
            killed.setattr(collect.shutil, "rmtree", lambda *a, **k: None)  # as after kill -9
        with pytest.raises(KeyboardInterrupt):
            collect.collect("4", source)
    folder = desk / "grading" / "submitted" / "jdoe"
    if where != "written":
        assert classroom.submitted(CHAPTER) == ["jdoe"]
        assert handed_in(desk) == {"jdoe": {FILE: "new"}}
    collect.collect("4", source)
    assert handed_in(desk) == {"jdoe": {FILE: "new"}}
    assert [path.name for path in folder.iterdir()] == [CHAPTER]
    kept = list((desk / "grading" / "superseded" / "jdoe" / CHAPTER).glob(f"*/{FILE}"))
    assert [path.read_text() for path in kept] == ["old"]


def test_a_full_disk_leaves_what_was_there(desk, monkeypatch):
    source = fill(desk / "in", {"jdoe/attention.ipynb": "old", "ann_lee_attention.ipynb": "x"})
    collect.collect("4", source)
    fill(source, {"jdoe/attention.ipynb": "new"})

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as filled:
        filled.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="the disk is full"):
            collect.collect("4", source)
    assert handed_in(desk)["jdoe"] == {FILE: "old"}
    assert [p.name for p in (desk / "grading" / "submitted" / "jdoe").iterdir()] == [CHAPTER]
    collect.collect("4", source)
    assert handed_in(desk)["jdoe"] == {FILE: "new"}


def test_one_collects_at_a_time_and_nobody_else_puts_things_in_place(desk):
    waiting = desk / "grading" / "submitted" / "jdoe" / f".new-{CHAPTER}" / FILE
    fill(desk, {str(waiting.relative_to(desk)): "x"})
    with classroom.held(classroom.desk()) as ours:
        assert ours and classroom.submitted(CHAPTER) == [] and waiting.exists()
    assert classroom.submitted(CHAPTER) == ["jdoe"] and not waiting.exists()
    with (
        classroom.held(classroom.desk()),
        pytest.raises(ValueError, match="another `course collect` is at work"),
    ):
        collect.collect("4", desk / "in")


def encrypted(data):
    """Mark the first member of a zip as encrypted."""
    raw = bytearray(data)
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    return bytes(raw)


def corrupt(data):
    raw = bytearray(data)
    raw[40:60] = bytes(20)
    return bytes(raw)


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


def undated(name):
    info = zipfile.ZipInfo(name)
    info.date_time = (1980, 0, 0, 0, 0, 0)
    return info


BOMB = zip_bytes({f"{n}/attention.ipynb": bytes(19 * 2**20) for n in range(8)})


@pytest.mark.parametrize(
    "members, got, says",
    [
        ({"../../jdoe/attention.ipynb": "x"}, {}, "leads out of the archive"),
        ({"/jdoe/attention.ipynb": "x"}, {}, "leads out of the archive"),
        ({"..\\..\\jdoe\\attention.ipynb": "x"}, {}, "leads out of the archive"),
        ({"jdoe\\attention.ipynb": "x"}, {FILE: "x"}, ""),  # as some programs of Windows pack
        ({link("jdoe/attention.ipynb"): "/etc/passwd"}, {}, "a link, which is not followed"),
        ({"jdoe/attention.ipynb": bytes(21 * 2**20)}, {}, "larger than 20 MiB"),
        ({"jdoe/hw.zip": BOMB}, {FILE: "\0" * 19 * 2**20}, "too large; from here on"),
        ({"jdoe/hw.zip": zip_bytes({"../../x/attention.ipynb": "x"})}, {}, "leads out"),
        ({"jdoe/hw.zip": encrypted(zip_bytes({FILE: "x"}))}, {}, "password required"),
        ({"jdoe/hw.zip": corrupt(zip_bytes({FILE: str([*range(99)])}))}, {}, "cannot be read"),
        ({"jdoe/hw.zip": b"Rar!\x1a\x07\x00" + bytes(99)}, {}, "ends in .zip and cannot be open"),
        ({"jdoe/hw.zip": zip_bytes({})}, {"hw.zip": zip_bytes({}).decode()}, ""),
        ({"jdoe/HW.ZIP": zip_bytes({f"a/{FILE}": "x", f"__MACOSX/a/._{FILE}": "y"})},
         {FILE: "x"}, ""),
        ({f"jdoe/{FILE}": "x", f"__MACOSX/jdoe/._{FILE}": "y", ".DS_Store": "z",
          "jdoe/.ipynb_checkpoints/attention-checkpoint.ipynb": "c"}, {FILE: "x"}, ""),
        ({undated(f"jdoe/{FILE}"): "x"}, {FILE: "x"}, ""),
        ({"jdoe/" + "y" * 300 + ".ipynb": "x"}, {"y" * 54 + ".ipynb": "x"}, ""),
    ],
)  # fmt: skip
def test_archives_that_are_hostile_or_odd(desk, members, got, says):
    before = {path for path in desk.parent.rglob("*")}
    _, problems = collect.collect("4", zipped(desk / "x.zip", members))
    assert handed_in(desk).get("jdoe", {}) == got
    assert says in classroom.refusal(CHAPTER, "jdoe") or got or "leads out" in says
    assert len(problems) == bool(says) and says in "".join(problems)
    new = {path for path in desk.parent.rglob("*")} - before - {desk / "x.zip"}
    ours = [desk / "grading" / name for name in ("submitted", "refused", ".desk.lock")]
    assert all(any(path.is_relative_to(place) for place in ours) for path in new)
    for stamp in desk.glob("grading/submitted/*/*/timestamp.txt"):
        time.strptime(stamp.read_text(), "%Y-%m-%d %H:%M:%S UTC\n")


def test_links_and_names_that_are_not_utf8_in_a_folder(desk):
    (desk / "in" / "jdoe").mkdir()
    (desk / "in" / "jdoe" / FILE).symlink_to("/etc/passwd")
    (desk / "in" / os.fsdecode(b"M\xfcller.ipynb")).write_text("x")
    _, problems = collect.collect("4", desk / "in")
    assert handed_in(desk) == {}
    assert f"jdoe/{FILE}: a link, which is not followed" in problems
    assert classroom.refusal(CHAPTER, "jdoe") == "a link, which is not followed"
    assert "nobody on the roster" in "\n".join(problems).encode("utf-8").decode()


@pytest.mark.parametrize(
    "data", [b"", b"no zip", corrupt(zip_bytes({"a": "b"}))[:-30]], ids=["empty", "text", "cut off"]
)  # an archive has the time in it, and workers must agree on a test's name
def test_a_source_that_is_no_zip_is_named(desk, data):
    (desk / "x.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.zip is neither a folder nor a zip archive"):
        collect.collect("4", desk / "x.zip")
    with pytest.raises(FileNotFoundError, match="name a folder or a zip"):
        collect.collect("4", desk / "nowhere")


@pytest.mark.soak
def test_five_thousand_files_are_sorted_in_seconds(desk):
    ids = [f"s{n:04}" for n in range(5000)]
    (desk / "grading" / "roster.csv").write_text("id\n" + "\n".join(ids) + "\n")
    source = zipped(desk / "x.zip", {f"{name}_attention.ipynb": name for name in ids})
    start = time.process_time()
    lines, problems = collect.collect("4", source)
    assert (len(lines), problems) == (5000, []) and time.process_time() - start < 20
