"""Training of a small denoiser: the loop, what it leaves after every few hundred steps, and how it goes on from there."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedbench import __version__
from fedbench.data.home import replacing
from fedbench.errors import DataError, ResultsError, UserError
from fedbench.pictures import COLORS, check_picture, save_picture
from fedbench.randomness import derive_seed, generator
from fedbench.texts import finite
from fedbench.vision.denoisers.unet import UNetSpec, predict, save, small_spec
from fedbench.vision.schedule import signal
from fedbench.vision.training_images import Folder, Pool


@dataclass(frozen=True)
class Training:
    """How a denoiser is trained; all that its weights depend on, beside the images.

    Attributes:
        size: pixels, of height and width. channels, patch: of the network, see ``small_spec``.
        steps: in all. batch: images of a step. seed: of weights, images and noise.
        t_max: steps of the schedule that it is trained for, from 1: purification never goes beyond its ``t_star``.
        synthetic_share: of images that are generated rather than the folder's.
        learning_rate: of Adam, reached after ``warmup`` steps, kept, and brought to 0 over the last ``decay`` steps by a
            half cosine. So a training can be made longer while it has not come to the last ``decay`` steps.
        ema: rate of the moving average of the weights, which is what is kept in the end; lower in the first steps.
        clip: largest norm of the gradient.
    """

    size: int = 64
    channels: tuple[int, ...] = (32, 64, 96)
    patch: int = 2
    steps: int = 7000
    batch: int = 8
    seed: int = 0
    t_max: int = 300
    synthetic_share: float = 0.4
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: int = 800
    ema: float = 0.997
    clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)} must be at least 1.")
        if not 1 <= self.t_max <= 1000:
            raise UserError(f"t_max = {self.t_max} must be from 1 to 1000.")
        if not 0 <= self.synthetic_share <= 1:
            raise UserError(f"synthetic_share = {self.synthetic_share} must be from 0 to 1.")
        if not self.learning_rate > 0:
            raise UserError(f"learning_rate = {self.learning_rate} must be above 0.")
        small_spec(self.size, self.t_max, self.channels, self.patch)  # checks the size

    @property
    def spec(self) -> UNetSpec:
        """The network's."""
        return small_spec(self.size, self.t_max, self.channels, self.patch)

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        left = (self.steps - step) / min(self.decay, self.steps) if self.decay else 1.0
        fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, left))
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup)) * fall


@dataclass(frozen=True)
class Trained:
    """Where a training stands.

    Attributes:
        step: how many are done. of: in all. loss: mean squared error of the noise, of the last step.
        seconds: spent so far, over all processes that worked on it.
    """

    step: int
    of: int
    loss: float
    seconds: float


Progress = Callable[[Trained], None]

CHECKPOINT = "checkpoint.pt"
RECORD = "training.json"


