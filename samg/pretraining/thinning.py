"""Training that starts from the wider encoder of before, ``samg-tiny-1``: layers are thinned and fitted.

Of every layer the strongest channels are kept (magnitude pruning: Li et al., "Pruning Filters for Efficient
ConvNets", ICLR 2017, section 3.1, here by the size of what writes a channel times that of what reads it).
Layer by layer, in the order in which they are computed, weights are then found by least squares: from what
the thinned layers before now give, they shall make what the wide encoder's layer made (He et al., "Channel
Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, section 3.1, and for shortcuts section 3.2).
What is lost comes back in training, sooner than it is learned anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.utils.hooks import RemovableHandle

from common.display import Display
from common.seeding import derive_seed
from samg.pretraining.composites import Banks, Compositor
from samg.tiny import TinyNetworks, check_state, read_tiny_state, read_weights, to_pixels
from samg.tiny_modules import ConvNorm, TinyEncoder, Widths

WIDER = "samg-tiny-1"
_WIDE = Widths(down=(24, 48, 96, 160), up=(32, 48, 64), sam=48)
_BATCHES, _COMPOSITES = 10, 18  # pictures that layers are fitted on, beside the references of every batch
_POSITIONS = 480  # per picture and layer, of which the fit is made
_RIDGE = 1e-4  # times the mean square of the inputs

# Layer -> the channels that it reads, and those that it writes; what is added shares its channels.
_LAYERS = {
    "stem.0": ("colours", "stem"),
    "stem.1": ("stem", "down84"),
    "stage42.0": ("down84", "down42"),
    "stage21.0": ("down42", "down21"),
    "stage11.0": ("down21", "down11"),
    "lateral11": ("down11", "sum21"),
    "lateral21": ("down21", "sum21"),
    "smooth21": ("sum21", "up21"),
    "down42": ("up21", "sum42"),
    "lateral42": ("down42", "sum42"),
    "smooth42": ("sum42", "up42"),
    "down84": ("up42", "sum84"),
    "lateral84": ("down84", "sum84"),
    "smooth84": ("sum84", "up84"),
    "token_head": ("up21", "tokens"),
    "skip42": ("up42", "skip42"),
    "sam_head": ("up42", "sam"),
    "skip84": ("up84", "skip84"),
    "dino_head": ("up84", "dino"),
}
for _block, _stream in (("42.1", "42"), ("21.1", "21"), ("21.2", "21"), ("11.1", "11"), ("11.2", "11")):
    _LAYERS[f"stage{_block}.first"] = (f"down{_stream}", f"inside{_block}")
    _LAYERS[f"stage{_block}.second"] = (f"inside{_block}", f"down{_stream}")


class _Reached(Exception):
    """The layer of interest has its input: the layers behind it need not be computed."""


def read_start(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Read what training starts from.

    Args:
        path: weights of these networks, or of those with the wider encoder of before.

    Returns:
        float32 tensors by name, and whether they are of the wider encoder and must be ``thinned``.

    Raises:
        InputError: the file is missing, damaged, or of another architecture.
    """
    tensors, metadata = read_weights(path)
    if metadata.get("architecture") != WIDER:
        return read_tiny_state(path, TinyNetworks())[0], False
    kept = {name: value for name, value in tensors.items() if not name.startswith("decoder.refine.")}
    check_state(path, kept, wide_networks())
    return kept, True


def wide_networks() -> TinyNetworks:
    """Return ``samg-tiny-1`` with drawn weights, without the decoder's layer that is left out now."""
    networks = TinyNetworks()
    networks.encoder = TinyEncoder(_WIDE)
    return networks


