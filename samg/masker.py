"""The masker: fitted once to a reference, then frames in, masks out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.masking import MaskerInfo, check_frames
from common.peak_memory import peak_bytes
from samg.correspondence import operator_groups, similarity_maps
from samg.extra_points import choose_extra_points
from samg.fitting import Fit
from samg.map_mask import map_pass, soften
from samg.networks import Encoded, SamgNetworks
from samg.numerics import MaskerNumerics
from samg.options import SamgOptions
from samg.recording import RecordedFunction
from samg.reference import Reference
from samg.rules import Rules
from samg.segment import Pass, resolve_empty, segment

Weights = str | list[str] | None

METHOD = "samg-1"
"""Raised whenever the same weights, reference and options would give other masks than before."""


# What a record says of weights that is worth repeating with every result.
_NAMED = ("architecture", "files", "sha256", "command", "seed", "steps")

_CPU_BATCH = 8  # frames; more at once gain nothing on a CPU and take memory


@dataclass(frozen=True)
class Source:
    """Where a masker's networks came from.

    Attributes:
        variant: ``paper``, ``fast`` or ``tiny``.
        digest: SHA-256 of the weights.
        weights: what the caller asked for: paths, or None for the variant's own.
        settings: what else was asked for, such as the architecture.
        record: what else is known of them (release, revision), as JSON values.
        method: settings that let the same weights make other masks, such as ``dino_size``, as JSON values;
            those that are as published are left out.
    """

    variant: str
    digest: str
    weights: Weights = None
    settings: dict[str, str] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Return which weights these are, without the machine's paths, as JSON values."""
        named = {name: self.record[name] for name in _NAMED if name in self.record}
        return {"digest": self.digest, "settings": self.settings, **named}


@dataclass(frozen=True)
class Explanation:
    """How masks came about; everything on the CPU.

    Attributes:
        similarity: float (N, H, W), the target's averaged cosine map.
        part_similarity: float (N, T - 1, H, W), those of parts and points.
        passes: prompts, logits and predicted IoUs of each pass.
        mask: bool or float32 (N, H, W), the result after the policy for empty masks.
    """

    similarity: Tensor
    part_similarity: Tensor
    passes: tuple[Pass, ...]
    mask: Tensor

    @property
    def points(self) -> Tensor:
        """Float (N, P, 2), (x, y): all point prompts of the last pass."""
        return self.passes[-1].points

    @property
    def labels(self) -> Tensor:
        """Int64 (N, P): 1 positive, 0 negative, -1 no point."""
        return self.passes[-1].labels

    @property
    def boxes(self) -> Tensor | None:
        """Float (N, 4), the box of the last pass; None when there was one pass only."""
        return self.passes[-1].boxes