def train(
    training: Training,
    folder: Folder | None,
    out: Path,
    *,
    resume: bool = False,
    every: int = 200,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a UNet to predict the noise of pictures: the mean of ``(e - e(x_t, t))^2`` (Ho et al. 2020, eq. 14).

    ``t`` is uniform on 1..t_max. After every ``every`` steps the whole state is written to ``out``, under another name
    first; a process that was killed loses the steps since. On the CPU a training that went on has the same weights as one
    that never stopped, given the same number of threads.

    Args:
        folder: images; None: all are generated. out: a folder for checkpoint, weights, ``config.json``, record.
        resume: go on from the checkpoint in ``out``, or begin where there is none.

    Returns:
        The record, which is in ``out`` too.

    Raises:
        UserError: ``out`` has a checkpoint and ``resume`` is off; or it is of another training.
        ResultsError: ``out`` cannot be written.
    """
    state = _State(training, folder, device)
    path = out / CHECKPOINT
    if path.exists():
        if not resume:
            raise UserError(f"{path} exists: go on with --resume, or choose another folder.")
        state.load(path)
    spent, began = state.seconds, time.monotonic()
    while state.step < training.steps:
        state.advance()
        state.seconds = spent + time.monotonic() - began
        if state.step % every == 0 or state.step == training.steps:
            _writing(out, lambda: state.save(path))
        if progress is not None:
            progress(Trained(state.step, training.steps, state.losses[-1], state.seconds))
    record = state.record()

    def finish() -> None:
        average = training.spec.network()
        average.load_state_dict(state.average)
        record["weights"] = save(average, training.spec, out)
        with replacing(out / RECORD) as temporary:
            temporary.write_text(json.dumps(finite(record), indent=1, allow_nan=False) + "\n")

    _writing(out, finish)
    return record


def _writing(out: Path, write: Callable[[], None]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        raise ResultsError(f"cannot write {out}: {error.strerror or error}.") from None


class _State:
    """Everything that changes while a denoiser is trained."""

    def __init__(self, training: Training, folder: Folder | None, device: torch.device | str) -> None:
        self.training = training
        self.folder = folder
        self.device = torch.device(device)
        self.spec = training.spec
        with torch.random.fork_rng(devices=[]):  # networks draw their weights from the global stream
            torch.manual_seed(derive_seed(training.seed, "denoiser", "weights"))
            network = self.spec.network()
        self.network: torch.nn.Module = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=training.learning_rate)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.abar = torch.from_numpy(signal()).float().to(self.device)
        images = folder.images if folder is not None else []
        self.pool = Pool(images, training.size, training.synthetic_share, training.seed)
        self.step = 0
        self.losses: list[float] = []
        self.seconds = 0.0

    def advance(self) -> None:
        """One step."""
        training = self.training
        x = self.pool.batch(self.step, training.batch).to(self.device)
        draws = generator(training.seed, "denoiser", "noise", self.step)
        t = torch.randint(1, training.t_max + 1, (len(x),), generator=draws).to(self.device)
        noise = torch.randn(x.shape, generator=draws).to(self.device)
        abar = self.abar[t].view(-1, 1, 1, 1)
        found = predict(self.network, self.spec, abar.sqrt() * x + (1 - abar).sqrt() * noise, t - 1)
        loss = (found - noise).square().mean()
        for group in self.optimizer.param_groups:
            group["lr"] = training.rate(self.step)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), training.clip)
        self.optimizer.step()
        self.step += 1
        keep = min(training.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)
        self.losses.append(loss.item())
        if not math.isfinite(self.losses[-1]):
            raise UserError(f"the loss of step {self.step} is not finite: try a lower learning rate.")

    def identity(self) -> dict[str, Any]:
        """What must be equal for a training to go on."""
        values = asdict(self.training) | {"images": self.folder.fingerprint if self.folder is not None else None}
        values["channels"] = list(self.training.channels)
        return values

    def save(self, path: Path) -> None:
        content = {
            "identity": self.identity(),
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "losses": self.losses,
            "seconds": self.seconds,
        }
        with replacing(path) as temporary:
            torch.save(content, temporary)

    def load(self, path: Path) -> None:
        try:
            content = torch.load(path, map_location=self.device, weights_only=True)
            before, done = content["identity"], content["step"]
        except Exception as error:  # torch has no common error for what is no checkpoint
            raise DataError(f"{path} is no checkpoint ({type(error).__name__}); remove it to begin again.") from None
        now = self.identity()
        longer = done <= min(before["steps"], now["steps"]) - now["decay"]
        for name in now:
            if now[name] != before.get(name) and not (name == "steps" and longer):
                raise UserError(
                    f"{path} is of another training: {name} = {before.get(name)} there, {now[name]} here."
                    + (
                        f" It is past the step from which it can be made longer ({done} done)."
                        if name == "steps"
                        else ""
                    )
                )
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.average = content["average"]
        self.step, self.losses, self.seconds = done, content["losses"], content["seconds"]

    def record(self) -> dict[str, Any]:
        """What was done, as plain data."""
        return {
            **{field.name: self.identity()[field.name] for field in fields(Training)},
            "images": {
                "count": len(self.pool.images),
                "skipped": len(self.folder.skipped) if self.folder is not None else 0,
                "sha256": self.folder.fingerprint if self.folder is not None else None,
            },
            "parameters": sum(value.numel() for value in self.network.parameters()),
            "seconds": round(self.seconds, 1),
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "versions": {"fedbench": __version__, **_versions("torch", "diffusers", "numpy", "pillow")},
            "loss": curve(self.losses),
        }


def curve(losses: list[float], points: int = 100) -> list[tuple[int, float]]:
    """Means of the losses over stretches of equal length, at most ``points``, each with the step at which it ends."""
    if not losses:
        return []
    stretch = math.ceil(len(losses) / points)
    parts = [losses[start : start + stretch] for start in range(0, len(losses), stretch)]
    ends = np.cumsum([len(part) for part in parts])
    return [(int(end), round(float(np.mean(part)), 6)) for end, part in zip(ends, parts, strict=True)]


def picture_of_loss(record: dict[str, Any], path: Path) -> None:
    """Draw the loss of a record by step, on logarithmic axes; ``path`` ends in .png, .svg or .pdf."""
    check_picture(path)
    from matplotlib.figure import Figure

    steps, losses = zip(*record["loss"], strict=True)
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color=COLORS[0])
    axes.set(xlabel="step", ylabel="mean squared error of the noise", xscale="log", yscale="log")
    axes.set_title(f"Loss in training, seed {record['seed']}")
    save_picture(figure, path)


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # vendored, or not installed as a distribution
            found[name] = "unknown"
    return found
