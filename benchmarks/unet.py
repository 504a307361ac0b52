"""A plain U-Net as a yardstick: how good are masks without prompts, reference and SAM's shape?

    python -m benchmarks.unet --minutes 6 --data runs/pretrain/data --out runs/unet

It learns from the very pictures ``tiny`` learns from. Nothing tells it what is wanted, so it marks every
domain's agent that it sees; random objects are background to it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from common.devices import resolve_device
from common.errors import ConfigError, InputError, NonFiniteError, run_script
from common.files import atomic_path, sha256_file, write_json
from common.numerics import training_autocast
from common.paths import output_path, resolve
from common.seeding import derive_seed
from common.versions import made_with
from envs.pretraining_domains import find_domains
from envs.pretraining_frames import POSE_TASKS
from samg.pretraining.banks import Amounts, prepare_banks
from samg.pretraining.composites import SIZE, Banks, Batch, Compositor
from samg.pretraining.losses import dice_loss

ARCHITECTURE = "unet-16-32-48-64"
_WIDTHS = (16, 32, 48, 64)  # of the grids 84, 42, 21 and 11
_LEARNING_RATE, _WEIGHT_DECAY, _WARM_UP = 2e-3, 0.02, 10
_CHUNK = 64  # frames that are predicted at once
_AGAIN = "Train it: python -m benchmarks.unet --minutes 6 --data DIR --out DIR"


class UNet(nn.Module):
    """Three poolings, two convolutions per grid and skips: 227,265 parameters.

    Attributes:
        record: how it was trained; empty before.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *_WIDTHS[:-1])
        self.down = nn.ModuleList(_double(a, b) for a, b in zip(inputs, _WIDTHS, strict=True))
        pairs = list(itertools.pairwise(_WIDTHS))
        self.up = nn.ModuleList(_double(fine + coarse, fine) for fine, coarse in reversed(pairs))
        self.head = nn.Conv2d(_WIDTHS[0], 1, 1)
        self.record: dict[str, Any] = {}

    def forward(self, frames: Tensor) -> Tensor:
        """Map uint8 (N, 84, 84, 3) RGB to logits (N, 84, 84) of "part of an agent"."""
        x = (frames.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for number, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2, ceil_mode=True) if number else x)
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], 1))
        logits: Tensor = self.head(x)[:, 0]
        return logits


def _double(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def targets(batch: Batch, domains: int) -> Tensor:
    """Return which pixels of a batch's frames show an agent of the domains, bool (C + K, 84, 84).

    Classes beyond the first ``domains`` are random objects, in references and composites alike.
    """
    references = batch.reference_masks[:, 0].clone()
    references[domains:] = False
    agents = (batch.classes >= 1) & (batch.classes <= domains)
    return torch.cat([references, agents])


def train(
    banks: Banks,
    steps: int = 0,
    minutes: float = 0.0,
    seed: int = 0,
    device: str | torch.device = "cpu",
    show: Callable[[str], None] = print,
    composites: int = 21,
) -> UNet:
    """Train a U-Net until the first of the budgets is spent.

    Args:
        banks: what pictures are made of.
        steps: budget in steps; 0 leaves it to ``minutes``.
        minutes: budget of stepping; 0 leaves it to ``steps``.
        seed: of weights and pictures.
        device: where to train.
        show: receives a line with the loss every ten seconds and at the end.
        composites: pictures per step beside one reference per class.

    Returns:
        The network in evaluation mode, with its ``record``.

    Raises:
        ConfigError: no budget was given.
        NonFiniteError: the loss is not finite.
    """
    if steps <= 0 and minutes <= 0:
        raise ConfigError("No budget was given.", "Give steps or minutes.")
    target = torch.device(device)
    torch.manual_seed(derive_seed(seed, "unet/weights"))
    net = UNet().to(target).train()
    moved = Banks(banks.frames.to(target), banks.backgrounds.to(target), banks.objects.to(target))
    losses: list[float] = []
    begin = shown = time.monotonic()
    for share, loss in _optimise(net, Compositor(moved, composites), steps, 60 * minutes, seed):
        losses.append(loss)
        if time.monotonic() - shown > 10 or share >= 1:
            shown, recent = time.monotonic(), losses[-10:]
            show(f"{100 * share:5.1f} %  step {len(losses)}  loss {sum(recent) / len(recent):.4f}")
    net.record = {
        "architecture": ARCHITECTURE,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "domains": list(banks.frames.domains),
        "seed": seed,
        "steps": len(losses),
        "minutes": round((time.monotonic() - begin) / 60, 2),
        "composites": composites,
        "first_loss": round(losses[0], 4),
        "last_loss": round(float(np.mean(losses[-10:])), 4),
        "device": target.type,
        **made_with(("torch", "numpy", "safetensors")),
    }
    return net.eval()


def _optimise(
    net: UNet, compositor: Compositor, steps: int, seconds: float, seed: int
) -> Iterator[tuple[float, float]]:
    """Take steps until a budget is spent; yield its spent share and the loss after each."""
    matrices = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in net.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": _WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=_LEARNING_RATE)
    step, share, begin = 0, 0.0, time.perf_counter()
    while share < 1:
        for group in optimiser.param_groups:
            group["lr"] = _LEARNING_RATE * min(1.0, (step + 1) / _WARM_UP) * (1 - share)
        generator = Generator(compositor.device).manual_seed(derive_seed(seed, "unet/step", step))
        batch = compositor.batch(generator)
        wanted = targets(batch, compositor.domains).float()
        with training_autocast(compositor.device):
            logits = net(batch.frames)
        logits = logits.float()
        entropy = F.binary_cross_entropy_with_logits(logits, wanted)
        # Dice over the whole batch: a reference of a random object shows no agent at all.
        loss = entropy + dice_loss(logits.reshape(1, -1, SIZE), wanted.reshape(1, -1, SIZE)).mean()
        if not math.isfinite(float(loss.detach())):
            raise NonFiniteError(f"The loss of step {step} is not finite.", "Try another seed.")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        step += 1
        spent = [step / steps] if steps > 0 else []
        spent += [(time.perf_counter() - begin) / seconds] if seconds > 0 else []
        share = min(1.0, max(spent))
        yield share, float(loss.detach())


def predict(net: UNet, frames: np.ndarray) -> np.ndarray:
    """Return the masks, bool (N, 84, 84), of frames uint8 (N, 84, 84, 3), in full precision."""
    if frames.dtype != np.uint8 or frames.shape[1:] != (SIZE, SIZE, 3):
        raise ValueError(f"frames are {frames.dtype} {frames.shape}, expected uint8 (N, {SIZE}, {SIZE}, 3)")
    device = net.head.weight.device
    masks = [np.zeros((0, SIZE, SIZE), bool)]
    with torch.inference_mode():
        for chunk in torch.from_numpy(frames).split(_CHUNK):
            if len(chunk):
                masks.append((net(chunk.to(device)) > 0).cpu().numpy())
    return np.concatenate(masks)


def save_unet(net: UNet, path: Path) -> dict[str, Any]:
    """Write weights and record (safetensors), and the record with the file's hash beside it (JSON)."""
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"record": json.dumps(net.record, sort_keys=True)})
    record = {**net.record, "sha256": sha256_file(path), "bytes": path.stat().st_size}
    write_json(path.with_suffix(".json"), record)
    return record