class SamGMasker:
    """Masks of one target in batches of frames.

    Made by ``samg.build_masker(...).fit(reference)`` or ``SamGMasker.load(directory)``.

    Args:
        networks: encoders and decoder, in evaluation mode on ``device``.
        reference: what the target looks like.
        fit: what ``fit_reference`` learnt from it.
        rules: fixed or faithful.
        options: checked options.
        source: where the networks came from.
        device: where everything runs.

    Attributes:
        numerics: how the networks compute.
        every: of how many frames of an episode one is to be masked (``SamgOptions.every``).
        last_empty: bool (N,) on ``device``: in which frames of the last call of ``mask`` the final pass found
            nothing, before ``on_empty`` had its say; None before the first call. Reading its values waits for
            the device, keeping it does not.
        reference_points: float32 (P, 2), (x, y): points of the reference that are looked for in every frame.
        last_points: float (N, P, 2) on ``device``: where the last call of ``mask`` found each of
            ``reference_points``, (x, y); None before the first call.
    """

    def __init__(
        self,
        networks: SamgNetworks,
        reference: Reference,
        fit: Fit,
        rules: Rules,
        options: SamgOptions,
        source: Source,
        device: torch.device,
    ) -> None:
        self.networks = networks
        self.reference = reference
        self.fit = fit
        self.rules = rules
        self.options = options
        self.source = source
        self.device = device
        self.numerics: MaskerNumerics = getattr(networks, "numerics", MaskerNumerics())
        self.every = options.every
        self._encoders = tuple(fit.targets)
        self._groups = operator_groups(networks, self._encoders, reference.size, device)
        self._counts = torch.zeros(1 + options.masks_per_frame, dtype=torch.int64, device=device)
        self._find = RecordedFunction(self._segment, device) if self.numerics.cuda_graph else self._segment
        self.last_empty: Tensor | None = None
        self.reference_points = choose_extra_points(reference, options.extra_points)
        self.last_points: Tensor | None = None
        self._info = MaskerInfo(
            "samg", source.variant, self._fingerprint(), self._numerics(), self._method(), source.identity()
        )

    @property
    def info(self) -> MaskerInfo:
        """Identity of this masker."""
        return self._info

    def mask(self, frames: Tensor, foreground: Tensor | None = None) -> Tensor:
        """Return the masks of a batch of frames.

        Args:
            frames: uint8 (N, H, W, 3) RGB, at the reference's resolution; N may be 0.
            foreground: ignored.

        Returns:
            bool (N, H, W), on the device of ``frames``; float32 in [0, 1] with ``mask_from=soft_map``.
        """
        self._check(frames)
        with torch.inference_mode():
            done = [self._mask_chunk(chunk, valid) for chunk, valid in self._chunks(frames)]
        if not done:
            self.last_empty = torch.zeros(0, dtype=torch.bool, device=self.device)
            self.last_points = torch.zeros(0, self._point_count, 2, device=self.device)
            soft = self.options.mask_from == "soft_map"
            return frames.new_zeros(frames.shape[:3], dtype=torch.float32 if soft else torch.bool)
        # A tensor made in inference mode cannot enter a later gradient computation; a copy can.
        masks, empty, points = (torch.cat(parts).clone() for parts in zip(*done, strict=True))
        self.last_empty, self.last_points = empty, points
        return masks.to(frames.device)

    def explain(self, frames: Tensor) -> Explanation:
        """Mask frames and keep everything in between, for pictures; not counted in ``statistics``."""
        self._check(frames)
        if not len(frames):
            raise ValueError("frames: expected at least one to explain, got none")
        similarities, runs, masks = [], [], []
        with torch.inference_mode():
            for chunk, valid in self._chunks(frames):
                similarity, done = self._run(chunk)
                similarities.append(similarity[:valid].float().cpu())
                runs.append([_crop(one, valid) for one in done])
                masks.append(self._resolve(done)[:valid].cpu())
        similarity = torch.cat(similarities).clone()
        passes = tuple(_join([run[number] for run in runs]) for number in range(len(runs[0])))
        return Explanation(similarity[:, 0], similarity[:, 1:], passes, torch.cat(masks).clone())

    def statistics(self) -> dict[str, Any]:
        """Return how many frames were masked and how many masks were empty, after each pass and at the end.

        This reads the device; call it per episode or per report, not per frame. Frames that a caller pads
        its batches with count like any others.
        """
        frames, *empty = self._counts.tolist()
        by_pass = {f"empty_pass{number}": count for number, count in enumerate(empty, start=1)}
        share = empty[-1] / frames if frames else 0.0
        policy = self.options.on_empty
        return {"frames": frames, **by_pass, "empty": empty[-1], "empty_share": share, "on_empty": policy}

    def reset_statistics(self) -> None:
        """Start counting anew."""
        self._counts.zero_()

    def batch_for(self, count: int) -> int:
        """Return in batches of which size ``count`` frames are masked; on a CPU of 8 at most."""
        if count and self.options.batch_size:
            return self.options.batch_size
        if self.device.type == "cpu":
            count = min(count, _CPU_BATCH)
        # Powers of two: some environments' frames, after a reset, shall not be one more shape to compile for.
        return 1 << (count - 1).bit_length() if count and self.numerics.fixed_shapes else count

    def measure_memory(self, count: int) -> int:
        """Return how many bytes masking ``count`` frames at once takes beside the networks, by doing it.

        Nothing is counted or remembered, and compiled networks run uncompiled.
        """
        frames = self._blank(count)
        with torch.inference_mode(), self.numerics.eager():
            return peak_bytes(lambda: self._segment(frames), self.device)

    def reserve(self, count: int) -> None:
        """Take the memory that masking ``count`` frames at once keeps: with ``cuda_graph``, record it now."""
        if isinstance(self._find, RecordedFunction):
            with torch.inference_mode():
                self._find(self._blank(count))

    def _blank(self, count: int) -> Tensor:
        size = self.reference.size
        return torch.zeros(count, size, size, 3, dtype=torch.uint8, device=self.device)

    def save(self, directory: str | Path) -> None:
        """Write the masker, without its networks, into a new directory; see ``samg.artefact``."""
        from samg.artefact import save_masker

        save_masker(self, Path(directory))

    @classmethod
    def load(
        cls, directory: str | Path, device: str | torch.device = "cpu", weights: Weights = None
    ) -> SamGMasker:
        """Read what ``save`` wrote and load the same networks again.

        Args:
            directory: the saved masker.
            device: where to run it.
            weights: the weights' paths, should they have moved.

        Raises:
            InputError: a file is missing or damaged, or the weights are not those of the fit.
        """
        from samg.artefact import load_samg_masker

        return load_samg_masker(Path(directory), device, weights)

    @property
    def _point_count(self) -> int:
        """P of ``last_points``."""
        return self.reference_points.shape[-2]

    def _check(self, frames: Tensor) -> None:
        check_frames(frames)
        size = self.reference.size
        if tuple(frames.shape[1:3]) != (size, size):
            raise ValueError(
                f"frames: expected (N, {size}, {size}, 3), the reference's size, got {tuple(frames.shape)}"
            )

    def _chunks(self, frames: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Yield batches on the masker's device, padded to the fixed size, and how many frames are real."""
        frames = frames.to(self.device)
        for chunk in frames.split(max(self.batch_for(len(frames)), 1)):
            valid = len(chunk)
            missing = self.batch_for(valid) - valid
            if missing:
                chunk = torch.cat((chunk, chunk[-1:].expand(missing, -1, -1, -1)))
            if valid:
                yield chunk, valid

    def _run(self, frames: Tensor) -> tuple[Tensor, list[Pass]]:
        return self._look(self.networks.encode(frames))

    def _look(self, encoded: Encoded) -> tuple[Tensor, list[Pass]]:
        """Return the similarity maps and the passes over frames that are encoded already."""
        maps = {name: encoded.maps[name].float() for name in self._encoders}
        similarity = similarity_maps(maps, self.fit.targets, self._groups)
        fit, passes = self.fit, self.options.passes
        weights, rules = fit.mask_weights, self.rules
        if fit.map_scale is not None:
            return similarity, [map_pass(similarity, rules, fit.map_scale, fit.presence)]
        prompt = fit.map_prompt.logits(maps, fit.targets) if fit.map_prompt else None
        done = segment(
            self.networks, encoded.embedding, similarity, weights, rules, passes, prompt, fit.presence
        )
        return similarity, done

    def _mask_chunk(self, frames: Tensor, valid: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the real frames' masks, in which of them the last pass found nothing, and the points."""
        masks, empty, points = self._find(frames)
        self._counts[0].add_(valid)
        self._counts[1:].add_(empty[:, :valid].sum(1))
        return masks[:valid], empty[-1, :valid], points[:valid]

    def _segment(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return masks (N, H, W), what is empty after each pass (passes, N), and the points (N, P, 2)."""
        return self._finish(*self._run(frames))

    def _finish(self, similarity: Tensor, done: list[Pass]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what ``_segment`` does, of the passes."""
        empty = torch.stack([~one.masks.flatten(1).any(1) for one in done])
        first = done[0].points  # those of the reference's points come last in the first pass
        return self._resolve(done), empty, first[:, first.shape[1] - len(self.reference_points) :]

    def _resolve(self, done: list[Pass]) -> Tensor:
        """Return the final masks, bool or (``soft_map``) float32 (N, H, W)."""
        masks = resolve_empty(done, self.options.on_empty)
        return soften(done[-1], masks) if self.options.mask_from == "soft_map" else masks

    def _method(self) -> dict[str, Any]:
        method = {**self.options.method(), "presence": self.fit.presence, "encoders": list(self._encoders)}
        return {"rules": self.rules.name, **method, **self.source.method}

    def _fingerprint(self) -> str:
        options = {**self.options.method(), "encoders": sorted(self._encoders)}
        del options["presence"]
        if self.fit.presence is not None:  # what was fitted before this option existed keeps its fingerprint
            options["presence"] = self.fit.presence
        if self.options.uses_decoder:  # for the same reason
            del options["mask_from"]
        identity: dict[str, Any] = {
            "method": METHOD,
            "rules": self.rules.name,
            # Similarities are averaged over encoders: in which order they were named does not matter.
            "options": {**options, **self.source.method},
            "weights": self.source.digest,
            "reference": self.reference.digest(self.rules.uses_cutouts),
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def _numerics(self) -> dict[str, Any]:
        return {
            "device": self.device.type,
            **self.numerics.to_dict(),
            "batch_size": self.options.batch_size,
            "torch": torch.__version__,
        }


def _crop(one: Pass, valid: int) -> Pass:
    return Pass._make(None if value is None else value[:valid].cpu() for value in one)


def _join(parts: list[Pass]) -> Pass:
    columns = zip(*parts, strict=True)
    return Pass._make(None if column[0] is None else torch.cat(column).clone() for column in columns)
