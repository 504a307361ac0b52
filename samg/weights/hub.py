"""Where the released weights come from: named files, the checkpoints folder, or the Hugging Face hub."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from common.errors import InputError, ResourceError
from common.files import sha256_file
from common.paths import PROJECT_ROOT, resolve
from samg.weights.record import WeightFile

CHECKPOINTS = PROJECT_ROOT / "efficientvit" / "checkpoints"
SAM_REPO = "mit-han-lab/efficientvit-sam"
DINO_REPOS = {
    "vits14": "timm/vit_small_patch14_dinov2.lvd142m",
    "vitb14": "timm/vit_base_patch14_dinov2.lvd142m",
}
_TIMEOUT = 10.0  # seconds
_SHA256 = re.compile(r"[0-9a-f]{64}")
# The hub client's connection errors derive from its HTTP library, which changed with version 1.
_HTTP_ERROR: type[BaseException] = HfHubHTTPError.__bases__[0]

logger = logging.getLogger(__name__)
PathLike = str | os.PathLike[str]


def accepted_names(component: str, architecture: str) -> tuple[str, ...]:
    """Return the file names under which a component is looked for in a folder, best first."""
    if component == "sam":
        return f"efficientvit_sam_{architecture}.pt", f"{architecture}.pt"
    size = DINO_REPOS[architecture].removeprefix("timm/")
    return (
        f"dinov2_{architecture}_pretrain.pth",
        f"dinov2_{architecture}.safetensors",
        f"{size}.safetensors",
        "model.safetensors",
    )


def hub_location(component: str, architecture: str) -> tuple[str, str]:
    """Return (repository, file name) of a component on the hub."""
    if component == "sam":
        return SAM_REPO, f"efficientvit_sam_{architecture}.pt"
    return DINO_REPOS[architecture], "model.safetensors"


def download_command(components: Mapping[str, str]) -> str:
    """Return the command that fetches these components; odd ones are fetched where they are first used."""
    small = {"sam": "l0", "dino": "vits14"}
    variant = "fast" if all(small[name] == kind for name, kind in components.items()) else "paper"
    return f"python setup/download.py {variant}"


def missing_weights(components: Mapping[str, str], reason: str) -> InputError:
    """Return the one error for weights that are nowhere to be found; it names every cure."""
    locations = [hub_location(name, kind) for name, kind in components.items()]
    names = " and ".join(f"{filename} of {repo}" for repo, filename in locations)
    expected = " and ".join(accepted_names(name, kind)[0] for name, kind in components.items())
    command = download_command(components)
    return InputError(
        f"Released weights are not on this machine and could not be fetched ({reason}): {names}.",
        f"With network, run `{command}`; or set masker.weights=<folder with {expected}>; or use the embedded "
        "masker: masker=tiny.",
    )


def _in_folder(folder: Path, component: str, architecture: str) -> Path | None:
    for name in accepted_names(component, architecture):
        if (folder / name).is_file():
            return folder / name
    return None


def _named_by_user(weights: PathLike | Sequence[PathLike], components: Mapping[str, str]) -> dict[str, Path]:
    """Return the components' files among the files and folders the user named."""
    entries = [weights] if isinstance(weights, (str, os.PathLike)) else list(weights)
    found: dict[str, Path] = {}
    for entry in entries:
        path = resolve(entry)
        if not path.exists():
            raise InputError(f"masker.weights names {entry}, which does not exist.", "Check the path.")
        for name, kind in components.items():
            if path.is_dir():
                match = _in_folder(path, name, kind)
            else:
                is_dino = "dino" in path.name or path.suffix == ".safetensors"
                match = path if is_dino == (name == "dino") else None
            if match and name not in found:
                found[name] = match
    if not found:
        names = [file for name, kind in components.items() for file in accepted_names(name, kind)]
        raise InputError(
            f"masker.weights={weights} holds none of the files looked for.",
            f"Expected one of: {', '.join(names)}.",
        )
    return found


def cached(component: str, architecture: str) -> Path | None:
    """Return the file from the hub's cache, without network; None where it is not there."""
    repo, filename = hub_location(component, architecture)
    found = try_to_load_from_cache(repo, filename)
    return Path(found) if isinstance(found, str) else None


