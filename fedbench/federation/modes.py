"""How torch computes, as far as an attack could change it for everybody in the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class Modes(NamedTuple):
    """The settings of a process that results depend on.

    Attributes:
        dtype: of new tensors. grad: whether gradients are recorded. inference: whether tensors are made for inference alone.
        threads: within an operation. deterministic: what torch makes of algorithms that are not: 0 nothing, 1 a warning, 2 an
            error.
        precision: of float32 products. functions, dispatches: how many modes look at every call; a default device is one.
    """

    dtype: torch.dtype
    grad: bool
    inference: bool
    threads: int
    deterministic: int
    precision: str
    functions: int
    dispatches: int

    @classmethod
    def now(cls) -> Modes:
        """As they are: a few microseconds."""
        return cls(
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_num_threads(),
            torch.get_deterministic_debug_mode(),
            torch.get_float32_matmul_precision(),
            torch._C._len_torch_function_stack(),
            torch._C._len_torch_dispatch_stack(),
        )

    def restore(self) -> str:
        """Make them as they were, and name what was not; what nothing but the end of the process can undo stays."""
        found = Modes.now()
        if found == self:
            return ""
        while torch._C._len_torch_function_stack() > self.functions:
            torch._C._pop_torch_function_stack()
        while torch._C._len_torch_dispatch_stack() > self.dispatches:
            torch._C._pop_torch_dispatch_stack(None)
        changed = [name for name, before, now in zip(self._fields, self, found, strict=True) if before != now]
        for name in changed:
            if name in _SET:
                _SET[name](getattr(self, name))
        return ", ".join(changed)


_SET: dict[str, Callable[[Any], None]] = {
    "dtype": lambda dtype: torch.set_default_dtype(dtype),
    "grad": lambda grad: torch._C._set_grad_enabled(grad),
    "threads": lambda threads: torch.set_num_threads(threads),
    "deterministic": lambda level: torch.set_deterministic_debug_mode(level),
    "precision": lambda precision: torch.set_float32_matmul_precision(precision),
}
"""What sets each; named when it is called, so that importing this does not wait for torch."""
