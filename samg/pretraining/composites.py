"""Training pictures, composed in one vectorised go on any device: several labelled objects per frame.

Classes 0 to D - 1 are the domains (those with the same robot are one class and take turns), D and D + 1 two
random objects that change with every step. A batch holds one reference per class and K composites. The
reference alone says which object is wanted, so every object's visible pixels are labelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from samg.pretraining.data import FLOOR, OTHER, PART, FrameBank

SIZE = 84
RANDOM_OBJECTS = 2
CLEAN, RECOLOURED, KEYED = 0, 1, 2  # paints of the bank


class Batch(NamedTuple):
    """One step's pictures.

    Attributes:
        frames: uint8 (C + K, 84, 84, 3): C references, then K composites.
        reference_masks: bool (C, 3, 84, 84): whole object, first part, second part.
        classes: int64 (K, 84, 84): 0 nothing, 1 + c where class c is visible.
        second: bool (K, 84, 84): pixels that show the second part of their object.
        own: int64 (K,), the class the composite was built around.
        rival: int64 (K,), the first rival's class.
    """

    frames: Tensor
    reference_masks: Tensor
    classes: Tensor
    second: Tensor
    own: Tensor
    rival: Tensor


@dataclass(frozen=True)
class Banks:
    """Everything that pictures are made of, on one device.

    Attributes:
        frames: agents with exact labels.
        backgrounds: uint8 (B, 112, 112, 3).
        objects: uint8 (O, V, 84, 84, 4), V views of each random object.
    """

    frames: FrameBank
    backgrounds: Tensor
    objects: Tensor

    @property
    def classes(self) -> int:
        """Number of classes in a batch."""
        return len(self.frames.slots) + RANDOM_OBJECTS


class _Layers(NamedTuple):
    """Cut-outs: rgb float (N, 3, 84, 84) in [0, 255], alpha and second-part share (N, 1, 84, 84)."""

    rgb: Tensor
    alpha: Tensor
    second: Tensor


class Compositor:
    """Draws batches; batch ``i`` is a function of the generator it is given.

    Args:
        banks: what to draw from.
        composites: K, per batch.
    """

    def __init__(self, banks: Banks, composites: int) -> None:
        self.banks, self.composites = banks, composites
        self.device, slots = banks.backgrounds.device, banks.frames.slots
        self.domains = len(slots)
        self._slots = [torch.tensor(slot, device=self.device) for slot in slots]
        self._starts = torch.tensor(banks.frames.starts, device=self.device)
        # A class of several domains is a composite's own as often as all of them.
        turns = [number for number, slot in enumerate(slots) for _ in slot]
        self._turns = torch.tensor(turns, device=self.device)

    def batch(self, generator: Generator) -> Batch:
        """Draw one batch with ``generator`` (of the banks' device)."""
        drawn = [
            torch.randint(len(slot), (1,), generator=generator, device=self.device) if len(slot) > 1 else 0
            for slot in self._slots
        ]
        members = torch.cat([slot[turn].view(1) for slot, turn in zip(self._slots, drawn, strict=True)])
        low, high = self._starts[members], self._starts[members + 1]
        return _Drawing(self.banks, self.composites, low, high, self._turns).batch(generator)


class _Drawing:
    """Draws one batch in which every class is one of its domains.

    Args:
        banks: what to draw from.
        composites: K.
        low: int64 (D,), where the frames of each class's domain begin.
        high: int64 (D,), where they end.
        turns: int64, the classes in the order in which composites are built around them.
    """

    def __init__(self, banks: Banks, composites: int, low: Tensor, high: Tensor, turns: Tensor) -> None:
        self.banks, self.composites = banks, composites
        self.device, self.domains = banks.backgrounds.device, len(low)
        self.low, self.high, self.turns = low, high, turns

    def batch(self, generator: Generator) -> Batch:
        """Draw it."""
        g = generator
        objects = torch.randint(len(self.banks.objects), (RANDOM_OBJECTS,), generator=g, device=self.device)
        references, reference_masks = self._references(objects, g)
        frames, classes, second, own, rival = self._composites(objects, g)
        stacked = torch.cat([references, frames]).clamp(0, 255).round().to(torch.uint8)
        return Batch(stacked.permute(0, 2, 3, 1).contiguous(), reference_masks, classes, second, own, rival)

    def _uniform(self, g: Generator, *shape: int) -> Tensor:
        return torch.rand(shape, generator=g, device=self.device)

    def _frame_index(self, classes: Tensor, g: Generator) -> Tensor:
        """Draw a frame of each class in ``classes`` (N,); random objects get some frame, to be replaced."""
        domain = classes.clamp(max=self.domains - 1)
        low, high = self.low[domain], self.high[domain]
        drawn = low + (self._uniform(g, len(classes)) * (high - low)).long()
        return torch.minimum(drawn, high - 1)

    def _references(self, objects: Tensor, g: Generator) -> tuple[Tensor, Tensor]:
        """Return rgb (C, 3, 84, 84) and masks bool (C, 3, 84, 84): clean frames, and random objects."""
        bank = self.banks.frames
        domain = torch.arange(self.domains, device=self.device)
        index = self._frame_index(domain, g)
        rgb = bank.paints[index, CLEAN].permute(0, 3, 1, 2).float()
        jittered = _jitter(rgb, self._uniform(g, self.domains, 9), 0.25)
        rgb = torch.where(self._uniform(g, self.domains, 1, 1, 1) < 0.15, jittered, rgb)
        labels = bank.labels[index]
        first, second = labels == PART, labels == PART + 1
        cut = self._object_layers(objects, g)
        scenes = self._backgrounds(RANDOM_OBJECTS, g)
        alpha = cut.alpha
        rgb = torch.cat([rgb, scenes * (1 - alpha) + cut.rgb * alpha])
        solid = alpha[:, 0] > 0.5
        first = torch.cat([first, solid])
        second = torch.cat([second, torch.zeros_like(solid)])
        return rgb, torch.stack([first | second, first, second], 1)

    def _backgrounds(self, count: int, g: Generator) -> Tensor:
        """Draw scenes, float (count, 3, 84, 84): crops, flips, colour casts, a third of them two in one."""
        bank = self.banks.backgrounds
        index = torch.randint(len(bank), (2, count), generator=g, device=self.device)
        pair = bank[index.flatten()].permute(0, 3, 1, 2).float()
        u = self._uniform(g, 2 * count, 4)
        zoom = 0.55 + 0.45 * u[:, 0]
        flip = torch.where(u[:, 1] < 0.5, -1.0, 1.0)
        shift = (2 * u[:, 2:] - 1) * (1 - zoom)[:, None]
        pair = _sample(pair, zoom * flip, zoom, shift)
        first, other = pair[:count], pair[count:]
        soft = F.interpolate(self._uniform(g, count, 1, 5, 5), size=SIZE, mode="bicubic")
        u = self._uniform(g, count, 8, 1, 1, 1)
        share = torch.where(u[:, 0] < 0.5, torch.sigmoid(25 * (soft - 0.55)), 0.6 * u[:, 1])
        scene = torch.where(u[:, 2] < 0.35, first * (1 - share) + other * share, first)
        grey = scene.mean(1, keepdim=True)
        cast = 1 + 0.3 * (self._uniform(g, count, 3, 1, 1) - 0.5)
        scene = torch.where(u[:, 3] < 0.35, (0.4 * scene + 0.6 * grey) * cast, scene)
        tan = torch.tensor([1.25, 0.95, 0.6], device=self.device).view(1, 3, 1, 1)  # the agents' own tan
        scene = torch.where(u[:, 4] < 0.2, grey * (1 - 0.6 * u[:, 5]) * tan + 0.4 * scene * u[:, 5], scene)
        return ((scene - 128) * (0.6 + 0.7 * u[:, 6]) + 128 + 60 * (u[:, 7] - 0.5)).clamp(0, 255)

    def _object_layers(self, objects: Tensor, g: Generator) -> _Layers:
        view = torch.randint(self.banks.objects.shape[1], (len(objects),), generator=g, device=self.device)
        cut = self.banks.objects[objects, view].permute(0, 3, 1, 2).float()
        alpha = cut[:, 3:] / 255
        return _Layers(cut[:, :3], alpha, torch.zeros_like(alpha))

    def _agent_layers(self, index: Tensor, paint: Tensor) -> _Layers:
        bank = self.banks.frames
        rgb = bank.paints[index, paint].permute(0, 3, 1, 2).float()
        labels = bank.labels[index][:, None]
        shown = (labels >= PART) & (labels < OTHER)
        return _Layers(rgb, shown.float(), (labels == PART + 1).float())

    def _rivals(self, classes: Tensor, objects: Tensor, g: Generator) -> _Layers:
        """Cut out an object of each class in ``classes`` (N,), moved, zoomed and recoloured."""
        n = len(classes)
        paint = (self._uniform(g, n, 1) > torch.tensor([0.55, 0.8], device=self.device)).sum(1)
        agents = self._agent_layers(self._frame_index(classes, g), paint)
        random = self._object_layers(objects[(classes - self.domains).clamp(min=0)], g)
        is_object = (classes >= self.domains).view(-1, 1, 1, 1)
        layers = [torch.where(is_object, b, a) for a, b in zip(agents, random, strict=True)]
        u = self._uniform(g, n, 5)
        moved = (u[:, :1] < 0.6).float()
        zoom = torch.where(u[:, 1] < 0.5, 0.85 + 0.3 * u[:, 2], 1.0)
        shift = moved * (2 * u[:, 3:] - 1) * (24 / 42)
        stacked = torch.cat([layers[0] * layers[1], layers[1], layers[2]], 1)
        placed = _sample(stacked, zoom, zoom, shift, zeros=True)
        alpha = placed[:, 3:4]
        return _Layers(placed[:, :3] / alpha.clamp(min=1e-3), alpha, placed[:, 4:])

    def _composites(self, objects: Tensor, g: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        k, device, bank = self.composites, self.device, self.banks.frames
        turns = self.turns
        first = torch.randint(len(turns), (1,), generator=g, device=device)
        own = turns[(torch.arange(k, device=device) + first) % len(turns)]
        u = self._uniform(g, k, 6)
        modes = torch.tensor([0.28, 0.48, 0.88], device=device)  # clean, recoloured, sky and floor, sky alone
        mode = (u[:, :1] > modes).sum(1)
        video = mode >= 2
        keyed_paint = torch.where(u[:, 1] < 0.45, KEYED, torch.where(u[:, 2] < 0.3, RECOLOURED, CLEAN))
        paint = torch.where(video, keyed_paint, mode)
        index = self._frame_index(own, g)
        frame = bank.paints[index, paint].permute(0, 3, 1, 2).float()
        labels = bank.labels[index][:, None]
        alone = (mode == 3).view(-1, 1, 1, 1)
        exact = (labels < FLOOR) | ((labels == FLOOR) & ~alone)
        chroma = bank.key_mask[index][:, None] & ~(alone & (labels == FLOOR))
        use_key = ((paint == KEYED) & (u[:, 3] < 0.7)).view(-1, 1, 1, 1)
        # Sky-only scenes keep a floor, which a key colour would have painted over: they use the true colours.
        floorless = alone & (paint == KEYED).view(-1, 1, 1, 1)
        frame = torch.where(floorless, bank.paints[index, CLEAN].permute(0, 3, 1, 2).float(), frame)
        replaced = torch.where(use_key & ~floorless, chroma, exact) & video.view(-1, 1, 1, 1)
        # Colours of agent and scenery: mostly near the truth in video scenes, else jittered.
        strength = torch.where(u[:, 4] < 0.55, 0.08, torch.where(u[:, 5] < 0.6, 0.35, 0.9))
        strength = strength * (mode > 0)
        frame = _jitter(frame, self._uniform(g, k, 9), strength.view(-1, 1, 1))
        shown = ((labels >= PART) & (labels < OTHER)).float()
        base = _Layers(frame, shown * (~replaced).float(), (labels == PART + 1).float())
        keep = (~replaced).float()
        base, keep, truth = self._move_base(base, keep, shown, video, g)
        canvas = self._backgrounds(k, g) * (1 - keep) + base.rgb * keep
        return self._paint(canvas, base, truth, own, objects, mode, g)

    def _move_base(
        self, base: _Layers, keep: Tensor, shown: Tensor, video: Tensor, g: Generator
    ) -> tuple[_Layers, Tensor, Tensor]:
        """Shift and zoom what is left of the frame in half of the video scenes (the edges become soft)."""
        k = len(keep)
        u = self._uniform(g, k, 4)
        active = (video & (u[:, 0] < 0.5)).float()
        zoom = 1 + active * (0.92 + 0.2 * u[:, 1] - 1)
        shift = active[:, None] * (2 * u[:, 2:] - 1) * (6 / 42)
        stacked = torch.cat([base.rgb * keep, keep, base.alpha, base.second, shown], 1)
        moved = _sample(stacked, zoom, zoom, shift, zeros=True)
        moved = torch.where(active.view(-1, 1, 1, 1) > 0, moved, stacked)
        kept = moved[:, 3:4]
        rgb = moved[:, :3] / kept.clamp(min=1e-3)
        return _Layers(rgb, moved[:, 4:5], moved[:, 5:6]), kept, moved[:, 6:7]

    def _paint(
        self,
        canvas: Tensor,
        base: _Layers,
        truth: Tensor,
        own: Tensor,
        objects: Tensor,
        mode: Tensor,
        g: Generator,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Paint base and rivals in random order and label what stays visible."""
        k = len(own)
        classes = self.domains + RANDOM_OBJECTS
        step = 1 + torch.randint(classes - 1, (2, k), generator=g, device=self.device)
        rivals = (own + step) % classes
        distinct = rivals[1] != rivals[0]
        layers = [self._rivals(rival, objects, g) for rival in rivals]
        u = self._uniform(g, k, 6)
        present = torch.stack([u[:, 0] < 0.82, (u[:, 0] < 0.27) & distinct])
        order = self._uniform(g, 3, k)  # depth of base, first and second rival
        image = canvas
        label = torch.where(truth[:, 0] > 0.5, own.view(-1, 1, 1) + 1, 0)
        second = (base.second[:, 0] > 0.5) & (label > 0)
        for number, layer in enumerate(layers):
            here = present[number].view(-1, 1, 1, 1)
            behind = (order[number + 1] < order[0]).view(-1, 1, 1, 1)
            alpha = layer.alpha * here
            if number == 1:  # under the first rival too, if it lies deeper
                deeper = (order[2] < order[1]).view(-1, 1, 1, 1) & present[0].view(-1, 1, 1, 1)
                alpha = alpha * torch.where(deeper, 1 - layers[0].alpha, 1.0)
            alpha = alpha * torch.where(behind, 1 - torch.maximum(base.alpha, truth), 1.0)
            image = image * (1 - alpha) + layer.rgb * alpha
            covered = alpha[:, 0] > 0.5
            label = torch.where(covered, rivals[number].view(-1, 1, 1) + 1, label)
            second = torch.where(covered, layer.second[:, 0] > 0.5, second)
        image = self._camera(image, mode, u, g)
        return image, label, second, own, rivals[0]

    def _camera(self, image: Tensor, mode: Tensor, u: Tensor, g: Generator) -> Tensor:
        """Brightness, blur and noise of the finished picture, never on clean ones."""
        soft = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)
        some = (mode > 0).view(-1, 1, 1, 1)
        blur = torch.where(some & (u[:, 2] < 0.12).view(-1, 1, 1, 1), 0.6, 0.0)
        image = image * (1 - blur) + soft * blur
        gain = torch.where(mode > 0, 0.85 + 0.3 * u[:, 3], 1.0).view(-1, 1, 1, 1)
        noise = torch.randn(image.shape, generator=g, device=self.device) * 5
        noisy = some & (u[:, 4] < 0.2).view(-1, 1, 1, 1)
        return image * gain + torch.where(noisy, noise, 0.0)


def _sample(image: Tensor, zoom_x: Tensor, zoom_y: Tensor, shift: Tensor, zeros: bool = False) -> Tensor:
    """Resample (N, C, H, W) to 84x84 about its centre; zoom below 1 enlarges, ``shift`` is in half widths."""
    n = image.shape[0]
    theta = image.new_zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom_x, zoom_y
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [n, 1, SIZE, SIZE], align_corners=False)
    return F.grid_sample(image, grid, padding_mode="zeros" if zeros else "border", align_corners=False)


def _jitter(rgb: Tensor, u: Tensor, strength: Tensor | float) -> Tensor:
    """Mix the channels of (N, 3, H, W) by a random matrix near the identity, ``u`` (N, 9) in [0, 1]."""
    noise = (u.view(-1, 3, 3) - 0.5) * strength
    matrix = torch.eye(3, device=rgb.device) + noise
    return torch.einsum("nij,njhw->nihw", matrix, rgb).clamp(0, 255)
