"""Call functions of another process by value: the tests here, the learner's code there.

The two sides of a pipe talk in turn. A call carries its arguments, and its reply the result and
every argument that the call has changed. Numbers, strings, tensors, arrays, generators of random
numbers, lists and their like cross as what they are; records of classes that both sides know (named
tuples, dataclasses, plain classes of a locked cell) by their fields. All else stays where it is and
crosses as a `Handle`, whose methods are calls: the learner's classes, generators and functions, and
the functions and models that a test hands over. Nothing that is read is ever run: a message is JSON
and bytes, of limited size, and is rebuilt as exactly the types that are named here, so that an
object with an `__eq__` of its own arrives as plain data, as a handle, or not at all.

The side with the tests is `trusted`. It lets the other one call what was handed over, and read the
public attributes of models and of other objects, but of a function nothing at all: whatever begins
with `_` stays hidden. What a test's function computed by autograd can be differentiated from the
other side; the gradients are computed where the tensors are.
"""

import builtins
import contextlib
import dataclasses
import itertools
import json
import random
import socket
import struct
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

MOST_TEXT, MOST_BYTES = 16 * 2**20, 128 * 2**20  # of a message: its JSON, and its numbers
MOST_DIGITS = 4000  # bits of a whole number
MOST_LETTERS = 5000  # of an error's message
NAMES = ("call", "get", "item", "len", "iter", "next", "in", "copy", "backward")
MODELS_SHOW = {  # of what PyTorch gives to every model: nothing that sets a part or compiles
    "apply", "bfloat16", "buffers", "children", "cpu", "double", "eval", "float", "forward",
    "get_parameter", "get_submodule", "half", "load_state_dict", "modules", "named_buffers",
    "named_children", "named_modules", "named_parameters", "parameters",
    "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
    "requires_grad_", "state_dict", "to", "train", "training", "zero_grad",
}  # fmt: skip
NAMING = (AttributeError, NameError, NotImplementedError, TypeError)  # their texts name classes
TRUTH = b"\0" + b"\1" * 255  # what each byte of a tensor of bools becomes: no third value
METHODS = {  # what a handle can do if its object can
    "__call__": lambda self, *args, **named: self._ask("call", *args, **named),
    "__iter__": lambda self: self._ask("iter"),
    "__next__": lambda self: self._ask("next"),
    "__len__": lambda self: self._ask("len"),
    "__getitem__": lambda self, key: self._ask("item", key),
    "__contains__": lambda self, key: self._ask("in", key),
}
FUNCTIONS = (types.FunctionType, types.MethodType)
CALLED_ONLY = (*FUNCTIONS, types.BuiltinFunctionType, type)
NEVER = (types.ModuleType, types.FrameType, types.CodeType, types.TracebackType)
BOTH_HAVE = ("torch", "gpt2", "miniweb")  # packages whose classes both sides have
WITH_RECORDS = BOTH_HAVE[1:]  # and those whose records cross by value
ERRORS = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, Exception)
}
DTYPES = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "complex64",
    "complex128",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
]


class Gone(BaseException):
    """The other side has ended, or sends what is no message; no test can catch this by mistake."""


class Refused(TypeError):
    """A value cannot cross."""


class Handle:
    """An object of the other side. What it can do is decided when it arrives; see `METHODS`."""

    def __init__(self, pipe: "Pipe", number: int, kind: type | None) -> None:
        """Take the pipe, the other side's number of the object, and a class that both know."""
        vars(self).update(_pipe=pipe, _number=number, _kind=kind)

    def _ask(self, do: str, /, *args: Any, **named: Any) -> Any:
        return self._pipe.ask(do, ["yours", self._number], args, named)

    def __getattr__(self, name: str) -> Any:
        """Read an attribute of the object."""
        if name.startswith("_"):
            raise AttributeError(f"no attribute {name!r} can be read through the pipe")
        return self._ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Raise AttributeError."""
        raise AttributeError(f"the attribute {name!r} of a test's object cannot be set")

    def __deepcopy__(self, memo: Any) -> Any:
        """Copy the object where it is."""
        return self._ask("copy")

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Say to `isinstance` what a trusted side says that this is."""
        return self._kind or type(self)

    def __repr__(self) -> str:
        """Say no more than that."""
        return "<an object of another process>"


@lru_cache
def handle_class(can: frozenset[str], name: str) -> type[Handle]:
    """Return the class of handles that can do this, and nothing else that may be asked of them."""
    return type(name, (Handle,), {name: METHODS[name] for name in sorted(can)})


