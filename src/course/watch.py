"""Look at the operations that PyTorch runs, one by one."""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remember the elements of the largest tensor that an operation makes, and the operations."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements, self.called = 0, set[str]()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare PyTorch the import of its compiler, which takes longer than all the tests."""
        return False

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        """Run an operation and look at its result."""
        self.called.add(str(function).removeprefix("aten.").partition(".")[0])
        result = function(*arguments, **(keywords or {}))
        for part in result if isinstance(result, tuple | list) else [result]:
            if isinstance(part, Tensor):
                self.elements = max(self.elements, part.numel())
        return result
