"""The pipe between tests and answers: what crosses and as what, what does not, and the verdicts.

The learner's side runs here in a fork of this process, without a sandbox: `test_hostile` has that.
"""

import ast
import contextlib
import json
import math
import os
import random
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import nbformat
import numpy as np
import pytest
import torch
from torch import nn

from course import mutants
from course.chapters import ROOT
from course.cost import resident
from course.exercises import (
    cells_of_tests,
    grade_id,
    is_check,
    names_in,
    notebook_of,
    reached_by,
    role,
    sources,
    test_source,
)
from course.pipe import MOST_TEXT, Answer, Gone, Handle, Pipe, classes_of, serve
from course.tester import Tester, verdict_of

test_source.__test__ = Tester.__test__ = False  # pytest takes them for its own
SOLUTIONS = sources()
every_notebook = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.parent.name)


class Pair(NamedTuple):
    """A record of a notebook."""

    left: int
    right: object = None


class Node:
    """A plain class of a notebook; with an object of it, another may hang together."""

    def __init__(self, value, parents=()):
        self.value, self.parents = value, parents

    def ask(self):
        return self.value


@dataclass
class Point:
    """Another record."""

    x: float


CLASSES = classes_of({"__name__": __name__, "Pair": Pair, "Node": Node, "Point": Point})


@contextlib.contextmanager
def forked(work):
    """Run work in a fork of this process, and wait for its end; yield its number."""
    if pid := os.fork():
        try:
            yield pid
        finally:
            os.waitpid(pid, 0)
        return
    try:
        torch.set_num_threads(1)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            work()
    finally:
        os._exit(0)


@contextlib.contextmanager
def learner(namespace):
    """Serve a namespace; yield what calls a function of it by name, as a test would."""
    ours, theirs = socket.socketpair()

    def work():
        ours.close()
        serve(theirs.detach(), {"__name__": __name__, **vars_of_module(), **namespace})

    with forked(work):
        theirs.close()
        pipe = Pipe(ours, True, classes=CLASSES)
        with ours:
            pipe.begin()
            yield lambda name, *args, **named: Answer(name, lambda: pipe)(*args, **named)


def vars_of_module():
    return {"Pair": Pair, "Node": Node, "Point": Point}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return a == b or (a != a and b != b)