def abilities(value: Any) -> list[str]:
    """List the `METHODS` that an object has."""
    return [name for name in METHODS if any(name in vars(kind) for kind in type(value).__mro__)]


def seed() -> None:
    """Make what is drawn from the global generators the same in every process."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


# --- Values ----------------------------------------------------------------------------------


class Writer:
    """Turn values into JSON; what can change stands in a table, so that it is sent once.

    The table goes on from `known`, the objects that the other side has already.
    """

    def __init__(self, pipe: "Pipe", known: Iterable[Any] = (), reply: bool = False) -> None:
        """Begin a message."""
        self.pipe, self.table, self.blobs, self.reply = pipe, list[Any](), list[bytes](), reply
        self.objects = list(known)
        self.first = len(self.objects)
        self.index = {id(value): number for number, value in enumerate(self.objects)}

    def write(self, value: Any) -> Any:
        """Return the JSON of a value.

        Raises Refused for numbers out of bounds, and for tensors of kinds that do not cross.
        """
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        if value is None or value is True or value is False:
            return value
        if id(value) in self.index:
            return ["ref", self.index[id(value)]]
        if numpy and isinstance(value, numpy.generic):
            if value.dtype.hasobject:
                raise Refused("objects in NumPy do not cross")
            return ["scalar", value.dtype.str, value.tobytes().hex()]
        if isinstance(value, int):
            value = int(value)
            if value.bit_length() > MOST_DIGITS:
                raise Refused("a whole number has too many digits")
            return value if abs(value) < 2**53 else ["int", hex(value)]
        if isinstance(value, float):
            return float(value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, bytes):
            return ["bytes", bytes(value).hex()]
        if isinstance(value, complex):
            return ["complex", value.real, value.imag]
        if isinstance(value, range):
            return ["range", value.start, value.stop, value.step]
        if isinstance(value, slice):
            return ["slice", *map(self.write, (value.start, value.stop, value.step))]
        if value is ...:
            return ["dots"]
        if torch and isinstance(value, torch.dtype):
            return ["dtype", str(value).removeprefix("torch.")]
        if torch and isinstance(value, torch.device):
            return ["device", str(value)]
        if isinstance(value, tuple):
            name = class_name(type(value), self.pipe)
            fields = [self.write(part) for part in value]
            return ["record", name, fields] if name else ["tuple", fields]
        if isinstance(value, frozenset):
            return ["frozenset", [self.write(part) for part in value]]
        if isinstance(value, list | dict | set | bytearray):
            return self.enter(value)
        if torch and isinstance(value, torch.Tensor | torch.Generator):
            return self.tensor(value)
        if numpy and isinstance(value, numpy.ndarray):
            return self.enter(value)
        if class_name(type(value), self.pipe):
            return self.enter(value)
        return self.handle(value)

    def handle(self, value: Any) -> Any:
        """Return what stands for an object that stays here, or that is at home there."""
        if isinstance(value, NEVER):
            raise Refused(f"a {type(value).__name__} does not cross")
        if type(value).__mro__[-2:-1] == (Handle,) and value._pipe is self.pipe:
            return ["yours", value._number]
        kind = ""
        if self.pipe.trusted:
            kinds = (shared_name(kind) for kind in type(value).__mro__)
            kind = next((name for name in kinds if name), "")
        return ["mine", self.pipe.hold(value), kind, abilities(value)]

    def tensor(self, value: Any) -> Any:
        """Return what stands for a tensor, which may be a parameter that both sides have."""
        number = self.pipe.homes.get(id(value))
        return self.enter(value) if number is None else ["mirror", number]

    def enter(self, value: Any) -> list[Any]:
        """Write an object into the table."""
        number = self.index[id(value)] = len(self.objects)
        self.objects.append(value)
        self.table.append(None)
        self.table[number - self.first] = self.entry(value)
        return ["ref", number]

    def entry(self, value: Any) -> list[Any]:
        """Return the content of an object that can change; its bytes go to the end."""
        torch = sys.modules.get("torch")
        if isinstance(value, list):
            return ["list", [self.write(part) for part in list.__iter__(value)]]
        if isinstance(value, dict):
            pairs = [[self.write(k), self.write(v)] for k, v in dict.items(value)]
            return ["counter" if isinstance(value, Counter) else "dict", pairs]
        if isinstance(value, set):
            return ["set", [self.write(part) for part in set.__iter__(value)]]
        if isinstance(value, bytearray):
            return ["bytearray", self.blob(bytes(value))]
        if torch and isinstance(value, torch.Generator):
            return ["generator", self.blob(value.get_state().numpy().tobytes())]
        if torch and isinstance(value, torch.Tensor):
            with torch._C.DisableTorchFunctionSubclass():
                return self.tensor_entry(value)
        if isinstance(value, sys.modules["numpy"].ndarray if "numpy" in sys.modules else ()):
            if value.dtype.hasobject:
                raise Refused("an array of objects does not cross")
            return ["array", value.dtype.str, list(value.shape), self.blob(value.tobytes())]
        fields = [[name, self.write(part)] for name, part in vars(value).items()]
        return ["object", class_name(type(value), self.pipe), fields]

    def tensor_entry(self, value: Any) -> list[Any]:
        """Write a tensor: its numbers, whether it wants a gradient, and where it came from."""
        torch = sys.modules["torch"]
        kind, home = str(value.dtype).removeprefix("torch."), None
        if kind not in DTYPES or value.layout is not torch.strided or value.is_meta:
            raise Refused(f"a tensor of {value.dtype}, {value.layout} does not cross")
        if value.numel() * value.element_size() > MOST_BYTES:
            raise Refused("a tensor is too large to cross")
        wants = bool(value.requires_grad)
        graph = wants and self.reply and value.grad_fn is not None
        if self.pipe.trusted and (graph or isinstance(value, torch.nn.Parameter)):
            home = self.pipe.hold(value)
        if home is not None and not graph:
            self.pipe.mirror(value, home)
        with torch.no_grad():
            plain = torch.empty(value.numel(), dtype=value.dtype).copy_(value.detach().reshape(-1))
            data = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        return ["tensor", kind, list(value.shape), wants, graph, home, self.blob(data)]

    def blob(self, data: bytes) -> int:
        """Put bytes at the end of the message."""
        self.blobs.append(data)
        return len(self.blobs) - 1


class Reader:
    """Rebuild the values of a message, as exactly the types that are named.

    Raises Gone where it is no message.
    """

    def __init__(
        self, pipe: "Pipe", table: Any, blobs: list[bytes], known: Iterable[Any] = ()
    ) -> None:
        """Rebuild the table."""
        self.pipe, self.blobs = pipe, blobs
        self.objects = list(known)
        entries = list(table)
        first = len(self.objects)
        self.objects += [self.shell(entry) for entry in entries]
        for entry, shell in zip(entries, self.objects[first:], strict=True):
            self.fill(shell, entry)

    def shell(self, entry: Any) -> Any:
        """Make an object that is still empty, or whole if nothing in it refers to another."""
        kind = entry[0]
        if kind in ("list", "dict", "set", "bytearray", "counter"):
            kinds = {"list": list, "dict": dict, "set": set, "bytearray": bytearray}
            return kinds.get(kind, Counter)()
        if kind == "object":
            return object.__new__(self.known_class(entry[1]))
        if kind == "tensor":
            return self.tensor(*entry[1:])
        if kind == "array":
            array = self.numbers(self.blobs[entry[3]], entry[1])
            return array.reshape([int(side) for side in entry[2]]).copy()
        if kind == "generator":
            import torch

            return torch.Generator()
        raise Gone(f"{kind!r} is no kind of object")

    def fill(self, shell: Any, entry: Any) -> None:
        """Put its content into an object, old or new."""
        kind, last = entry[0], entry[-1]
        if kind == "list":
            shell[:] = [self.read(part) for part in last]
        elif kind in ("dict", "counter"):
            pairs = [(self.read(key), self.read(value)) for key, value in last]
            shell.clear()
            dict.update(shell, pairs)
        elif kind == "set":
            parts = [self.read(part) for part in last]
            shell.clear()
            shell.update(parts)
        elif kind == "bytearray":
            shell[:] = self.blobs[last]
        elif kind == "generator":
            import torch

            shell.set_state(torch.frombuffer(bytearray(self.blobs[last]), dtype=torch.uint8))
        elif kind == "object":
            fields = {str(name): self.read(part) for name, part in last}
            if any(isinstance(getattr(type(shell), name, None), FUNCTIONS) for name in fields):
                raise Gone("a field takes the place of a method")
            vars(shell).clear()
            vars(shell).update(fields)

    def renew(self, number: int, entry: Any) -> None:
        """Change an object of this side as the other side has changed its copy."""
        old = self.objects[number]
        if entry[0] in ("tensor", "array"):
            new = self.shell(entry)
            if type(old) is not type(new) and not isinstance(old, type(new)):
                raise Gone("an argument has become something else")
            if old.shape != new.shape or old.dtype != new.dtype:
                raise Refused("an argument has another shape or type now")
            if entry[0] == "array":
                old[...] = new
                return
            import torch

            with torch.no_grad():
                old.copy_(new)
            return
        if entry[0] != Writer(self.pipe).entry(old)[0]:
            raise Gone("an argument has become something else")
        self.fill(old, entry)

    def read(self, node: Any) -> Any:
        """Return the value of a node."""
        if isinstance(node, dict):
            raise Gone("that is no value")
        if not isinstance(node, list):
            return node
        kind, *rest = node
        if kind == "ref":
            return self.objects[rest[0]]
        if kind == "tuple":
            return tuple(map(self.read, rest[0]))
        if kind == "yours":
            return self.pipe.held[rest[0]]
        if kind == "mine":
            return self.handle(*rest)
        if kind == "mirror":
            return self.pipe.mirrors[rest[0]][0]
        if kind == "record":
            return self.record(self.known_class(rest[0]), [self.read(part) for part in rest[1]])
        if kind == "int":
            if len(rest[0]) > MOST_DIGITS:
                raise Gone("a whole number has too many digits")
            return int(rest[0], 16)
        if kind == "bytes":
            return bytes.fromhex(rest[0])
        if kind == "complex":
            return complex(*rest)
        if kind == "range":
            return range(*rest)
        if kind == "slice":
            return slice(*map(self.read, rest))
        if kind == "dots":
            return ...
        if kind == "frozenset":
            return frozenset(map(self.read, rest[0]))
        if kind == "scalar":
            return self.numbers(bytes.fromhex(rest[1]), rest[0])[0]
        if kind in ("dtype", "device"):
            import torch

            if kind == "dtype" and rest[0] not in DTYPES:
                raise Gone(f"{rest[0]!r} is no type of numbers")
            return getattr(torch, rest[0]) if kind == "dtype" else torch.device(rest[0])
        raise Gone(f"{kind!r} is no kind of value")

    def numbers(self, data: bytes, name: Any) -> Any:
        """Return an array of numbers or text, none of objects."""
        import numpy

        kind = numpy.dtype(str(name))
        if kind.hasobject or kind.kind not in "biufcSUmM":
            raise Gone(f"{name!r} is no type of numbers")
        return numpy.frombuffer(data.translate(TRUTH) if kind.kind == "b" else data, kind)

    def tensor(
        self, kind: str, shape: list[int], wants: bool, graph: bool, home: int | None, blob: int
    ) -> Any:
        """Make a tensor, and connect it with the other side if its gradient comes from there."""
        import torch

        if kind not in DTYPES or any(type(side) is not int or side < 0 for side in shape):
            raise Gone("that is no tensor")
        dtype, given = getattr(torch, kind), self.blobs[blob]
        data = bytearray(given.translate(TRUTH) if kind == "bool" else given)
        if not data and 0 not in shape:
            raise Gone("a tensor without numbers")
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        value = flat.reshape(shape)
        if self.pipe.trusted:  # what a learner returns is a result, and no part of a graph
            return value.requires_grad_() if wants and not graph else value
        if graph and home is not None and torch.is_grad_enabled():
            return self.pipe.differentiable(value, home)
        if home is not None and not graph:
            value = torch.nn.Parameter(value, requires_grad=wants)
            self.pipe.mirror(value, home)
        return value.requires_grad_() if wants and not graph else value

    def handle(self, number: int, kind: str, can: list[str]) -> Handle:
        """Return the handle with this number; of an untrusted side no class is believed."""
        if type(number) is not int or not set(can) <= METHODS.keys():
            raise Gone("that is no handle")
        if number not in self.pipe.handles:
            known = None if self.pipe.trusted else self.pipe.find_class(kind)
            # Whether a learner's object has something in it is found by looking through it.
            able = [name for name in can if name != "__contains__" or not self.pipe.trusted]
            made = handle_class(frozenset(able), known.__name__ if known else "Handle")
            self.pipe.handles[number] = made(self.pipe, number, known)
        return self.pipe.handles[number]

    def known_class(self, name: Any) -> type:
        """Return a class whose objects cross by value, and no other."""
        found = self.pipe.find_class(name)
        if found is None or not class_name(found, self.pipe):
            raise Gone(f"no class {name!r} is known here")
        return found

    def record(self, kind: type, fields: list[Any]) -> Any:
        """Make a named tuple."""
        if not issubclass(kind, tuple) or len(fields) != len(kind._fields):  # type: ignore[attr-defined]
            raise Gone(f"that is no {kind.__name__}")
        return tuple.__new__(kind, fields)


def shared_name(kind: type) -> str:
    """Name a class that both sides have in their packages, or return nothing."""
    module = kind.__module__ or ""
    found = sys.modules.get(module) if module.partition(".")[0] in BOTH_HAVE else None
    return (
        f"{module}:{kind.__name__}"
        if vars(found or builtins).get(kind.__name__) is kind and found
        else ""
    )


def class_name(kind: type, pipe: "Pipe") -> str:
    """Name a class whose objects cross by value, or return nothing."""
    is_record = dataclasses.is_dataclass(kind) or (
        issubclass(kind, tuple) and hasattr(kind, "_fields")
    )
    if is_record and (name := shared_name(kind)).startswith(WITH_RECORDS):
        return name
    return kind.__name__ if pipe.classes.get(kind.__name__) is kind else ""


def classes_of(namespace: dict[str, Any]) -> dict[str, type]:
    """Return the plain classes and records that the cells of a notebook have defined so far."""
    torch = sys.modules.get("torch")
    module = torch.nn.Module if torch else ()
    return {
        name: value
        for name, value in namespace.items()
        if isinstance(value, type)
        and value.__module__ == namespace.get("__name__")
        and value.__name__ == name
        and not issubclass(value, module)
        and not issubclass(value, BaseException)
    }


# --- The two sides ---------------------------------------------------------------------------


class Pipe:
    """One side of a pipe: it asks, and while it waits for the reply it answers.

    `namespace` has what the other side can name; `classes` are those that both sides know from the
    notebook's cells.
    """

    def __init__(
        self,
        connection: socket.socket,
        trusted: bool,
        namespace: dict[str, Any] | None = None,
        classes: dict[str, type] | None = None,
    ) -> None:
        """Take one end of a connection."""
        self.connection, self.trusted = connection, trusted
        self.namespace, self.classes = namespace or {}, classes or {}
        self.held: dict[int, Any] = {}
        self.numbers: dict[int, int] = {}
        self.count = itertools.count()
        self.handles: dict[int, Handle] = {}
        self.mirrors: dict[int, list[Any]] = {}  # parameters that both sides have, by number
        self.homes: dict[int, int] = {}  # and their numbers
        self.leaves: dict[int, list[Any]] = {}  # of each result that can be differentiated
        self.sent: list[Any] = []  # the objects of the question that waits for its reply
        self.got: list[Any] = []  # and of the one that is being answered
        self.measure: Callable[[bool], int] = lambda begin: 0  # see `course.cost`
        self.report: Any = None

    def hold(self, value: Any) -> int:
        """Keep an object for the other side, and return its number."""
        if id(value) not in self.numbers:
            self.numbers[id(value)] = number = next(self.count)
            self.held[number] = value
            self.leaves[number] = self.got
        return self.numbers[id(value)]

    def find_class(self, name: Any) -> type | None:
        """Return a class by its name, if it is one that both sides have; import nothing."""
        module, colon, name = str(name).rpartition(":")
        if not colon:
            return self.classes.get(name)
        found = sys.modules.get(module) if module.partition(".")[0] in BOTH_HAVE else None
        kind = vars(found).get(name) if found else None
        return kind if isinstance(kind, type) else None

    # Parameters. Both sides have them, and each tells the other when one has changed.

    def mirror(self, value: Any, number: int) -> None:
        """Keep a parameter the same on both sides from now on: its numbers and its gradient."""
        self.homes[id(value)] = number
        self.mirrors[number] = [value, value.detach().clone(), copied(value.grad)]

    def news(self, writer: Writer) -> list[Any]:
        """Write down which parameters have changed since the other side last heard of them."""
        told = []
        for number, (value, data, gradient) in self.mirrors.items():
            new = None if same_numbers(value, data) else writer.tensor_entry(value.detach())
            if (value.grad is None) != (gradient is None) or not same_numbers(value.grad, gradient):
                grad = [value.grad is not None and writer.tensor_entry(value.grad.detach())]
            else:
                grad = []
            if new or grad:
                told.append([number, new, grad])
                self.mirrors[number] = [value, value.detach().clone(), copied(value.grad)]
        return told

    def learn(self, told: Any, blobs: list[bytes]) -> None:
        """Change the parameters of this side as the other has changed them there."""
        if not told:
            return
        torch, reader = sys.modules["torch"], Reader(self, [], blobs)
        for number, new, grad in told:
            value = self.mirrors[number][0]
            parts = [reader.shell(entry) for entry in (new, *grad) if entry]
            if any(part.shape != value.shape or part.dtype != value.dtype for part in parts):
                raise Gone("a parameter has another shape")
            with torch.no_grad():
                if new:
                    value.copy_(parts[0])
            if grad:
                value.grad = parts[-1].detach() if grad[0] else None
            self.mirrors[number] = [value, value.detach().clone(), copied(value.grad)]

    # Messages.

    def send(self, message: dict[str, Any], blobs: list[bytes]) -> None:
        """Send a message.

        Raises Refused if it is too large, Gone if nobody is there.
        """
        text = json.dumps({**message, "sizes": list(map(len, blobs))}).encode()
        if len(text) > MOST_TEXT or sum(map(len, blobs)) > MOST_BYTES:
            raise Refused("a value is too large to cross")
        try:
            self.connection.sendall(b"".join([struct.pack("!I", len(text)), text, *blobs]))
        except OSError as error:
            raise Gone(str(error)) from None

    def receive(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return the next message.

        Raises Gone if none comes, or what comes is none.
        """
        try:
            (size,) = struct.unpack("!I", self.take(4))
            if size > MOST_TEXT:
                raise Gone("a message is too large")
            message = json.loads(self.take(size))
            sizes = message["sizes"]
            if any(type(n) is not int or n < 0 for n in sizes) or sum(sizes) > MOST_BYTES:
                raise Gone("a message is too large")
            return message, [self.take(n) for n in sizes]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise Gone(f"that was no message: {type(error).__name__}") from None

    def take(self, size: int) -> bytes:
        """Read so many bytes."""
        data = bytearray()
        while len(data) < size:
            part = self.connection.recv(min(size - len(data), 2**20))
            if not part:
                raise Gone("the other side has ended")
            data += part
        return bytes(data)

    # Asking.

    def ask(
        self, do: str, at: Any, args: tuple[Any, ...], named: dict[str, Any], **more: Any
    ) -> Any:
        """Ask the other side to do something with an object of its own, and return the result."""
        writer = Writer(self)
        body = [[writer.write(x) for x in args], [[n, writer.write(x)] for n, x in named.items()]]
        message = {"do": do, "at": at, "body": body, "table": writer.table, "mode": mode(), **more}
        message["news"] = self.news(writer)
        before, self.sent = self.sent, writer.objects
        try:
            self.send(message, writer.blobs)
            while True:
                reply, blobs = self.receive()
                if "do" in reply:
                    self.answer(reply, blobs)
                    continue
                return self.result(reply, blobs, writer.objects, ends=do == "next")
        finally:
            self.sent = before

    def result(
        self, reply: dict[str, Any], blobs: list[bytes], objects: list[Any], ends: bool
    ) -> Any:
        """Take over what a call has changed, and return its result or raise its error.

        Only with `ends` is that StopIteration: it would end a loop of a test that calls an answer.
        """
        try:
            self.learn(reply["news"], blobs)
            reader = Reader(self, reply["table"], blobs, objects)
            for number, entry in reply["changed"]:
                reader.renew(number, entry)
            self.report = reply.get("report")
            if "error" not in reply:
                return reader.read(reply["value"])
            names, said = reply["error"]
            said = str(said)[:MOST_LETTERS]
            kinds = [ERRORS[name] for name in names if name in ERRORS]
            if StopIteration in kinds and not ends:
                kinds = []
        except Refused:
            raise
        except (RecursionError, MemoryError) as error:
            raise Refused(f"a value cannot cross: {type(error).__name__}") from None
        except Exception as error:
            raise Gone(f"that was no reply: {type(error).__name__}: {error}"[:200]) from None
        raise made_error(kinds, said)

    def differentiable(self, value: Any, home: int) -> Any:
        """Let a result of the other side, which is at home there, take part in autograd here."""
        torch = sys.modules["torch"]
        wanting = [x for x in self.sent if isinstance(x, torch.Tensor) and x.requires_grad]
        numbers = [number for number, (x, *_) in self.mirrors.items() if x.requires_grad]

        class Elsewhere(torch.autograd.Function):  # type: ignore[misc,name-defined]
            """The part of a graph that is on the other side."""

            @staticmethod
            def forward(ctx: Any, start: Any, *inputs: Any) -> Any:
                return value.clone()

            @staticmethod
            def backward(ctx: Any, gradient: Any) -> Any:
                found = self.ask("backward", ["yours", home], (gradient, numbers), {})
                return None, *found

        start = torch.zeros(0, requires_grad=True)
        return Elsewhere.apply(start, *wanting, *(self.mirrors[n][0] for n in numbers))

    # Answering.

    def serve(self) -> None:
        """Answer until the other side has no more to ask."""
        while True:
            message, blobs = self.receive()
            if "do" not in message:
                return
            self.answer(message, blobs)

    def answer(self, message: dict[str, Any], blobs: list[bytes]) -> None:
        """Do what the other side asks, and send what came out."""
        reply: dict[str, Any] = {"value": None}
        before, objects, entries = self.got, [], []
        value: Any = None
        try:
            try:
                self.learn(message["news"], blobs)
                reader = Reader(self, message["table"], blobs)
                objects, entries = reader.objects, message["table"]
                args = [reader.read(part) for part in message["body"][0]]
                named = {str(name): reader.read(part) for name, part in message["body"][1]}
                self.got = objects
                with set_mode(message.get("mode", 1)):
                    value, reply = self.do(message, args, named, reply)
            except (Exception, SystemExit) as error:
                reply["error"] = self.told(error)
            try:
                writer = Writer(self, objects, reply=True)
                reply["value"] = writer.write(value)
                reply["changed"] = changed(writer, objects, entries, blobs)
                reply["table"], reply["news"] = writer.table, self.news(writer)
                self.send(reply, writer.blobs)
            except (Exception, SystemExit) as error:
                nothing: dict[str, Any] = {"value": None, "changed": [], "table": [], "news": []}
                self.send({**nothing, "error": self.told(error)}, [])
        finally:
            self.got = before

    def told(self, error: BaseException) -> list[Any]:
        """Return the classes and the text of an error, but no text that names what a test hides."""
        named = self.trusted and isinstance(error, NAMING)
        said = "this cannot be done with an object of a test" if named else said_by(error)
        return [[kind.__name__ for kind in type(error).__mro__], said]

    def do(
        self, message: dict[str, Any], args: list[Any], named: dict[str, Any], reply: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Do it."""
        do, (kind, which) = message["do"], message["at"]
        if kind == "name":
            if self.trusted or which not in self.namespace:
                raise NameError(f"name {which!r} is not defined")
            target = self.namespace[which]
        else:
            target = self.held[which]
        if self.trusted:
            check_allowed(target, do, args)
        if do == "call" and message.get("watch") and not self.trusted:
            from course.watch import Watch

            with Watch() as watch:
                value = target(*args, **named)
            return value, {**reply, "report": [watch.elements, sorted(watch.called)]}
        if do == "hold" and not self.trusted:
            from course.cost import hold_free_pieces

            hold_free_pieces()
            return None, reply
        actions: dict[str, Callable[[], Any]] = {
            "call": lambda: target(*args, **named),
            "get": lambda: getattr(target, args[0]),
            "item": lambda: target[args[0]],
            "len": lambda: len(target),
            "iter": lambda: iter(target),
            "next": lambda: next(target),
            "in": lambda: args[0] in target,
            "copy": lambda: __import__("copy").deepcopy(target),
            "backward": lambda: self.backward(target, which, *args),
        }
        return actions[do](), reply

    def backward(self, output: Any, number: int, gradient: Any, numbers: list[int]) -> list[Any]:
        """Go back from a result of this side; return the gradients of what it was made from.

        These are the tensors of the call, and the parameters that both sides have, whose gradients
        the other side adds up. Those that it does not know get theirs here.
        """
        torch = sys.modules["torch"]
        inputs = [x for x in self.leaves[number] if isinstance(x, torch.Tensor) and x.requires_grad]
        inputs += [self.mirrors[n][0] for n in numbers]
        before = [x.grad for x in inputs]
        for x in inputs:
            x.grad = None
        torch.autograd.backward([output], [gradient], retain_graph=True)
        found = [x.grad for x in inputs]
        for x, kept in zip(inputs, before, strict=True):
            x.grad = kept
        return found

    def begin(self) -> None:
        """Tell the other side by which classes' names objects can cross."""
        self.send({"classes": sorted(self.classes)}, [])

    def end(self) -> None:
        """Tell the other side that nothing more will be asked."""
        self.send({"end": True}, [])


def changed(
    writer: Writer, objects: list[Any], entries: list[Any], blobs: list[bytes]
) -> list[list[Any]]:
    """Return the arguments that are not what they were, each with what it is now."""
    found = []
    for number, (value, before) in enumerate(zip(objects, entries, strict=False)):
        data = len(writer.blobs)
        now = writer.entry(value)
        kept = now[:3] if now[0] == "tensor" else now[:-1]  # a gradient may have been asked for
        if now[0] in ("tensor", "array", "bytearray", "generator"):
            same = before[: len(kept)] == kept and writer.blobs[data] == blobs[before[-1]]
            if same:
                del writer.blobs[data:]
        else:
            same = json.dumps(turned(now, "mine")) == json.dumps(turned(before, "yours"))
        if not same:
            found.append([number, now])
    return found


def turned(node: Any, mine: str) -> Any:
    """Write a node as both sides would write it: what they hold by its number alone."""
    if not isinstance(node, list) or not node:
        return node
    if node[0] in ("mine", "yours") and len(node) in (2, 4):
        return ["here" if node[0] == mine else "there", node[1]]
    return [turned(part, mine) for part in node]


def check_allowed(target: Any, do: str, args: list[Any]) -> None:
    """Hold that the learner's side may do this with an object of the tests.

    Raises AttributeError if not.
    """
    torch = sys.modules.get("torch")
    is_tensor = torch is not None and isinstance(target, torch.Tensor)
    kept = isinstance(target, NEVER) or do not in NAMES or is_tensor != (do == "backward")
    if do == "get":
        name = args[0] if args else ""
        kept = kept or not isinstance(name, str) or name.startswith("_")
        kept = kept or isinstance(target, (*CALLED_ONLY, Iterator))
        if torch is not None and isinstance(target, torch.nn.Module):
            kept = kept or (name not in MODELS_SHOW and hasattr(torch.nn.Module, name))
        else:
            kept = kept or callable(target)
    if kept:
        raise AttributeError(f"no {args[0] if args else do!r} of a test's object can be read")


def copied(value: Any) -> Any:
    """Copy a tensor, or None."""
    return None if value is None else value.detach().clone()


def same_numbers(a: Any, b: Any) -> bool:
    """Say whether two tensors are equal, nan and all."""
    if a is None or b is None:
        return a is b
    torch = sys.modules["torch"]
    return torch.equal(a, b) or torch.equal(a.nan_to_num(0.5), b.nan_to_num(0.5))


def mode() -> int:
    """Return what autograd does here now: 0 nothing, 1 all, 2 nothing and for good."""
    torch = sys.modules.get("torch")
    if torch is None:
        return 1
    return 2 if torch.is_inference_mode_enabled() else int(torch.is_grad_enabled())


def set_mode(number: Any) -> Any:
    """Return a context in which autograd does the same as on the other side."""
    torch = sys.modules.get("torch")
    if torch is None:
        return contextlib.nullcontext()
    if number == 2:
        return torch.inference_mode()
    return torch.enable_grad() if number else torch.no_grad()


def said_by(error: BaseException) -> str:
    """Return what an error says."""
    try:
        one = error.args[0] if len(error.args) == 1 else None
        return (one if isinstance(one, str) else str(error))[:MOST_LETTERS]
    except Exception:
        return ""


def made_error(kinds: list[type[Exception]], said: str) -> Exception:
    """Make an error of the first of these classes that takes a text and nothing else."""
    for kind in kinds:
        with contextlib.suppress(TypeError):
            return kind(said)
    return RuntimeError(said)


def serve(number: int, namespace: dict[str, Any]) -> None:
    """Answer the tests through an open file of this number: the learner's side."""
    seed()
    with socket.socket(fileno=number) as connection, contextlib.suppress(Gone):
        pipe = Pipe(connection, False, namespace)
        names = pipe.receive()[0]["classes"]
        known = classes_of(namespace)
        pipe.classes = {name: known[name] for name in names if name in known}
        pipe.serve()


class Answer:
    """What stands in the tests' process for a function or class that a learner has defined."""

    def __init__(self, name: str, pipe: Callable[[], Pipe | None]) -> None:
        """Take its name, and what returns the pipe through which it can be called now."""
        self.name, self.pipe = name, pipe

    def ask(self, args: tuple[Any, ...], named: dict[str, Any], **more: Any) -> Any:
        """Call it.

        Raises NameError where nobody can be asked.
        """
        pipe = self.pipe()
        if pipe is None:
            raise NameError(f"name {self.name!r} is not defined")
        return pipe.ask("call", ["name", self.name], args, named, **more)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call it."""
        return self.ask(args, named)
