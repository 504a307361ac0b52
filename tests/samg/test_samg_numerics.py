"""How masks are computed: what is refused, what falls back, what is recorded, and what stays the same."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from common.errors import ConfigError
from common.masking import MaskerInfo
from common.numerics import _compiling_fails, warn_once
from samg import build_masker, load_masker
from samg.agreement import episode_masks, mask_iou
from samg.masker import SamGMasker, Source
from samg.numerics import MaskerNumerics, TunableNetworks
from tests.support.maskers import fake_reference, register_fake, scenes

CPU = torch.device("cpu")


def agreement(exact, approximate, frames):
    return mask_iou(episode_masks(exact, frames), episode_masks(approximate, frames))


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    register_fake(monkeypatch)
    warn_once.cache_clear()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cuda_graph": True}, "masker.cuda_graph=true needs a CUDA device, and device is cpu"),
        ({"compile": "yes"}, "masker.compile=yes is not possible"),
        ({"precision": "float16"}, "Unknown masker.precision 'float16'"),
        ({"chanels_last": True}, "Did you mean channels_last?"),
        ({"every": 0}, "masker.every is 0, expected a whole number from 1 on"),
        ({"dino_size": 225}, "Unknown masker.dino_size '225'"),
        ({"dino_size": 224, "encoders": ["sam"]}, "masker.dino_size=224 has no effect"),
        (
            {"on_empty": "previous_pass", "passes": 1},
            "on_empty=previous_pass has no effect beside masker.passes=1",
        ),
        ({"on_empty": "previous_pass", "mask_from": "map"}, "has no effect beside masker.mask_from=map"),
        ({"map_prompt": True, "mask_from": "soft_map"}, "map_prompt=true has no effect beside"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_is_loaded(options, words):
    with pytest.raises(ConfigError) as caught:
        build_masker("fast", **options)
    assert words in str(caught.value) and caught.value.hint


def test_baselines_have_no_masks_to_use_again():
    with pytest.raises(ConfigError, match="no setting 'every'"):
        build_masker("groundtruth", every=2)


def test_without_a_compiler_one_warning_says_why(monkeypatch, caplog):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    chosen = [MaskerNumerics(compile=True).on(CPU) for _ in range(2)]
    assert chosen == [MaskerNumerics()] * 2
    (record,) = caplog.records
    assert "compile=true is ignored: there is no C++ compiler" in record.getMessage()


def test_a_compiler_that_does_not_compile_is_found_out_before_a_run(monkeypatch, caplog):
    _compiling_fails.cache_clear()
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    assert MaskerNumerics(compile=True).on(CPU).compile

    def broken(function, **options):
        raise RuntimeError("Python.h: No such file\nor directory")

    _compiling_fails.cache_clear()
    monkeypatch.setattr(torch, "compile", broken)
    assert not MaskerNumerics(compile=True).on(CPU).compile
    assert "is ignored: a trial failed (Python.h: No such file or directory)" in caplog.text
    _compiling_fails.cache_clear()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_compiler_without_headers_is_found_out(tmp_path):
    fake = tmp_path / "g++"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    code = "import torch; from common.numerics import no_compiler; print(no_compiler(torch.device('cpu')))"
    said = {}
    for compiler in ("g++", str(fake)):
        variables = {**os.environ, "CXX": compiler, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=True)
        said[compiler] = done.stdout.strip()
    if shutil.which("g++"):
        assert said["g++"] == "None"
    assert said[str(fake)].startswith("a trial failed (")


def test_float32_is_float32_on_gpus_too():
    cudnn = torch.backends.cudnn
    assert cudnn.allow_tf32, "PyTorch's default, which this is about, has changed"
    with MaskerNumerics().autocast(torch.device("cuda")):
        assert not cudnn.allow_tf32
    with MaskerNumerics(precision="bfloat16").autocast(CPU):
        assert cudnn.allow_tf32 and torch.is_autocast_enabled("cpu")
    assert cudnn.allow_tf32


def test_weights_that_are_rounded_once_give_the_masks_of_those_rounded_at_every_call(monkeypatch):
    frames, _ = scenes(3, 84)
    found = {}
    for once in (True, False):
        if not once:
            monkeypatch.setattr(TunableNetworks, "_round", lambda self, dtype: None)
        masker = build_masker("tiny", persam=False, precision="bfloat16").fit(fake_reference(84))
        kinds = {parameter.dtype for parameter in masker.networks.encoder.parameters()}
        assert kinds == {torch.bfloat16 if once else torch.float32}
        found[once] = masker.explain(frames)
    for one, other in zip(found[True].passes, found[False].passes, strict=True):
        assert torch.equal(one.logits, other.logits)


def test_numerics_are_recorded_and_no_part_of_the_fingerprint():
    plain = build_masker("tiny", persam=False).fit(fake_reference(84))
    other = build_masker("tiny", persam=False, precision="bfloat16", channels_last=False)
    other = other.fit(fake_reference(84))
    assert other.info.fingerprint == plain.info.fingerprint
    names = {"device", "precision", "compile", "cuda_graph", "channels_last", "batch_size", "torch"}
    assert plain.info.numerics.keys() == names
    assert (plain.info.numerics["precision"], plain.info.numerics["channels_last"]) == ("float32", True)
    assert (other.info.numerics["precision"], other.info.numerics["channels_last"]) == ("bfloat16", False)
    frames, _ = scenes(4, 84)
    assert agreement(plain, other, frames).mean() > 0.8


def test_approximations_are_part_of_method_and_fingerprint():
    exact, sparse = (build_masker("fake", every=every).fit(fake_reference()) for every in (1, 3))
    assert sparse.every == sparse.info.method["every"] == 3
    assert sparse.info.fingerprint != exact.info.fingerprint and "every" not in exact.info.method
    source = Source("fake", exact.source.digest, method={"dino_size": 224})
    rest = (exact.reference, exact.fit, exact.rules, exact.options, source, CPU)
    small = SamGMasker(exact.networks, *rest)
    assert small.info.method["dino_size"] == 224 and small.info.fingerprint != exact.info.fingerprint


def test_a_saved_masker_computes_as_before_or_as_told_or_as_it_can(tmp_path, caplog):
    made = build_masker("tiny", persam=False, precision="bfloat16").fit(fake_reference(84))
    made.save(tmp_path / "m")
    assert load_masker(tmp_path / "m").info == made.info
    told = load_masker(tmp_path / "m", settings={"precision": "float32", "passes": 1})
    assert told.info.numerics["precision"] == "float32" and told.options.passes == 3
    path = tmp_path / "m" / "masker.json"
    record = json.loads(path.read_text())
    numerics = {"precision": "float32", "cuda_graph": True}  # made on a GPU, by an older version
    path.write_text(json.dumps({**record, "numerics": numerics}))
    assert "cuda_graph" not in caplog.text
    found = load_masker(tmp_path / "m")
    assert not found.numerics.cuda_graph and found.numerics.channels_last
    assert "cuda_graph=true is ignored: device is cpu" in caplog.text


def test_fixed_shapes_pad_to_few_batch_sizes():
    masker, (frames, _) = build_masker("fake").fit(fake_reference()), scenes(5)
    expected, seen = masker.mask(frames), []
    masker.numerics = MaskerNumerics(compile=True)
    find = masker._find
    masker._find = lambda batch: seen.append(len(batch)) or find(batch)
    for count in (1, 2, 3, 5):
        assert torch.equal(masker.mask(frames[:count]), expected[:count])
    assert seen == [1, 2, 4, 8] and masker.statistics()["frames"] == 5 + 11


class Columns:
    """Keeps the columns from the frame's brightness on; optionally softly."""

    info = MaskerInfo("fake", "fake", "0")

    def __init__(self, shift=0, every=1, soft=False):
        self.shift, self.every, self.soft = shift, every, soft

    def mask(self, frames, foreground=None):
        mask = torch.arange(8) >= frames[:, :, :1, 0] + self.shift
        return mask.float() if self.soft else mask