def thin_start(wide: Mapping[str, Tensor], banks: Banks, seed: int, display: Display) -> dict[str, Tensor]:
    """Do ``thinned`` on fresh training pictures; the arguments are those of ``thinned`` and ``Trainer``."""
    compositor, device = Compositor(banks, _COMPOSITES), banks.backgrounds.device
    seeds = [derive_seed(seed, "thinning", number) for number in range(_BATCHES)]
    frames = [compositor.batch(Generator(device).manual_seed(number)).frames for number in seeds]
    return thinned(wide, frames, seed, lambda layers: display.track(layers, "Thinning the encoder"))


@torch.no_grad()
def thinned(
    wide: Mapping[str, Tensor],
    frames: Sequence[Tensor],
    seed: int,
    track: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> dict[str, Tensor]:
    """Make weights of these networks from those with the wider encoder.

    Args:
        wide: as ``read_start`` gives them.
        frames: uint8 (N, 84, 84, 3) each; pictures as in training.
        seed: of the places in them that layers are fitted at.
        track: wraps the layers' names to show how far it is.

    Returns:
        float32 tensors as ``TinyNetworks.load_state_dict`` wants them, on the CPU.
    """
    networks = TinyNetworks()
    thin, teacher = networks.encoder.eval(), TinyEncoder(_WIDE).eval()
    own = networks.state_dict()
    state = {name: value if name.startswith("encoder.") else wide[name] for name, value in own.items()}
    # A token's 4x4 pixels came row by row, and come cell by cell.
    cells = torch.arange(16).view(2, 2, 2, 2).transpose(1, 2).flatten()
    state["decoder.mask_prompt.0.weight"] = wide["decoder.mask_prompt.0.weight"][:, cells]
    networks.load_state_dict(state)
    teacher.load_state_dict({n[8:]: value for n, value in wide.items() if n.startswith("encoder.")})
    pixels = [to_pixels(batch.cpu()) for batch in frames]
    generator = Generator().manual_seed(seed)
    wanted = [_outputs(teacher, batch, generator) for batch in pixels]
    kept = _strongest(teacher, thin)
    for layer in track(_order(thin, pixels[0][:1])):
        moments: Tensor | float = 0.0
        products: Tensor | float = 0.0
        for batch, outputs in zip(pixels, wanted, strict=True):
            places, values = outputs[layer]
            patches, shortcut = _inputs(thin, layer, batch, places)
            targets = values[:, kept[_LAYERS[layer][1]]] - shortcut
            moments = moments + patches.T @ patches
            products = products + patches.T @ targets
        _fit(thin.get_submodule(layer), torch.as_tensor(moments), torch.as_tensor(products))
    return networks.state_dict()


def _convolution(module: nn.Module) -> nn.Conv2d:
    found = module.conv if isinstance(module, ConvNorm) else module
    assert isinstance(found, nn.Conv2d)
    return found


def _order(encoder: TinyEncoder, pixels: Tensor) -> list[str]:
    """Return the layers' names in the order in which they are computed."""
    order: list[str] = []
    handles = [
        encoder.get_submodule(name).register_forward_hook(lambda *_, name=name: order.append(name))
        for name in _LAYERS
    ]
    encoder(pixels)
    for handle in handles:
        handle.remove()
    return order


def _strongest(wide: TinyEncoder, thin: TinyEncoder) -> dict[str, Tensor]:
    """Return the channels that every group keeps, ascending; of unread ones those that are written most."""
    written: dict[str, Tensor | float] = {}
    read: dict[str, Tensor | float] = {}
    count: dict[str, int] = {}
    for name, (reads, writes) in _LAYERS.items():
        module = wide.get_submodule(name)
        square = _convolution(module).weight.flatten(2).square()
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            norm = module.norm
            assert norm.running_var is not None
            square = square * (norm.weight.square() / (norm.running_var + norm.eps)).view(-1, 1, 1)
        written[writes] = written.get(writes, 0) + square.sum((1, 2))
        read[reads] = read.get(reads, 0) + square.sum((0, 2))
        count[writes] = _convolution(thin.get_submodule(name)).out_channels
    strengths = {group: torch.as_tensor(size * read.get(group, 1)) for group, size in written.items()}
    return {group: value.topk(count[group]).indices.sort().values for group, value in strengths.items()}


def _at(x: Tensor, places: Tensor) -> Tensor:
    """Return float64 (N*P, C): the vectors of (N, C, H, W) at flat places (P,) of every picture."""
    return x.flatten(2)[:, :, places].transpose(1, 2).flatten(0, 1).double()


def _outputs(encoder: TinyEncoder, pixels: Tensor, generator: Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """Return some places for every layer and what it gives there, shortcut included, before a ReLU."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    inputs: dict[str, Tensor] = {}
    handles = []

    def take(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            places = torch.randperm(output.shape[2] * output.shape[3], generator=generator)[:_POSITIONS]
            block = name.removesuffix(".second")
            shortcut = _at(inputs[block], places) if block in inputs else 0.0
            found[name] = (places, _at(output, places) + shortcut)

        return hook

    for name in _LAYERS:
        module = encoder.get_submodule(name)
        before_relu = module.norm if isinstance(module, ConvNorm) else module
        handles.append(before_relu.register_forward_hook(take(name)))
        if name.endswith(".second"):
            block = name.removesuffix(".second")
            handles.append(_keep_input(encoder.get_submodule(block), inputs, block))
    encoder(pixels)
    for handle in handles:
        handle.remove()
    return found


def _keep_input(module: nn.Module, inputs: dict[str, Tensor], name: str) -> RemovableHandle:
    """Let a module's next input be remembered under ``name``, before anything is changed in place."""

    def hook(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs[name] = given[0].clone()

    return module.register_forward_pre_hook(hook)


def _inputs(
    encoder: TinyEncoder, layer: str, pixels: Tensor, places: Tensor
) -> tuple[Tensor, Tensor | float]:
    """Return what a layer reads for each place, and its block's shortcut there.

    The first is float64 (N*P, inputs*pixels + 1); its last column is 1, for the bias.
    """
    inputs: dict[str, Tensor] = {}
    convolution = _convolution(encoder.get_submodule(layer))

    def stop(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs["own"] = given[0]
        raise _Reached

    handles = [convolution.register_forward_pre_hook(stop)]
    if layer.endswith(".second"):
        block = encoder.get_submodule(layer.removesuffix(".second"))
        handles.append(_keep_input(block, inputs, "shortcut"))
    try:
        encoder(pixels)
    except _Reached:
        pass
    for handle in handles:
        handle.remove()
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    columns = F.unfold(inputs["own"], kernel, padding=kernel // 2, stride=stride)
    patches = _at(columns.unsqueeze(-1), places)
    patches = torch.cat((patches, patches.new_ones(len(patches), 1)), 1)
    return patches, _at(inputs["shortcut"], places) if "shortcut" in inputs else 0.0


def _fit(module: nn.Module, moments: Tensor, products: Tensor) -> None:
    """Give a layer the weights and norm that best make targets y of inputs x.

    Args:
        module: ``ConvNorm`` or a convolution with a bias.
        moments: float64, sum of x x^T; the last component of x is 1.
        products: float64, sum of x y^T.
    """
    ridge = _RIDGE * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)
    solution = torch.linalg.solve(moments + ridge, products)
    weight, bias = solution[:-1].T, solution[-1]
    convolution = _convolution(module)
    convolution.weight.copy_(weight.view(convolution.weight.shape))
    if not isinstance(module, ConvNorm):
        assert convolution.bias is not None
        convolution.bias.copy_(bias)
        return
    norm = module.norm
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    # The norm takes off what it adds again, so that training starts from the same function.
    mean = weight @ moments[:-1, -1] / moments[-1, -1]
    square = (weight @ moments[:-1, :-1] * weight).sum(1) / moments[-1, -1]
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(square - mean.square())
    norm.weight.copy_((norm.running_var + norm.eps).sqrt())
    norm.bias.copy_(mean + bias)
