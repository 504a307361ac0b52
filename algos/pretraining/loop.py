"""Training the encoder on classes of pictures: seeded, resumable within an epoch, on CPU or GPU."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algos.pretraining.batches import Batches
from algos.pretraining.images import ImageFolder
from algos.resnet6 import MEAN, STD, WIDTHS, resnet6
from common.checkpoints import read_checkpoint
from common.errors import NonFiniteError
from common.files import atomic_path, sweep_stages, write_json
from common.seeding import derive_seed
from common.stopping import StopSignal

CHECKPOINT, ACCURACY = "checkpoint.pt", "accuracy.json"
_BUDGET = ("epochs", "save_every")  # a run may go on with others
_TOP = 5
Show = Callable[[float, str], None]


@dataclass(frozen=True)
class Recipe:
    """How the encoder is trained; defaults are VRL3's (stage 1).

    Attributes:
        epochs: how often every picture is seen.
        batch_size: pictures per step.
        learning_rate: of SGD at first.
        decay_every: epochs after which it is divided by ten.
        momentum: of SGD.
        weight_decay: of SGD.
        size: pixels of a side.
        save_every: steps between checkpoints; one is written after every epoch, too.
        seed: of weights, orders, crops and what is held out.
    """

    epochs: int = 90
    batch_size: int = 256
    learning_rate: float = 0.1
    decay_every: int = 30
    momentum: float = 0.9
    weight_decay: float = 1e-4
    size: int = 84
    save_every: int = 1000
    seed: int = 0


class EncoderTrainer:
    """Network, optimiser and place in the schedule.

    Args:
        images: classes and pictures.
        recipe: how to train.
        batches: reads the pictures.
        folder: receives ``checkpoint.pt`` and ``accuracy.json``; a checkpoint found there is continued.
        device: where the network lives.

    Attributes:
        network: ``features``, a ``resnet6``, and ``classes``, the layer that only this stage has.
        epoch: whole epochs done, measured ones.
        batch: batches of the running epoch that are done.
        curve: a row for every epoch; shares in [0, 1].
    """

    def __init__(
        self, images: ImageFolder, recipe: Recipe, batches: Batches, folder: Path, device: torch.device
    ) -> None:
        self.images, self.recipe, self.batches = images, recipe, batches
        self.folder, self.device, self.data = folder, device, images.describe()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(recipe.seed, "encoder/weights"))
            self.network = nn.ModuleDict(
                {"features": resnet6(), "classes": nn.Linear(WIDTHS[-1], len(images.classes))}
            )
        self.network.to(device).to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.SGD(
            self.network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
        )
        self.mean, self.std = (torch.tensor(value, device=device).view(3, 1, 1) for value in (MEAN, STD))
        self.epoch = self.batch = 0
        self.sums = {"loss": 0.0, "right": 0.0, "seen": 0.0}  # of the running epoch
        self.curve: list[dict[str, float]] = []
        self._resume()

    def run(self, show: Show, stop: StopSignal) -> None:
        """Train until the last epoch; checkpoint and curve are written on the way.

        Args:
            show: is told the share of the steps that are done, and how it goes.
            stop: a signal ends training after a step; what was done is saved.

        Raises:
            Stopped: a signal came.
            NonFiniteError: the loss is none.
            InputError: a picture has vanished.
        """
        with stop.deferred():
            while self.epoch < self.recipe.epochs and stop.number is None:
                self._train_epoch(show, stop)
                if self.batch == self.batches.count(self.images.train):
                    self._finish_epoch(stop)
            self._save()

    def _train_epoch(self, show: Show, stop: StopSignal) -> None:
        recipe, steps = self.recipe, self.batches.count(self.images.train)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.learning_rate * 0.1 ** (self.epoch // recipe.decay_every)
        self.network.train()
        for images, labels in self.batches.training(self.images.train, self.epoch, self.batch):
            self._step(images, labels)
            self.batch += 1
            done = (self.epoch * steps + self.batch) / (recipe.epochs * steps)
            show(done, f"epoch {self.epoch + 1}  batch {self.batch} of {steps}  {self._so_far()}")
            if self.batch % recipe.save_every == 0:
                self._save()
            if stop.number is not None:
                return

    def _step(self, images: Tensor, labels: Tensor) -> None:
        labels = labels.to(self.device)
        scores = self._scores(images)
        loss = F.cross_entropy(scores, labels)
        hits = (scores.detach().argmax(1) == labels).sum()
        value, right = torch.stack([loss.detach().double(), hits.double()]).tolist()  # waits once
        if not math.isfinite(value):
            raise NonFiniteError(
                f"The loss of epoch {self.epoch + 1}, batch {self.batch + 1} is {value}.",
                "Lower --learning-rate, in another folder.",
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.sums["loss"] += value * len(labels)
        self.sums["right"] += right
        self.sums["seen"] += len(labels)

    def _scores(self, images: Tensor) -> Tensor:
        """Return float32 (B, classes) of uint8 (B, 3, S, S)."""
        colours = images.to(self.device, memory_format=torch.channels_last) / 255
        return self.network["classes"](self.network["features"]((colours - self.mean) / self.std))

    def _so_far(self) -> str:
        loss, right = (self.sums[key] / self.sums["seen"] for key in ("loss", "right"))
        return f"loss {loss:.3f}  accuracy {right:.3f}"

    def _finish_epoch(self, stop: StopSignal) -> None:
        """Measure and begin the next epoch; a signal leaves the measurement to the next start."""
        measured = self.validate(stop)
        if measured is None:
            return
        seen = self.sums["seen"]
        row = {
            "epoch": self.epoch + 1,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "train_loss": self.sums["loss"] / seen,
            "train_accuracy": self.sums["right"] / seen,
            **measured,
        }
        self.curve.append(row)
        self.epoch, self.batch = self.epoch + 1, 0
        self.sums = dict.fromkeys(self.sums, 0.0)
        self._save()

    @torch.inference_mode()
    def validate(self, stop: StopSignal) -> dict[str, float] | None:
        """Return ``val_accuracy``, and ``val_top5`` where there are more classes; None after a signal."""
        self.network.eval()
        right = torch.zeros(2)
        for images, labels in self.batches.validation(self.images.val):
            if stop.number is not None:
                return None
            count = min(_TOP, len(self.images.classes))
            best = self._scores(images).topk(count, dim=1).indices.cpu()
            hits = best == labels.unsqueeze(1)
            right += torch.tensor([hits[:, :1].sum(), hits.sum()])
        first, top = (right / len(self.images.val)).tolist()
        return {"val_accuracy": first, **({"val_top5": top} if len(self.images.classes) > _TOP else {})}

    def _save(self) -> None:
        """Write curve and checkpoint, each whole or not at all."""
        if self.curve:
            record = {"recipe": asdict(self.recipe), "data": self.data, "curve": self.curve}
            write_json(self.folder / ACCURACY, {**self.curve[-1], **record})
        state = {
            "recipe": json.dumps(asdict(self.recipe)),
            "data": json.dumps(self.data),
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "place": {"epoch": self.epoch, "batch": self.batch, **self.sums},
            "curve": self.curve,
        }
        with atomic_path(self.folder / CHECKPOINT) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep_stages(self.folder)
        state = load_checkpoint(self.folder, self.recipe, self.data)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        place = dict(state["place"])
        self.epoch, self.batch = int(place.pop("epoch")), int(place.pop("batch"))
        self.sums, self.curve = place, list(state["curve"])


def load_checkpoint(folder: Path, recipe: Recipe, data: dict[str, Any]) -> dict[str, Any] | None:
    """Read the checkpoint in ``folder``, if there is one and it may be continued.

    Args:
        folder: of the run.
        recipe: must be the checkpoint's own but for the budget.
        data: of ``ImageFolder.describe``; must be the checkpoint's own, too.

    Raises:
        InputError: it is damaged, or was made with another recipe or other pictures.
    """

    def theirs(state: dict[str, Any]) -> dict[str, Any]:
        return {**json.loads(state["recipe"]), **json.loads(state["data"])}

    return read_checkpoint(folder / CHECKPOINT, "cpu", {**asdict(recipe), **data}, theirs, _BUDGET)