def download(components: Mapping[str, str]) -> dict[str, Path]:
    """Fetch components from the hub into its cache, resuming what was begun; nothing is fetched twice.

    A file whose SHA-256 is not the hub's, in the cache or as it arrives, is set aside as ``*.bad`` and
    fetched once more.

    Raises:
        InputError: the hub cannot be reached within seconds, refuses, or ``HF_HUB_OFFLINE`` is set; or what
            it sends is not what it says.
        ResourceError: the disk is full.
    """
    paths: dict[str, Path] = {}
    for name, kind in components.items():
        repo, filename = hub_location(name, kind)
        try:
            if not constants.HF_HUB_OFFLINE:
                # Asked once, with a short timeout: without network the download itself retries for long.
                get_hf_file_metadata(hf_hub_url(repo, filename), timeout=_TIMEOUT)
            paths[name] = _fetch(repo, filename)
        except (OSError, EntryNotFoundError, _HTTP_ERROR) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise ResourceError(f"No space left for {filename} from {repo}.", "Free some.") from error
            left = {key: value for key, value in components.items() if key not in paths}
            raise missing_weights(left, _reason(error)) from error
    return paths


def _fetch(repo: str, filename: str) -> Path:
    for _ in range(2):
        path = Path(hf_hub_download(repo, filename, etag_timeout=_TIMEOUT))
        damage = _damage(path)
        if damage is None:
            return path
        if constants.HF_HUB_OFFLINE:
            break
        logger.warning("%s (%s); it is kept as *.bad and fetched again", damage, path)
        path.resolve().replace(path.resolve().with_suffix(".bad"))
        path.unlink(missing_ok=True)  # the link to it, by which it would be found
    raise InputError(
        f"{filename} of {repo} is not what the hub says: {damage}.",
        "Nothing of it is used. Try again later or on another network: a proxy may alter downloads.",
    )


def _damage(path: Path) -> str | None:
    """Return how a file of the hub's cache differs from the hub's own digest, its blob's name; else None."""
    blob = path.resolve().name
    if not _SHA256.fullmatch(blob) or (digest := sha256_file(path)) == blob:
        return None
    return f"its SHA-256 is {digest[:12]}..., the hub says {blob[:12]}..."


def _reason(error: BaseException) -> str:
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    response = getattr(error, "response", None)
    if response is not None:
        return f"the hub answered {response.status_code}"
    if "Consistency check" in str(error):
        return "what came has another size than the hub says"
    return "the hub cannot be reached"


def find_files(
    weights: PathLike | Sequence[PathLike] | None, components: Mapping[str, str], fetch: bool = True
) -> dict[str, Path]:
    """Return the file of each component (``sam``, ``dino`` -> architecture).

    Looked for in this order: what the user named, the checkpoints folder, the hub's cache and, with
    ``fetch``, the hub.
    """
    found = _named_by_user(weights, components) if weights else {}
    for name, kind in components.items():
        path = found.get(name) or _in_folder(CHECKPOINTS, name, kind) or cached(name, kind)
        if path:
            found[name] = path
    missing = {name: kind for name, kind in components.items() if name not in found}
    if missing and not fetch:
        raise missing_weights(missing, "nothing was fetched")
    return found | download(missing)


def _release(component: str, filename: str) -> str:
    if component == "dino":
        return "DINOv2 LVD-142M"
    # Before they moved to the hub, in February 2024, the files had no prefix.
    return "2024-02" if filename.startswith("efficientvit_sam_") else "2023-09"


def describe_file(path: Path, component: str, architecture: str) -> WeightFile:
    """Return the record of a file; one from the hub's cache is checked against the hub's own digest.

    Raises:
        InputError: the digest differs.
    """
    repo, filename = hub_location(component, architecture)
    from_hub = cached(component, architecture) == path
    if from_hub and (damage := _damage(path)) is not None:
        raise InputError(
            f"Weights {path} are damaged: {damage}.",
            f"Run `{download_command({component: architecture})}`: it sets this one aside.",
        )
    prefix = "efficientvit_sam" if component == "sam" else "dinov2"
    return WeightFile(
        component=component,
        architecture=f"{prefix}_{architecture}",
        filename=filename if from_hub else path.name,
        sha256=sha256_file(path),
        source="hub" if from_hub else "local",
        repo=repo if from_hub else None,
        revision=path.parent.name if from_hub else None,
        release=_release(component, path.name),
    )