VALUES = {
    "nothing": None, "yes": True, "number": 7, "large": -(2**70), "float": 0.1, "nan": math.nan,
    "infinite": -math.inf, "complex": 1 + 2j, "text": "é \ud800 한", "bytes": b"\x00\xff",
    "list": [1, [2.0, "x"], ()], "tuple": (1, (b"2",)), "dict": {("a", 1): {2}, b"k": None},
    "frozen": frozenset({1, (2,)}), "range": range(2, 9, 3), "count": Counter("aab"),
    "record": Pair(1, [2]), "point": Point(2.5), "array": np.arange(6.0).reshape(2, 3)[:, ::2],
    "scalar": np.float32(0.1), "bool": np.bool_(True), "dtype": torch.bfloat16,
    "bytearray": bytearray(b"ab"),
    **{f"tensor {kind}": torch.tensor([[0, 1], [2, 3]]).to(getattr(torch, kind)).T
       for kind in ("float64", "float32", "bfloat16", "int64", "uint8", "bool", "complex64")},
    "column": torch.arange(10).view(2, 5)[:, 1], "empty": torch.zeros(0, 3), "one": torch.ones(()),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_a_value_goes_there_and_comes_back_as_what_it_was(name):
    with learner({"echo": lambda x: [x]}) as call:
        [back] = call("echo", VALUES[name])
    assert type(back) is type(VALUES[name])
    equal = vars(back) == vars(VALUES[name]) if name == "point" else same(back, VALUES[name])
    assert equal, f"{back!r} came back for {VALUES[name]!r}"


def test_random_numbers_go_on_where_they_were():
    here = torch.Generator().manual_seed(5)
    torch.rand(3, generator=here)
    there = torch.Generator().manual_seed(5)
    torch.rand(3, generator=there)
    with learner({"draw": lambda g: (torch.rand(2, generator=g), g.initial_seed())}) as call:
        drawn, first = call("draw", here)
    assert torch.equal(drawn, torch.rand(2, generator=there)) and first == 5
    assert torch.equal(torch.rand(4, generator=here), torch.rand(4, generator=there))


def test_what_a_call_changes_is_changed_here_and_nothing_else():
    def change(x, items, table, kept, node):
        x[0] = 9.0
        items.append(items)
        table["new"] = x
        node.value = [node]

    x, items, table, kept, node = torch.zeros(2), [1], {"a": 1}, torch.ones(2), Node(1)
    with learner({"change": change}) as call:
        call("change", x, items, table, kept, node)
    assert x.tolist() == [9.0, 0.0] and kept.tolist() == [1.0, 1.0]
    assert items[0] == 1 and items[1] is items and table["new"] is x
    assert node.value == [node] and node.value[0] is node


def test_what_hangs_together_comes_back_to_the_same_objects():
    with learner({"both": lambda a, b: Node(a.value + b.value, (a, b, a))}) as call:
        one, two = Node(1), Node(2)
        made = call("both", one, two)
        again = call("both", made, one)
    assert (type(made), made.value, again.value) == (Node, 3, 4)
    assert made.parents[0] is one and made.parents[1] is two and made.parents[2] is one
    assert again.parents[0] is made and again.parents[1] is one


def test_an_answer_changes_nothing_beside_what_it_is_given():
    """Such as the targets, if they lie behind the inputs in one tensor."""

    def spread(x):
        x.data = torch.full((4,), 9.0)

    ids = torch.zeros(4)
    with learner({"spread": spread}) as call, pytest.raises(TypeError):
        call("spread", ids[:2])
    assert ids.tolist() == [0.0] * 4


# --- Lies ----------------------------------------------------------------------------------------


class Always:
    """Equal to everything, true, a number and an array."""

    def __eq__(self, other):
        return True

    __hash__ = None
    __bool__ = __float__ = __array__ = __torch_function__ = __lt__ = __eq__


class Bent(torch.Tensor):
    """A tensor that is close to all others."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return True


class Text(str):
    """A text that is equal to everything."""

    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


class Number(int):
    """A number that is."""

    __eq__, __hash__ = Text.__eq__, int.__hash__


class Row(list):
    """A list that shows another one."""

    __eq__ = Text.__eq__
    __hash__ = None

    def __iter__(self):
        return iter([1, 2, 3])


LIES = {
    "object": (Always, None),
    "tensor": (lambda: torch.zeros(2).as_subclass(Bent), torch.zeros(2)),
    "text": (lambda: Text("x"), "x"),
    "number": (lambda: Number(3), 3),
    "list": (lambda: Row([5]), [5]),
    "parameter": (lambda: nn.Parameter(torch.zeros(2)), torch.zeros(2)),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_object_arrives_as_plain_data_or_as_a_handle(name):
    make, plain = LIES[name]
    with learner({"lie": make}) as call:
        got = call("lie")
        if plain is None:
            assert isinstance(got, Handle) and got != 3 and "another process" in repr(got)
            for bent in (float, torch.as_tensor, lambda x: x < 3):
                with pytest.raises((TypeError, ValueError, RuntimeError)):
                    bent(got)
        else:
            assert type(got) is type(plain) and same(got, plain)


def test_no_field_of_a_record_takes_the_place_of_a_method():
    def node():
        made = Node(1)
        made.ask = lambda: 42
        return made

    def change(given):
        given.ask = lambda: 42

    with learner({"node": node}) as call, pytest.raises((Gone, TypeError)):
        call("node")
    ours = Node(1)
    with learner({"change": change}) as call:
        with pytest.raises((Gone, TypeError)):
            call("change", ours)
        assert ours.ask() == 1


def test_what_cannot_cross_is_refused_in_words():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    deep = ()
    for _ in range(100_000):
        deep = (deep,)
    refused = {
        "objects": lambda: np.array([{}, []], dtype=object), "digits": lambda: 10**5000,
        "sparse": lambda: torch.eye(3).to_sparse(), "meta": lambda: torch.ones(3, device="meta"),
        "deep": lambda: deep, "huge": lambda: torch.zeros(1).expand(2**26), "module": lambda: os,
    }  # fmt: skip
    with learner(refused) as call:
        for name in refused:
            with pytest.raises((TypeError, RecursionError)):
                call(name)
    with learner({"nested": lambda: nested, "after": lambda: 3}) as call:
        with contextlib.suppress(TypeError, RecursionError, Gone):
            call("nested")
        with contextlib.suppress(Gone):
            assert call("after") == 3


def test_an_error_arrives_as_type_and_message_and_is_clipped():
    class Own(KeyError):
        pass

    def fail(kind, text):
        raise kind(text)

    def unicode():
        "\ud800".encode()

    wrong = {
        "own": lambda: fail(Own, "mine"), "long": lambda: fail(ValueError, "x" * 10**6),
        "exit": lambda: fail(SystemExit, 0), "code": unicode, "stub": lambda: fail(
            NotImplementedError, ""), "assert": lambda: fail(AssertionError, "all is well"),
    }  # fmt: skip
    kinds = {"own": KeyError, "long": ValueError, "exit": RuntimeError, "code": UnicodeError,
             "stub": NotImplementedError, "assert": AssertionError}  # fmt: skip
    with learner(wrong) as call:
        for name, kind in kinds.items():
            with pytest.raises(kind) as caught:
                call(name)
            assert type(caught.value) is kind and len(str(caught.value)) <= 5000
        with pytest.raises(NameError, match="name 'missing' is not defined"):
            call("missing")


class Ran(Exception):
    """Code of the other side has run here."""


def message(data=b"", **parts):
    body = json.dumps({"value": None, "changed": [], "table": [], "news": [],
                       "sizes": [len(data)] if data else [], **parts})  # fmt: skip
    return struct.pack("!I", len(body)) + body.encode() + data


MESSAGES = {
    "nothing": b"", "bytes": bytes(range(256)) * 9, "too long": struct.pack("!I", MOST_TEXT + 1),
    "no object": struct.pack("!I", 2) + b"[]", "deep": struct.pack("!I", 2 * 10**6) + b"[" * 10**6,
    "sizes": message(sizes=[10**12]), "minus": message(sizes=[-1]), "sizes that are none":
    message(sizes=[True, "x"]), "a dict": message(value={"a": 1}), "kind": message(value=["x"]),
    "no reference": message(value=["ref", 7]), "class": message(value=["record", "os:system", []]),
    "import": message(value=["record", "torch.hub:load", [1]]),
    "another class": message(table=[["object", "builtins:int", []]]),
    "fields": message(value=["record", "Pair", [1, 2, 3]]), "pickle": message(value=["array", "O"]),
    "objects": message(table=[["array", "|O", [1], 0]], sizes=[0]),
    "shape": message(table=[["tensor", "float32", [-1], False, False, None, 0]], sizes=[0]),
    "type": message(table=[["tensor", "save", [1], False, False, None, 0]], sizes=[0]),
    "held": message(value=["yours", 99]), "mirror": message(value=["mirror", 3]),
    "handle": message(value=["mine", 0, "", ["__eq__"]]), "news": message(news=[[0, None, []]]),
    "changed": message(changed=[[0, ["list", []]]]), "no error": message(error=3),
    "hash": message(table=[["set", [["ref", 0]]]], value=["ref", 0]),
    "digits": message(value=["int", "f" * 5000]),
    "a record of torch": message(
        table=[["object", "torch._library.utils:Kernel", [["func", 1]]]], value=["ref", 0]),
    "no numbers": message(
        table=[["tensor", "uint8", [2**40], False, False, None, 0]], sizes=[0]),
}  # fmt: skip


@contextlib.contextmanager
def saying(data):
    """Yield what calls an answer at whose other end somebody says this, and no more."""
    ours, theirs = socket.socketpair()

    def lie():
        with contextlib.suppress(OSError), theirs:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            while theirs.recv(2**16):
                pass

    thread = threading.Thread(target=lie)
    with ours:
        pipe = Pipe(ours, True, classes=CLASSES)
        thread.start()
        yield Answer("f", lambda: pipe)
        ours.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_no_message_ends_the_test_and_runs_nothing(name):
    with saying(MESSAGES[name]) as call, pytest.raises((Gone, TypeError)):
        call(1)


def test_a_bool_is_true_or_false_whatever_its_byte():
    tensor = message(b"\x02\x00", table=[["tensor", "bool", [2], False, False, None, 0]],
                     value=["ref", 0])  # fmt: skip
    with saying(tensor) as call:
        assert call(1).view(torch.uint8).tolist() == [1, 0]
    array = message(b"\x02\x00", table=[["array", "|b1", [2], 0]], value=["ref", 0])
    with saying(array) as call:
        assert call(1).view(np.uint8).tolist() == [1, 0]


def test_whoever_answers_twice_has_said_what_comes_next():
    """As a process does that forks: a reply is a value, whoever sends it, and when."""
    with saying(message(value=1) + message(value=2) + message(error=[["ValueError"], ""])) as call:
        assert [call(0), call(0)] == [1, 2]
        with pytest.raises(ValueError):
            call(0)
        with pytest.raises(Gone):
            call(0)


def test_nobody_waits_for_a_test_that_is_over():
    """A reply that is none ends the test; its answer hears of it, though the grader has the end."""
    ours, theirs = socket.socketpair()
    cells = [{"name": "f", "role": "answer", "source": "", "shared": False},
             {"name": "test_f", "role": "test", "source": "f(1)", "shared": False}]  # fmt: skip
    with ours.dup(), theirs:
        theirs.sendall(message(value=["x"]))
        assert isinstance(Tester(cells).run("test_f", "f(1)", ours), Gone)
        theirs.settimeout(30)
        while theirs.recv(2**16):
            pass


def test_the_two_sides_do_not_call_each_other_without_end():
    def back_and_forth(f, mine):
        return f(lambda g: back_and_forth(f, g), mine)

    with learner({"echo": back_and_forth, "after": lambda: 3}) as call:
        with pytest.raises((RecursionError, RuntimeError)):
            call("echo", lambda g, mine: g(mine), 1)
        assert call("after") == 3


def test_an_answer_does_not_end_the_loop_that_calls_it():
    def stop(x):
        raise StopIteration

    with learner({"stop": stop, "numbers": lambda: iter([1, 2])}) as call:
        with pytest.raises(RuntimeError):
            list(map(lambda x: call("stop", x), [1, 2]))
        assert list(call("numbers")) == [1, 2]


def test_what_is_in_an_object_is_found_by_looking_through_it():
    class Full(Always):
        __contains__ = Always.__eq__

    class Few(Full):
        def __iter__(self):
            return iter([1, 2])

    with learner({"full": Full, "few": Few}) as call:
        with pytest.raises(TypeError):
            assert 3 in call("full")
        assert 3 not in call("few") and 2 in call("few")


# --- What a test hands over ----------------------------------------------------------------------

SECRET = 42


class Model(nn.Module):
    """Something to look at."""

    def __init__(self):
        super().__init__()
        self.inner, self.size, self._fault = nn.Linear(2, 2, bias=False), 3, "secret"

    def forward(self, x):
        return self.inner(x)


class Scorer:
    """Something to call, and no more."""

    kind = "wrong"

    def __call__(self, x):
        return x + 1


def numbers():
    secret = SECRET
    yield from range(secret - 40)


READS = {
    "a function's module": ("f", "__globals__"), "a closure": ("f", "__closure__"),
    "a function": ("f", "anything"), "a method": ("model.forward", "im_func"),
    "a private name": ("model", "_fault"), "a dictionary": ("model", "__dict__"),
    "what can be called": ("scorer", "kind"), "a class": ("kind", "kind"),
    "a generator": ("numbers", "gi_frame"), "the class of a model": ("model", "__reduce__"),
    "a compiler": ("model", "compile"), "a part": ("model", "set_submodule"),
    "a state of its own": ("model", "register_state_dict_post_hook"),
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_the_learner_reads_nothing_of_the_tests_but_what_was_handed_over(name):
    what, attribute = READS[name]

    def read(thing, attribute):
        for part in what.split(".")[1:]:
            thing = getattr(thing, part)
        try:  # past the handle, as code that knows the pipe would
            return thing._ask("get", attribute)
        except AttributeError:
            return "refused"

    things = {"f": lambda x: SECRET, "model": Model(), "scorer": Scorer(), "kind": Scorer,
              "numbers": numbers()}  # fmt: skip
    with learner({"read": read}) as call:
        assert call("read", things[what.partition(".")[0]], attribute) == "refused"


def test_no_error_of_a_test_tells_the_name_of_what_it_handed_over():
    class Faulty(Model):
        def step(self):
            raise ValueError("a step too far")

    def faulty(x):
        return x.nothing

    def tell(thing, f):
        said = []
        for trial in (lambda: thing.step(1, 2), lambda: thing.nothing, lambda: thing.step(),
                      lambda: thing(), lambda: f(), lambda: f(1), lambda: thing[0]):  # fmt: skip
            try:
                trial()
            except Exception as error:
                said.append((type(error).__name__, str(error)))
        return said

    with learner({"tell": tell}) as call:
        said = call("tell", Faulty(), faulty)
    assert len(said) == 7 and "aulty" not in str(said), said
    assert said[2] == ("ValueError", "a step too far")


def test_of_the_tensors_that_both_sides_have_nothing_but_gradients_is_asked():
    def ask(model, x, loss_of):
        weight, loss = model.inner.weight, loss_of(model)
        got = []
        for number in range(20):
            for name in ("untyped_storage", "numpy", "register_hook", "data", "grad_fn"):
                with contextlib.suppress(Exception):
                    got.append(model._pipe.ask("get", ["yours", number], (name,), {}))
        try:
            got.append(model._pipe.ask("call", ["yours", model._number], (x,), {}, watch=True))
            got.append(model._pipe.report)
        finally:
            loss.backward()
        return len(got), got[-1], weight.grad is not None

    with learner({"ask": ask}) as call:
        found = call("ask", Model(), torch.ones(1, 2), lambda model: model.inner.weight.sum())
    assert found == (2, None, True)


def test_functions_models_and_generators_of_a_test_work_there():
    def use(f, model, numbers, kind):
        called, x = [], torch.ones(1, 2)
        names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
        hook = model.inner.register_forward_hook(lambda part, args, out: called.append(out.shape))
        y = model(x)
        hook.remove()
        model(x)
        return f(2), names, y, called, list(numbers), kind()(4), model.size, len(model.inner.weight)

    model = Model()
    with learner({"use": use}) as call:
        two, names, y, called, drawn, five, size, rows = call(
            "use", lambda x: x * 2, model, numbers(), Scorer
        )
    assert (two, names, called, drawn, five) == (4, ["inner"], [(1, 2)], [0, 1], 5)
    assert (size, rows) == (3, 2) and torch.equal(y, model(torch.ones(1, 2)))
    assert len(model.inner._forward_hooks) == 0


def test_classes_generators_and_functions_of_the_learner_work_here():
    class Counting:
        def __init__(self, start):
            self.n = start

        def step(self, by=1):
            self.n += by
            return self.n

        def __len__(self):
            return self.n

    def endless():
        n = 0
        while True:
            yield n
            n += 1

    with learner(
        {"Counting": Counting, "endless": endless, "adder": lambda a: lambda b: a + b}
    ) as c:
        counting = c("Counting", 3)
        assert (counting.step(), counting.step(by=5), counting.n, len(counting)) == (4, 9, 9, 9)
        assert [next(g) for g in [c("endless")] for _ in range(3)] == [0, 1, 2]
        assert c("adder", 2)(5) == 7
        assert not hasattr(c("adder", 2), "__len__") and not callable(c("endless"))


def test_gradients_cross_in_both_kinds_of_descent():
    """A loss of the test, a model of the test; optimizers on either side, or by hand."""

    def descend(loss_of, start):
        theta = start.clone().requires_grad_()
        for _ in range(3):
            theta.grad = None
            loss_of(2 * theta).backward()
            with torch.no_grad():
                theta -= 0.1 * theta.grad
        return theta

    def train(model, loss_of, new_optimizer, how):
        parameters = list(model.parameters()) if how != "theirs" else model.parameters()
        make = torch.optim.SGD if how == "mine" else new_optimizer
        optimizer = make(parameters, lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            if how == "by hand":
                for p, g in zip(
                    parameters, torch.autograd.grad(loss_of(model), parameters), strict=True
                ):
                    p.grad = g
            else:
                loss_of(model).backward()
            optimizer.step()
        return loss_of(model).item()

    def loss_of(model):
        return (model(torch.ones(1, 2)) - 3).square().sum()

    def fresh():
        torch.manual_seed(0)
        return Model()

    expected = fresh()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(expected).backward()
        optimizer.step()
    with learner({"descend": descend, "train": train}) as call:
        theta = call("descend", lambda x: (x * x).sum() / 2, torch.tensor([1.0, -2.0]))
        assert torch.allclose(theta, torch.tensor([1.0, -2.0]) * 0.6**3)
        for how in ("mine", "theirs", "ours", "by hand"):
            model = fresh()
            loss = call("train", model, loss_of, torch.optim.SGD, how)
            assert torch.allclose(model.inner.weight, expected.inner.weight), how
            assert math.isclose(loss, loss_of(expected).item(), rel_tol=1e-5), how


def test_a_parameter_is_the_same_on_both_sides():
    kept = []

    def keep(model):
        kept.append(model.inner.weight)
        model.inner.weight.data[0, 0] = 7.0
        return kept[0] is model.inner.weight

    model = Model()
    with learner({"keep": keep, "look": lambda: kept[0]}) as call:
        assert call("keep", model) is True and model.inner.weight[0, 0] == 7
        with torch.no_grad():
            model.inner.weight.fill_(2.0)
        assert call("look").tolist() == [[2.0, 2.0], [2.0, 2.0]]


# --- The exercises -------------------------------------------------------------------------------


def cells_of_the_learner(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"
            and (role(cell) == "answer" or (role(cell) == "locked" and not is_check(cell)))
            and not grade_id(cell).startswith(("table_", "summary"))]  # fmt: skip


def judged(notebook, replaced=None, tests=None, sources=notebook_of):
    """Run the tests on answers in another process, part by part: part -> test -> what it raised."""
    cells = [cell for cell in notebook.cells if role(cell) == "test"
             and (tests is None or grade_id(cell) in tests)]  # fmt: skip
    parts = [(cell, part, *socket.socketpair()) for cell in cells for part in mutants.PARTS]

    def work():
        namespace = {"__name__": "__main__"}
        for cell in cells_of_the_learner(notebook):
            with contextlib.suppress(Exception):
                exec(compile(cell.source, f"<{grade_id(cell)}>", "exec"), namespace)
            if replaced and grade_id(cell) in replaced:
                namespace[grade_id(cell)] = replaced[grade_id(cell)]
        for _, _, ours, theirs in parts:
            ours.close()
            serve(theirs.detach(), namespace)

    found = {part: {} for part in mutants.PARTS}
    with forked(work) as pid:
        tester = Tester(cells_of_tests(notebook))
        for cell, part, ours, theirs in parts:
            theirs.close()
            source = test_source(cell, part)
            error = tester.run(grade_id(cell), source, ours, lambda begin: resident([pid], begin))
            if error:
                found[part][grade_id(cell)] = error
    return found


def judged_answer(path, name):
    """Judge a wrong or right answer as `mutants.judge` does, but by the pipe."""
    answer = name.split("__")[0]
    notebook = notebook_of(path)
    replaced = {answer: mutants.answers_beside(path)[name]}
    return judged(notebook, replaced, reached_by(notebook, answer))


@every_notebook
def test_by_the_pipe_a_solution_passes_and_a_stub_does_not(path):
    assert judged(notebook_of(path)) == {"visible": {}, "hidden": {}}
    exercise = nbformat.read(ROOT / "exercises" / path.parent.name / path.name, as_version=4)
    for test, error in judged(exercise)["visible"].items():
        assert isinstance(error, NotImplementedError), f"{test} gives points: {error!r}"


@every_notebook
def test_by_the_pipe_a_right_answer_loses_nothing(path):
    right = [name for name in mutants.answers_beside(path) if "__right__" in name]
    assert {name: judged_answer(path, name) for name in right} == {
        name: {"visible": {}, "hidden": {}} for name in right
    }


ANSWERS = [(path, name) for path in SOLUTIONS for name in mutants.answers_beside(path)]
FEW = set(random.Random(0).sample(range(len(ANSWERS)), 12))


@pytest.mark.parametrize(
    ("path", "name"),
    [pytest.param(*answer, marks=[] if number in FEW else pytest.mark.soak)
     for number, answer in enumerate(ANSWERS)],
    ids=lambda value: value if isinstance(value, str) else value.parent.name,
)  # fmt: skip
def test_every_answer_gets_the_verdict_that_it_gets_in_a_notebook(path, name):
    here, there = mutants.judge(path, name).failures, judged_answer(path, name)
    assert {part: set(tests) for part, tests in there.items()} == {
        part: set(tests) for part, tests in here.items()
    }, there


def survives_by_name(kind):
    """Read in an error what a run is called, which a test does not hand over."""
    said = ""
    for trial in (lambda run: run.nothing, lambda run: run.save(1), lambda run: run.step(1)):
        try:
            trial(kind())
        except Exception as error:
            said += str(error)
    return "'Run'" in said or "'SavesAsBytes'" in said


def test_no_answer_reads_its_verdict_in_an_error_of_a_test():
    notebook = notebook_of(next(path for path in SOLUTIONS if path.stem == "training"))
    found = judged(notebook, {"survives": survives_by_name}, {"test_survives"})
    assert all("test_survives" in found[part] for part in mutants.PARTS), found


COSTS = (
    "attend_in_blocks__matrix_in_numpy", "attend_in_blocks__stores_the_blocks",
    "attend_in_blocks__right__two_passes", "loss_in_chunks__all_logits_in_a_list",
    "loss_in_chunks__right__by_accumulation",
)  # fmt: skip


@pytest.mark.parametrize("name", COSTS)
def test_memory_is_seen_from_outside(name):
    [path] = [path for path, other in ANSWERS if other == name]
    found = judged_answer(path, name)
    for part in mutants.PARTS:
        said = str(found[part].get(f"test_{name.partition('__')[0]}", ""))
        assert ("bytes were taken at a time" in said) == ("right" not in name), said


@pytest.mark.parametrize("name", ["stores_the_blocks", "right__query_by_query"])
def test_what_was_freed_before_counts_for_nothing(name):
    """Pieces of an old heap are at hand, and in memory: they would be used without any growth.

    If the system took them back, small pieces would be cut from them, again and again, and grow.
    """
    pieces, last = [bytearray(2**16) for _ in range(1500)], bytearray(2**16)
    del pieces
    test_memory_is_seen_from_outside(f"attend_in_blocks__{name}")
    assert last


def free_names(source):
    """Return the names that code uses and binds nowhere."""
    used, bound = set(), set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.alias(name=name):
                bound.add(name)
    return used - bound


@every_notebook
def test_no_table_and_no_answer_needs_what_belongs_to_the_tests(path):
    """The learner's process does not have it."""
    code = [cell for cell in notebook_of(path).cells if cell.cell_type == "code" and role(cell)]
    checks = set().union(*(names_in(cell.source)[1] for cell in code if is_check(cell)))
    there = [cell for cell in code if not is_check(cell) and role(cell) != "test"]
    others = set().union(*(names_in(cell.source)[1] for cell in there))
    for cell in there:
        assert not (free_names(cell.source) - others) & checks, grade_id(cell)
    assert checks


def test_the_tests_process_never_has_the_answers():
    for path in SOLUTIONS:
        for cell in cells_of_tests(notebook_of(path)):
            assert (cell["role"] == "answer") == (cell["source"] == "")


def test_a_verdict_is_plain_words_whatever_was_raised():
    class Mute(Exception):
        def __str__(self):
            raise ValueError

    assert verdict_of(None) is None
    assert verdict_of(Mute()) == {"ename": "Mute", "evalue": "", "gone": False}
    assert verdict_of(Gone("x"))["gone"]
    assert len(verdict_of(ValueError("x" * 9999))["evalue"]) == 5000
    assert verdict_of(ValueError("a \ud800"))["evalue"].encode() == b"a ?"
