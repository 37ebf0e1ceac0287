"""The process that holds the tests: it runs them, and asks the learner's process for the answers.

The grader starts it in a sandbox of its own and sends it the cells that no learner has written.
For each test it gets one end of a pipe, on whose other end the learner's process serves.
"""

import contextlib
import io
import json
import socket
import sys
from collections.abc import Callable
from typing import Any

from course.pipe import MOST_LETTERS, Answer, Gone, Pipe, classes_of, seed


class Tester:
    """The trusted cells of a notebook, in one namespace, with a stand-in for each answer.

    `cells` are dicts of `name`, `role`, `source`, `shared`: whether the learner's process runs this
    cell too.
    """

    def __init__(self, cells: list[dict[str, Any]]) -> None:
        """Take the cells; none has run yet."""
        self.cells, self.next = cells, 0
        self.namespace: dict[str, Any] = {"__name__": "exercise"}
        self.classes: dict[str, type] = {}
        self.pipe: Pipe | None = None

    def prepare(self, test: str) -> None:
        """Run the cells above a test that have not run yet, but for other tests."""
        names = [cell["name"] for cell in self.cells]
        while self.next < names.index(test):
            cell = self.cells[self.next]
            self.next += 1
            if cell["role"] == "answer":
                self.namespace[cell["name"]] = Answer(cell["name"], lambda: self.pipe)
            elif cell["role"] != "test":
                exec(compile(cell["source"], f"<{cell['name']}>", "exec"), self.namespace)
            if cell["shared"]:
                self.classes = classes_of(self.namespace)

    def run(
        self,
        test: str,
        source: str,
        connection: socket.socket,
        measure: Callable[[bool], int] = lambda begin: 0,
    ) -> BaseException | None:
        """Run a test, or a part of it, on the answers at the other end; return what it raised."""
        with connection, contextlib.redirect_stdout(io.StringIO()):
            try:
                self.prepare(test)
                self.pipe = Pipe(connection, True, classes=self.classes)
                self.pipe.measure = measure
                self.pipe.begin()
                seed()
                exec(compile(source, f"<{test}>", "exec"), self.namespace)
                self.pipe.end()
            except (Exception, Gone) as error:
                if self.pipe and not isinstance(error, Gone):
                    with contextlib.suppress(Gone):
                        self.pipe.end()
                return error
            finally:
                self.pipe = None
                with contextlib.suppress(OSError):  # the grader has this end, too
                    connection.shutdown(socket.SHUT_RDWR)
        return None


def verdict_of(error: BaseException | None) -> dict[str, Any] | None:
    """Turn what a test raised into plain words; "gone" is whether nobody was there to answer."""
    if error is None:
        return None
    try:
        said = str(error)[:MOST_LETTERS].encode(errors="replace").decode()  # no half a character
    except Exception:  # a message may be made of what a learner returned
        said = ""
    return {"ename": type(error).__name__, "evalue": said, "gone": isinstance(error, Gone)}


def run_tests(number: int) -> None:
    """Run the tests that the grader asks for through an open file of this number."""
    with socket.socket(fileno=number) as control, control.makefile("r", encoding="utf-8") as file:

        def say(message: Any) -> None:
            control.sendall(json.dumps(message).encode() + b"\n")

        def measure(begin: bool) -> int:
            say({"measure": begin})
            return int(json.loads(file.readline()))

        tester = Tester(json.loads(file.readline()))
        first = next(cell["name"] for cell in tester.cells if cell["role"] == "test")
        with contextlib.suppress(Exception):  # what fails here is missed in a test
            tester.prepare(first)
        say({"ready": True})
        for line in iter(file.readline, ""):
            job = json.loads(line)
            connection = socket.socket(fileno=job["connection"])
            say(
                {"verdict": verdict_of(tester.run(job["test"], job["source"], connection, measure))}
            )


if __name__ == "__main__":
    run_tests(int(sys.argv[1]))
