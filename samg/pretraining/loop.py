"""The pretraining loop: seeded, resumable, on CPU or GPU, with a schedule in steps or minutes."""

from __future__ import annotations

import csv
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from common.errors import InputError, NonFiniteError
from common.files import atomic_path
from common.seeding import derive_seed
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

log = logging.getLogger(__name__)

WHOLE_FRAME = (0.0, 0.0, SIZE - 1.0, SIZE - 1.0)  # the box of an empty mask, as in the pipeline's fixed rules


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
    """

    def __init__(self, banks: Banks, schedule: Schedule, folder: Path) -> None:
        self.schedule, self.folder, self.device = schedule, folder, banks.backgrounds.device
        torch.manual_seed(derive_seed(schedule.seed, "weights"))
        self.networks = TinyNetworks().to(self.device).to(memory_format=torch.channels_last)
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
        self.divided = [number for number, two in enumerate(banks.frames.two_parts) if two]
        self.step, self.seconds = 0, 0.0
        self.resume()

    def run(self, show: Callable[[str], None] = log.info) -> None:
        """Train until the budget is spent; checkpoints and curves are written on the way."""
        last_shown = 0.0
        self.networks.train()
        while self.schedule.progress(self.step, self.seconds) < 1.0:
            start = time.perf_counter()
            metrics = self.train_step()
            self.seconds += time.perf_counter() - start
            self._record(metrics)
            if time.monotonic() - last_shown > 10:
                last_shown = time.monotonic()
                done = self.schedule.progress(self.step, self.seconds)
                values = "  ".join(f"{key} {value:.3f}" for key, value in metrics.items())
                show(f"{100 * done:5.1f} %  step {self.step}  {self.seconds / 60:.1f} min  {values}")
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
        with_decoder = progress >= self.schedule.warm or self.step % 3 == 0
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
        bf16 = torch.autocast(self.device.type, dtype=torch.bfloat16)
        with bf16:
            encoded = self.networks.encode(batch.frames)
        columns = build_columns(encoded, batch, self.divided, generator)
        targets = choose_targets(columns, batch, generator)
        loss, right = map_loss(self.networks, columns, targets, batch)
        metrics = {"map": loss.detach(), "right": right}
        if passes:
            order = torch.randperm(len(targets.row), generator=generator, device=self.device)
            targets = Targets(*(field[order[: self.schedule.decoded]] for field in targets))
            embedding = encoded.embedding[len(batch.reference_masks) :][targets.row]
            with bf16:
                decoder, iou = self._decode(embedding, columns, targets, batch, passes, generator)
            loss = loss + 2 * decoder
            metrics |= {"mask": decoder.detach(), "iou": iou}
        return loss, metrics

    def _decode(
        self,
        embedding: Tensor,
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
        losses, iou = [], embedding.new_zeros(())
        for number in range(passes):
            output = self.networks.decode(embedding, (SIZE, SIZE), points, labels, boxes, masks)
            loss, iou = mask_loss(output.logits, output.iou, wanted, targets.rival)
            losses.append(loss)
            logits = output.logits.detach().float()
            best = output.iou.argmax(1).view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE)
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
            writer = csv.DictWriter(handle, ["step", "seconds", "map", "right", "mask", "iou"])
            if fresh:
                writer.writeheader()
            writer.writerow({"step": self.step, "seconds": round(self.seconds, 2), **metrics})

    def save(self) -> None:
        """Write the checkpoint (whole or not at all)."""
        state = {
            "architecture": ARCHITECTURE,
            "schedule": json.dumps(asdict(self.schedule), sort_keys=True),
            "networks": self.networks.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        with atomic_path(self.folder / "checkpoint.pt") as temporary:
            torch.save(state, temporary)

    def resume(self) -> None:
        """Continue from the folder's checkpoint, if there is one.

        Raises:
            InputError: it is damaged, or belongs to another seed, recipe or architecture.
        """
        path = self.folder / "checkpoint.pt"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return
        hint = "Choose another output folder, or delete this one."
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise InputError(f"The checkpoint {path} cannot be read ({error}).", hint) from error
        budget = {"steps", "minutes", "save_every"}
        theirs = json.loads(state["schedule"])
        mine = asdict(self.schedule)
        other = [key for key in mine if key not in budget and theirs.get(key) != mine[key]]
        if state["architecture"] != ARCHITECTURE or other:
            raise InputError(
                f"The checkpoint {path} was made with another {(other or ['architecture'])[0]}.", hint
            )
        self.networks.load_state_dict(state["networks"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self._forget_later_rows()

    def _forget_later_rows(self) -> None:
        """Drop the curve's rows beyond the checkpoint: those steps are made again."""
        path = self.folder / "curves.csv"
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = lines[:1] + [line for line in lines[1:] if line and int(line.split(",")[0]) <= self.step]
        with atomic_path(path) as temporary:
            temporary.write_text("\n".join(kept) + "\n", encoding="utf-8")
