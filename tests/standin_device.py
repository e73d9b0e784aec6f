"""A stand-in for a CUDA device, on machines that have none: it computes on the CPU and behaves, to Python, like ``cuda:0``.

Tensors are plain ones of the CPU. Which of them are "on the device" is kept beside them, by their storage: a mode on
calls of Python (``TorchFunctionMode``) answers for ``device``, ``is_cuda``, ``to`` and the like, and a mode below autograd
(``TorchDispatchMode``) sees every operation that a device would run. There

* what CUDA refuses raises :class:`Refused`, with file and line: an operation on tensors of both devices (but for numbers, as
  0-dimensional tensors of the CPU, and indices), ``numpy()``, a generator of the other device;
* whatever makes the host wait for the device is counted, or raises :class:`Waited`: values that are read, copies that
  block, and shapes that depend on values (``nonzero``, boolean indices, ``unique``, ``bincount``, ...);
* kernel launches are counted; operations that CUDA runs as several kernels count so many times, about.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import fedbench

DEVICE = torch.device("cuda:0")

KERNELS = {
    "sort": 4, "argsort": 4, "topk": 3, "cumsum": 2, "randperm": 4, "_unique2": 12, "unique_consecutive": 6, "unique_dim": 12,
    "nonzero": 3, "masked_select": 4, "bincount": 4, "repeat_interleave": 3, "isin": 4, "median": 3, "nanmedian": 3,
    "kthvalue": 3,
    "_linalg_eigh": 40, "_linalg_svd": 50, "linalg_qr": 20, "multinomial": 4, "index_put": 2, "embedding_bag": 1,
}  # fmt: skip
"""Kernels of an operation, about, where they are not one."""

NO_KERNEL = {
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_unsafe_view", "_local_scalar_dense",
    "_sparse_csr_tensor_unsafe", "_sparse_compressed_tensor_unsafe", "is_same_size", "resize_", "set_", "equal",
}  # fmt: skip
"""Operations that launch nothing, beside views."""

WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_consecutive", "unique_dim", "bincount",
    "equal", "is_nonzero", "_linalg_eigh", "_linalg_svd", "linalg_lstsq", "_linalg_solve_ex", "linalg_inv_ex", "histc",
    "multinomial", "allclose", "unique_dim_consecutive",
}  # fmt: skip
"""Operations that the host waits for: their shapes, or values, are read."""

NOT_POINTWISE = {
    "index_select",
    "gather",
    "index_add",
    "index_copy",
    "searchsorted",
    "scatter",
    "scatter_add",
    "bmm",
    "mm",
}
"""Operations that take no 0-dimensional tensor of the other device."""

_STORAGES: dict[int, StorageWeakRef] = {}
"""What lies on the device; kept from one stand-in to the next, as networks are. No memory is kept alive by it."""

INDEXING = {"index", "_unsafe_index", "index_put", "_index_put_impl"}

_DEVICE_OF, _IS_CUDA = torch.Tensor.device.__get__, torch.Tensor.is_cuda.__get__  # type: ignore[attr-defined]
_MOVES = {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda}
_READS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__}
_MADE_FROM_VALUES = {torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor, torch.from_numpy}


class Refused(RuntimeError):
    """What CUDA would have refused."""


class Waited(RuntimeError):
    """The host has waited for the device where it must not."""


class Generator(torch.Generator):
    """A generator of the CPU that says it is one of the device, where that was asked for."""

    asked: torch.device

    def __new__(cls, device: str | torch.device = "cpu") -> Generator:
        made = super().__new__(cls)
        made.asked = DEVICE if torch.device(device).type == "cuda" else torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.asked


@dataclass
class Seen:
    """What was counted: kernel launches, and each wait of the host by place (``file:line function``) and operation."""

    launches: int = 0
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    launched_at: Counter[str] = field(default_factory=Counter)

    @property
    def syncs(self) -> int:
        return sum(self.waits.values())


class StandInDevice:
    """``with StandInDevice() as device:`` tensors can be made on ``device.device``, or moved there.

    Attributes:
        device: ``cuda:0``. seen: what was counted since the last :meth:`counted`. places: whether launches are kept by place.
    """

    device = DEVICE

    def __init__(self, places: bool = False) -> None:
        self.seen, self.places = Seen(), places
        self.forbidden = False
        self.hint: torch.device | None = None
        self.asked = False
        self.generator: torch.Generator | None = None
        self._paused = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> StandInDevice:
        self._stack.enter_context(mock.patch.object(torch, "Generator", Generator))
        self._stack.enter_context(_Operations(self))
        self._stack.enter_context(_Calls(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for key in [key for key, each in _STORAGES.items() if each.expired()]:
            del _STORAGES[key]

    def counted(self) -> Seen:
        """What was counted; counting begins anew."""
        seen, self.seen = self.seen, Seen()
        return seen

    @contextlib.contextmanager
    def no_waits(self) -> Iterator[None]:
        """Every wait in here raises :class:`Waited`."""
        self.forbidden = True
        try:
            yield
        finally:
            self.forbidden = False

    # Which tensors are on the device.

    def holds(self, value: torch.Tensor) -> bool:
        if value.layout != torch.strided:
            return hasattr(value, "_on_the_device")
        return value.untyped_storage()._cdata in _STORAGES

    def take(self, value: torch.Tensor) -> torch.Tensor:
        if value.layout != torch.strided:
            value._on_the_device = True  # type: ignore[attr-defined]
        else:
            reference = StorageWeakRef(value.untyped_storage())
            _STORAGES[reference.cdata] = reference
        return value

    def drop(self, value: torch.Tensor) -> torch.Tensor:
        _STORAGES.pop(value.untyped_storage()._cdata, None)
        return value

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    # What happens on it.

    def wait(self, what: str) -> None:
        place = _where()
        self.seen.waits[place, what] += 1
        if self.forbidden:
            raise Waited(f"{place}: the host waits for the device: {what}")

    def launch(self, kernels: int) -> None:
        self.seen.launches += kernels
        if self.places and kernels:
            self.seen.launched_at[_where()] += kernels

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation, as the dispatcher sees it."""
        if self._paused:
            return func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        plain = name.rstrip("_") if not name.startswith("__") else name
        mine, others = [], []
        for value in _tensors((args, kwargs)):
            (mine if self.holds(value) else others).append(value)
        here = bool(mine)
        if (
            self.hint is not None
            and (self.asked or not here)
            and (kwargs.get("device") is not None or not (mine or others))
        ):
            here = self.hint.type == "cuda"
        if (
            kwargs.get("generator") is not None
            and self.generator is not None
            and self.generator.device.type != _kind(here)
        ):
            raise Refused(f"{_where()}: {name} on {'the device' if here else 'the host'} with a generator of the other")
        if not here:
            return func(*args, **kwargs)
        if name == "copy_":
            if others:
                self.wait("copy between devices")
        elif others and mine:
            self._mixed(name, plain, args, others)
        self._count(func, name, plain, args, kwargs)
        out = func(*args, **kwargs)
        for value in _tensors(out):
            self.take(value)
        return out

    def _mixed(self, name: str, plain: str, args: tuple[Any, ...], others: list[torch.Tensor]) -> None:
        if plain in INDEXING and self.holds(args[0]):
            indices = [value for value in args[1] if value is not None and not self.holds(value)]
            if indices:
                self.wait("index on the host")
            others = [value for value in others if not any(value is index for index in indices)]
        if any(value.dim() or plain in NOT_POINTWISE for value in others):
            raise Refused(f"{_where()}: {name} on tensors of the device and of the host")

    def _count(self, func: Any, name: str, plain: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kernels = 0 if plain in NO_KERNEL or name in NO_KERNEL or _is_view(func) else KERNELS.get(plain, 1)
        if plain in WAITS:
            self.wait(plain)
        elif plain == "repeat_interleave":
            if kwargs.get("output_size") is None and not (len(args) > 1 and args[-1] is not None):
                self.wait("repeat_interleave without output_size")
        elif plain == "isin":
            sizes = [each.numel() for each in args[:2] if isinstance(each, torch.Tensor)]
            if len(sizes) == 2 and sizes[1] >= 10 * sizes[0] ** 0.145:
                self.wait("isin of many")
        elif plain in INDEXING:
            masks = [value for value in args[1] if value is not None and value.dtype in (torch.bool, torch.uint8)]
            scalar = plain != "index" and len(args) > 2 and args[2].numel() == 1 and not self.holds(args[2])
            if masks and not (scalar and len(masks) == len(args[1]) == 1):
                kernels += 3 * len(masks)
                for _ in masks:
                    self.wait("boolean index")
        self.launch(kernels)

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call, as Python makes it."""
        if func == _DEVICE_OF:
            return DEVICE if self.holds(args[0]) else func(*args)
        if func == _IS_CUDA:
            return self.holds(args[0])
        if func in _MOVES:
            return self._moved(func, args, kwargs)
        if func in _READS:
            if self.holds(args[0]):
                if func != torch.Tensor.tolist:
                    raise Refused(f"{_where()}: numpy() of a tensor of the device")
                self.wait("tolist")
            return func(*args, **kwargs)
        if func == torch.Tensor.__deepcopy__:
            with self.paused():
                out = func(*args, **kwargs)
            return self.take(out) if self.holds(args[0]) else out
        asked = kwargs.get("device")
        if func in _MADE_FROM_VALUES:
            return self._from_values(func, args, kwargs, asked)
        before = self.hint, self.asked, self.generator
        self.asked = asked is not None
        if asked is not None:
            self.hint = torch.device(asked)
            kwargs = {**kwargs, "device": torch.device("cpu") if self.hint.type == "cuda" else asked}
        elif any(self.holds(value) for value in _tensors((args, kwargs))):
            self.hint = DEVICE
        self.generator = kwargs.get("generator") or self.generator
        try:
            return func(*args, **kwargs)
        finally:
            self.hint, self.asked, self.generator = before

    def _from_values(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], asked: Any) -> Any:
        source = next(iter(_tensors(args)), None)
        if func in (torch.as_tensor, torch.asarray) and source is not None:
            moved = source if asked is None else self._moved(torch.Tensor.to, (source, asked), {})
            return moved if kwargs.get("dtype") is None else moved.to(kwargs["dtype"])
        of_self = func == torch.Tensor.new_tensor and self.holds(args[0]) and asked is None
        here = of_self or (asked is not None and torch.device(asked).type == "cuda")
        with self.paused():
            out = func(*args, **({**kwargs, "device": torch.device("cpu")} if asked is not None else kwargs))
        if here:
            self.take(out)
            self.launch(1)
            self.wait("copy to the device")
        return out

    def _moved(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        value: torch.Tensor = args[0]
        source, kwargs = self.holds(value), dict(kwargs)
        target = kwargs.pop("device", None)
        flags = [each for each in args[1:] if isinstance(each, bool)]
        kwargs |= dict(zip(("non_blocking", "copy"), flags, strict=False))
        for each in args[1:]:
            if isinstance(each, torch.Tensor):
                target, kwargs["dtype"] = DEVICE if self.holds(each) else "cpu", each.dtype
            elif isinstance(each, torch.dtype):
                kwargs["dtype"] = each
            elif each is not None and not isinstance(each, bool):
                target = each
        if func != torch.Tensor.to:
            target, func = "cpu" if func == torch.Tensor.cpu else "cuda", torch.Tensor.to
        target = None if target is None else torch.device(target)
        if target is None or (target.type == "cuda") == source:
            return func(value, **kwargs) if kwargs else value
        blocks = not kwargs.pop("non_blocking", False)
        with self.paused():
            out = func(value, **kwargs) if kwargs else value
            out = out.clone() if out.untyped_storage()._cdata == value.untyped_storage()._cdata else out
        if target.type == "cuda":
            self.take(out)
            self.launch(1)
            if blocks:
                self.wait("copy to the device")
        else:
            self.wait("copy to the host")
        return out


class _Calls(TorchFunctionMode):
    def __init__(self, device: StandInDevice) -> None:
        super().__init__()
        self.on = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.on.call(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # which would import it, and takes seconds

    def __init__(self, device: StandInDevice) -> None:
        super().__init__()
        self.on = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.on.operation(func, args, kwargs or {})


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)


def _kind(here: bool) -> str:
    return "cuda" if here else "cpu"


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and returns[0].alias_info is not None and not returns[0].alias_info.is_write


_ROOT = str(Path(fedbench.__file__).parent) + "/"


def _where() -> str:
    """File, line and function of whoever is at work in fedbench; or else file and line, outside of torch."""
    frame, other = sys._getframe(1), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_ROOT):
            function = frame.f_code.co_qualname.partition(".<locals>")[0]
            return f"{name.removeprefix(_ROOT)}:{frame.f_lineno} {function}"
        if not other and name != __file__ and "/torch/" not in name and "contextlib" not in name:
            other = f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return other