def load_unet(path: str | Path, device: str | torch.device = "cpu") -> UNet:
    """Read what ``save_unet`` wrote; the network comes in evaluation mode, with its ``record``.

    Raises:
        InputError: the file is missing, damaged, or holds other weights.
    """
    found = resolve(path)
    try:
        with safe_open(found, framework="pt") as archive:
            record = json.loads((archive.metadata() or {}).get("record", "{}"))
            state = {name: archive.get_tensor(name) for name in archive.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"The U-Net {found} cannot be read ({error}).", _AGAIN) from error
    if not isinstance(record, dict) or record.get("architecture") != ARCHITECTURE:
        raise InputError(f"{found} does not hold weights of {ARCHITECTURE}.", _AGAIN)
    net = UNet()
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"The weights in {found} do not fit {ARCHITECTURE}.", _AGAIN) from error
    net.record = record
    return net.to(device).eval()


def parse() -> argparse.Namespace:
    """Read the command line."""
    amounts = Amounts()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=0.0, help="budget of training time (0: --steps decides)")
    add("--steps", type=int, default=0, help="budget in steps (0: --minutes decides)")
    add("--data", default="runs/pretrain/data", help="pretrain.py's data folder; what it lacks is made")
    add("--out", default="runs/unet", help="folder for unet.safetensors and unet.json")
    add("--seed", type=int, default=0, help="of weights and pictures")
    add("--data-seed", type=int, default=0, help="the --seed of pretrain.py that made the data")
    add("--frames", type=int, default=amounts.frames, help="frames per domain")
    add("--backgrounds", type=int, default=amounts.backgrounds, help="background pictures")
    add("--objects", type=int, default=amounts.objects, help="random objects")
    add("--composites", type=int, default=21, help="pictures per step")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--threads", type=int, default=0, help="CPU threads (0: PyTorch's default)")
    chosen = parser.parse_args()
    if chosen.minutes <= 0 and chosen.steps <= 0:
        raise ConfigError("No budget was given.", "Pass --minutes M, or --steps N.")
    return chosen


def main() -> None:
    """Read or make the data, train, save."""
    chosen = parse()
    device = resolve_device(chosen.device, chosen.threads)
    amounts = Amounts(chosen.frames, chosen.backgrounds, chosen.objects)
    banks = prepare_banks(find_domains(list(POSE_TASKS)), output_path(chosen.data), amounts, chosen.data_seed)
    net = train(
        banks,
        chosen.steps,
        chosen.minutes,
        chosen.seed,
        device,
        lambda line: print(line, flush=True),
        chosen.composites,
    )
    path = output_path(chosen.out) / "unet.safetensors"
    record = save_unet(net, path)
    print(f"{path}: {record['parameters']} parameters, {record['steps']} steps, sha256 {record['sha256']}")


if __name__ == "__main__":
    run_script(main)
