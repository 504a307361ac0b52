"""The pretraining loop: seeded, resumable, on CPU or GPU, with a schedule in steps or minutes."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from common.checkpoints import read_checkpoint
from common.errors import NonFiniteError
from common.files import atomic_path, sweep_stages
from common.numerics import training_autocast
from common.seeding import derive_seed
from common.stopping import StopSignal
from samg.pretraining.banks import describe
from samg.pretraining.composites import Banks, Batch, Compositor
from samg.pretraining.losses import (
    Columns,
    Targets,
    build_columns,
    choose_targets,
    first_prompts,
    map_loss,
    mask_loss,
    nothing_prompts,
)
from samg.prompts import box_windows, lowest_points, mask_boxes
from samg.tiny import ARCHITECTURE, TinyNetworks
from samg.tiny_modules import SIZE

WHOLE_FRAME = (0.0, 0.0, SIZE - 1.0, SIZE - 1.0)  # the box of an empty mask, as in the pipeline's fixed rules
CHECKPOINT = "checkpoint.pt"
COLUMNS = ("step", "seconds", "map", "right", "mask", "iou")  # of curves.csv
_BUDGET = ("steps", "minutes", "save_every")  # a run may go on with others


@dataclass(frozen=True)
class Schedule:
    """What training costs and how it is shaped.

    Attributes:
        steps: stop after so many; 0 leaves it to ``minutes``.
        minutes: stop after so many minutes of stepping, all resumed parts together; 0 leaves it to ``steps``.
        composites: pictures per step beside one reference per class.
        decoded: targets per step that the decoder is trained on, of two per picture.
        learning_rate: peak; a short warm-up, then linear to zero over the budget.
        weight_decay: of AdamW.
        warm: share of the budget in which the decoder is trained every third step only.
        save_every: steps between checkpoints.
        seed: of weights and pictures.
        start: SHA-256 of the weights file that training starts from; empty for fresh weights. The decoder,
            which then knows what it is asked for, is trained in every step.
    """

    steps: int = 0
    minutes: float = 0.0
    composites: int = 21
    decoded: int = 24
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warm: float = 0.3
    save_every: int = 50
    seed: int = 0
    start: str = ""

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of the budget that is spent, in [0, 1]."""
        shares = [step / self.steps] if self.steps else []
        shares += [seconds / (60 * self.minutes)] if self.minutes else []
        return min(1.0, max(shares))