def test_agreement_of_an_approximation():
    frames = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 8, 3)
    assert agreement(Columns(), Columns(soft=True), frames).tolist() == [1] * 4
    assert agreement(Columns(), Columns(1), frames).tolist() == [7 / 8, 6 / 7, 5 / 6, 4 / 5]
    assert agreement(Columns(), Columns(every=2), frames).tolist() == [1, 7 / 8, 1, 5 / 6]
    assert agreement(Columns(9), Columns(9), frames).tolist() == [1] * 4


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_compiled_tiny_masks_are_those_of_eager():
    frames, _ = scenes(8, 84)
    exact = build_masker("tiny").fit(fake_reference(84))
    quick = build_masker("tiny", compile=True).fit(fake_reference(84))
    assert quick.info.numerics["compile"] and quick.info.fingerprint == exact.info.fingerprint
    assert agreement(exact, quick, frames).mean() >= 0.999


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_compiled_paper_masks_are_those_of_eager():
    from samg.weights import random_paper_networks

    masks = []
    for compiled in (False, True):
        networks = random_paper_networks().tune(MaskerNumerics(compile=compiled), CPU)
        masks.append(drawn_masker(networks))
    frames, _ = scenes(2, 84)
    assert agreement(*masks, frames).mean() >= 0.999


def drawn_masker(networks):
    """A masker of the fake reference on full-size networks, with equal mask weights."""
    from samg.fitting import fit_reference
    from samg.options import SamgOptions
    from samg.rules import FixedRules

    reference, options = fake_reference(84), SamgOptions(persam=False)
    with networks.numerics.eager():
        fit = fit_reference(networks, reference, FixedRules(), options, networks.device)
    source = Source("paper", "drawn")
    return SamGMasker(networks, reference, fit, FixedRules(), options, source, networks.device)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_full_size_networks_never_wait_for_the_device(precision):
    from samg.weights import RELEASED, random_paper_networks
    from tests.support.host_sync import HostSync

    networks = random_paper_networks(**RELEASED["fast"], dino_size=224)
    masker = drawn_masker(networks.tune(MaskerNumerics(precision=precision, channels_last=True), CPU))
    frames, _ = scenes(1, 84)
    masker.mask(frames)
    with HostSync():
        masker.mask(frames)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bfloat16"},
        {"cuda_graph": True},
        {"cuda_graph": True, "precision": "bfloat16"},
        {"compile": True},
        {"compile": True, "cuda_graph": True},
    ],
)
def test_one_copy_back_and_no_waiting_on_a_gpu(options):
    from torch.profiler import ProfilerActivity, profile

    from wrappers import BatchMasker

    masker = build_masker("tiny", "cuda", **options).fit(fake_reference(84))
    frames, _ = scenes(3, 84)
    masking, on_device = BatchMasker(masker, batch_size=4, keep_points=True), frames.to(masker.device)
    masking(frames.numpy(), None)
    masker.mask(on_device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        masker.mask(on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        masking(frames.numpy(), None)
    copies = [event.name for event in trace.events() if "Memcpy DtoH" in event.name]
    assert len(copies) == 1, copies
    eager = build_masker("tiny", "cuda").fit(fake_reference(84))
    least = 0.8 if "precision" in options else 0.999
    assert agreement(eager, masker, on_device).mean() > least
    for count in (1, 3, 1, 2, 3):  # recordings share their memory
        assert agreement(eager, masker, on_device[:count]).mean() > least