class Trainer:
    """Networks, optimiser and position in the schedule.

    Args:
        banks: what pictures are made of, on the training device.
        schedule: the budget.
        folder: receives ``checkpoint.pt`` and ``curves.csv``; a checkpoint found there is resumed.
        weights: of the networks at the start (``samg.tiny.read_tiny_state``); None draws them.
    """

    def __init__(
        self, banks: Banks, schedule: Schedule, folder: Path, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        self.schedule, self.folder, self.device = schedule, folder, banks.backgrounds.device
        torch.manual_seed(derive_seed(schedule.seed, "weights"))
        self.networks = TinyNetworks()
        if weights is not None:
            self.networks.load_state_dict(weights)
        self.networks = self.networks.to(self.device).to(memory_format=torch.channels_last)
        decayed = [p for p in self.networks.parameters() if p.ndim > 1]
        others = [p for p in self.networks.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": schedule.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=schedule.learning_rate,
        )
        self.compositor = Compositor(banks, schedule.composites)
        self.data = describe(banks)
        self.divided = [number for number, two in enumerate(banks.frames.two_parts) if two]
        self.step, self.seconds = 0, 0.0
        self.resume()

    def run(self, show: Callable[[float, str], None] | None = None, stop: StopSignal | None = None) -> None:
        """Train until the budget is spent; checkpoints and curves are written on the way.

        Args:
            show: is told after every step which share of the budget is spent, and the losses.
            stop: signals that end training after a step; what was done is saved.

        Raises:
            Stopped: a signal came.
        """
        stop = stop or StopSignal()
        self.networks.train()
        with stop.deferred():
            while self.schedule.progress(self.step, self.seconds) < 1.0 and stop.number is None:
                start = time.perf_counter()
                metrics = self.train_step()
                self.seconds += time.perf_counter() - start
                self._record(metrics)
                if show is not None:
                    values = "  ".join(f"{key} {value:.3f}" for key, value in metrics.items())
                    note = f"step {self.step}  {self.seconds / 60:.1f} min  {values}"
                    show(self.schedule.progress(self.step, self.seconds), note)
                if self.step % self.schedule.save_every == 0:
                    self.save()
            self.save()

    def train_step(self) -> dict[str, float]:
        """Do one step and return its losses."""
        progress = self.schedule.progress(self.step, self.seconds)
        warm_up = min(1.0, (self.step + 1) / 50)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.learning_rate * warm_up * (1 - 0.995 * progress)
        generator = Generator(self.device).manual_seed(derive_seed(self.schedule.seed, "step", self.step))
        batch = self.compositor.batch(generator)
        warm = 0.0 if self.schedule.start else self.schedule.warm
        with_decoder = progress >= warm or self.step % 3 == 0
        draw = torch.rand((), generator=generator, device=self.device).item()
        passes = (1 if draw < 0.45 else 2 if draw < 0.82 else 3) if with_decoder else 0
        self.optimiser.zero_grad(set_to_none=True)
        loss, metrics = self._losses(batch, passes, generator)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 5.0)
        if not math.isfinite(float(norm)):
            raise NonFiniteError(
                f"The gradient of pretraining step {self.step} is not finite.", "Lower the learning rate."
            )
        self.optimiser.step()
        self.step += 1
        return {key: float(value) for key, value in metrics.items()}

    def _losses(self, batch: Batch, passes: int, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        half = training_autocast(self.device)
        with half:
            maps, parts = self.networks.encode_parts(batch.frames)
        columns = build_columns(maps, batch, self.divided, generator)
        targets = choose_targets(columns, batch, generator)
        loss, right = map_loss(self.networks, columns, targets, batch)
        metrics = {"map": loss.detach(), "right": right}
        if passes:
            order = torch.randperm(len(targets.row), generator=generator, device=self.device)
            targets = Targets(*(field[order[: self.schedule.decoded]] for field in targets))
            chosen = len(batch.reference_masks) + targets.row
            parts = [part.index_select(0, chosen) for part in parts]
            with half:
                decoder, iou = self._decode(parts, columns, targets, batch, passes, generator)
            loss = loss + 2 * decoder
            metrics |= {"mask": decoder.detach(), "iou": iou}
        return loss, metrics

    def _decode(
        self,
        parts: list[Tensor],
        columns: Columns,
        targets: Targets,
        batch: Batch,
        passes: int,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """Decode one to three passes as the pipeline does; returns the mean loss and the last pass's IoU."""
        points, labels = first_prompts(columns, targets, generator)
        points, labels, wanted = nothing_prompts(targets, batch.classes, points, labels, generator)
        average = targets.average.detach()
        draw = torch.rand(2, generator=generator, device=self.device).tolist()
        masks = None
        if draw[0] < 0.1:  # the named option: the map as mask prompt of the first pass
            masks = (10 * (average - 0.5)).unsqueeze(1)
        boxes = None
        if draw[1] < 0.06:
            boxes, _ = mask_boxes(wanted, WHOLE_FRAME)
        losses, iou = [], average.new_zeros(())
        for number in range(passes):
            logits, guess = self.networks.decode_parts(parts, points, labels, boxes, masks)
            loss, iou = mask_loss(logits, guess, wanted, targets.rival)
            losses.append(loss)
            logits = logits.detach().float()
            best = guess.argmax(1).view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE)
            masks = logits.mean(1, True) if number == 0 else logits.gather(1, best)
            boxes, _ = mask_boxes(masks[:, 0] > 0, WHOLE_FRAME)
            negative = lowest_points(average, box_windows(boxes, (SIZE, SIZE), end_inside=True))
            points = torch.cat([points, negative.unsqueeze(1)], 1)
            # The boxed worst pixel may lie in the object itself where the box is full of it.
            labels = torch.cat([labels, torch.zeros_like(labels[:, :1])], 1)
        return torch.stack(losses).mean(), iou

    def _record(self, metrics: dict[str, float]) -> None:
        path = self.folder / "curves.csv"
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, COLUMNS)
            if fresh:
                writer.writeheader()
            writer.writerow({"step": self.step, "seconds": round(self.seconds, 2), **metrics})

    def save(self) -> None:
        """Write the checkpoint (whole or not at all)."""
        state = {
            "architecture": ARCHITECTURE,
            "schedule": json.dumps(asdict(self.schedule), sort_keys=True),
            "data": json.dumps(self.data, sort_keys=True),
            "networks": self.networks.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        with atomic_path(self.folder / CHECKPOINT) as temporary:
            torch.save(state, temporary)

    def resume(self) -> None:
        """Continue from the folder's checkpoint, if there is one; see ``load_checkpoint`` for errors."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep_stages(self.folder)
        state = load_checkpoint(self.folder, self.schedule, self.data, self.device)
        if state is None:
            return
        self.networks.load_state_dict(state["networks"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self._forget_later_rows()

    def _forget_later_rows(self) -> None:
        """Drop the curve's rows beyond the checkpoint (those steps are made again) and torn ones."""
        path = self.folder / "curves.csv"
        if not path.exists():
            return
        header, *rows = path.read_text(encoding="utf-8").splitlines() or [""]
        cells = [row.split(",") for row in rows]
        whole = [c for c in cells if len(c) == len(COLUMNS) and c[0].isdigit() and int(c[0]) <= self.step]
        with atomic_path(path) as temporary:
            temporary.write_text("\n".join([header, *map(",".join, whole)]) + "\n", encoding="utf-8")


def load_checkpoint(
    folder: Path, schedule: Schedule, data: Mapping[str, Any], device: torch.device
) -> dict[str, Any] | None:
    """Read the checkpoint in ``folder``, if there is one and it may be continued.

    Args:
        folder: of the run.
        schedule: must be the checkpoint's own but for the budget.
        data: what ``describe`` says of the banks; must be the checkpoint's own, too.
        device: where tensors go.

    Raises:
        InputError: it is damaged, or belongs to another seed, recipe, data or architecture.
    """

    def theirs(state: dict[str, Any]) -> dict[str, Any]:
        # Earlier versions noted neither the data nor where they started from.
        their_data = json.loads(state["data"]) if "data" in state else data
        own = {"architecture": state["architecture"], "start": "", **json.loads(state["schedule"])}
        return {**own, **their_data}

    mine = {"architecture": ARCHITECTURE, **asdict(schedule), **data}
    return read_checkpoint(folder / CHECKPOINT, device, mine, theirs, _BUDGET)
