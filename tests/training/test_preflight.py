"""Too little memory for a batch is found out at the start: of the update and of the masker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import ResourceError
from common.peak_memory import peak_bytes
from samg import Reference, SamGMasker, build_masker
from tests.support.agents import AGENTS, make_agent
from tests.support.small_runs import fingerprint, make_run
from tests.test_train_cli import run
from training import memory, preflight
from training.preflight import check_masking, check_update, find_shortage, update_bytes

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def test_the_peak_counts_what_is_alive_at_once_and_was_made_inside() -> None:
    outside = torch.zeros(1000)

    def work() -> None:
        first = outside + 1  # 4000 bytes
        second = first[:100] * 2  # and 400
        del first
        second.add_(outside[:100])
        outside.view(10, 100).mul_(2)
        _ = torch.ones(500, dtype=torch.uint8)  # 500, when first is gone

    assert peak_bytes(work, CPU) == 4400
    assert peak_bytes(lambda: outside.mul_(2), CPU) == 0
    weight = torch.ones(50, 40, requires_grad=True)
    # The product, its square, their gradients: kept for the backward pass or made in it.
    assert 8000 + 2 * 800 <= peak_bytes(lambda: (outside[:20, None] * weight[0]).pow(2).sum().backward(), CPU)


TAKES = {
    "share only": lambda n: 7 * n,
    "constant": lambda n: 5000 + 7 * n,
    "two moments": lambda n: max(
        5000 + n, 100 + 9 * n
    ),  # as an update: gradients of weights, then activations
}


@pytest.mark.parametrize("takes", TAKES.values(), ids=TAKES)
@pytest.mark.parametrize("count", [1, 2, 37, 1000, 10**6])
@pytest.mark.parametrize("share", [0.3, 0.9, 1.01, 3.0, 1000.0])
def test_two_bounds_decide_and_nothing_is_tried_that_might_not_fit(
    takes: Callable[[int], int], count: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_UNSEEN", 1.0)
    available, tried = int(share * takes(count)), []

    def measure(size: int) -> int:
        tried.append(size)
        return takes(size)

    found = find_shortage(measure, count, available, first=2)
    assert all(takes(size) <= available for size in tried[2:]) and max(tried) <= count
    if share > 1:
        assert found is None
        assert share < 1000 or len(tried) == 1  # where there is plenty, one look is enough
    elif found is None:  # only where not even the first batches tell
        assert takes(2) * 2 > available
    else:
        assert available < found.needed and found.available == available
        # The first batch alone, where it fills all memory, tells nothing of its growth.
        assert len(tried) == 1 or 0.8 * takes(count) < found.needed <= takes(count)
        assert found.fits == 1 or takes(found.fits) <= available * 1.01
    assert find_shortage(measure, count, None, first=2) is None


@pytest.fixture
def available(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Say how much memory there is."""
    return lambda size: monkeypatch.setattr(preflight, "available_memory", lambda: size)


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_an_update_that_does_not_fit_is_refused_and_changes_nothing(
    name: str, available: Callable[[int], None]
) -> None:
    agent = make_agent(name)
    agent.prepare()
    before = fingerprint(agent)
    available(10**9)
    with pytest.raises(
        ResourceError, match=r"batch_size=1000000 does not fit into the memory of cpu"
    ) as caught:
        check_update(agent, 10**6)
    assert "1,000,000,000 are available" in caught.value.message.replace("999,999,999", "1,000,000,000")
    assert fingerprint(agent) == before and caught.value.exit_code == 5
    fits = int(caught.value.hint.partition("batch_size=")[2].split()[0])
    assert 100 < fits < 100_000
    check_update(agent, fits // 2)
    assert fingerprint(agent) == before


def test_an_update_takes_what_was_said(available: Callable[[int], None]) -> None:
    agent = make_agent("drqv2")
    preflight._update(agent, 2)
    real = peak_bytes(lambda: preflight._update(agent, 256), CPU)
    available(int(real * preflight._UNSEEN * 0.8))
    with pytest.raises(ResourceError, match="needs about") as caught:
        check_update(agent, 256)
    said = int(caught.value.message.partition("about ")[2].split()[0].replace(",", ""))
    assert said == pytest.approx(real * preflight._UNSEEN, rel=0.15)
    available(int(real * preflight._UNSEEN * 1.3))
    check_update(agent, 256)


@pytest.mark.parametrize("name", ["drqv2", "pieg"])
def test_what_updates_keep_is_told_from_small_batches(name: str) -> None:
    agent = make_agent(name)
    agent.prepare()
    before, bound = fingerprint(agent), preflight._generous(agent, 64)
    assert update_bytes(agent, 64, bound) == bound, "where there is room for more, nothing need be measured"
    told = update_bytes(agent, 64, bound - 1)
    assert fingerprint(agent) == before
    preflight._update(agent, 2)
    real = peak_bytes(lambda: preflight._update(agent, 64), CPU) * preflight._UNSEEN
    assert real < told < 2 * real < bound  # the moments stay beside what an update takes


@pytest.mark.parametrize("name", ["drqv2", "svea", "srm", "sgqn", "curl", "drq", "vrl3"])
def test_where_there_is_plenty_nothing_is_measured(
    name: str, available: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_agent(name)
    preflight._update(agent, 2)
    taken = peak_bytes(lambda: preflight._update(agent, 48), CPU) * preflight._UNSEEN
    assert taken < preflight._generous(agent, 48) / 2, "the generous bound is none"
    available(preflight._generous(agent, 48))
    monkeypatch.setattr(preflight, "_update", lambda *_: pytest.fail("it was measured"))
    check_update(agent, 48)


def test_a_gpu_too_small_is_told_in_bytes(
    available: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, update = make_agent("drqv2"), preflight._update

    def too_large(agent: Any, batch_size: int) -> None:
        if batch_size > 40:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        update(agent, batch_size)

    monkeypatch.setattr(preflight, "_update", too_large)
    available(5_000_000)
    with pytest.raises(
        ResourceError, match=r"batch_size=256 .* needs about [\d,]+ bytes, and only"
    ) as caught:
        preflight.rehearse_update(agent, 256)
    assert "batch_size=" in caught.value.hint
    available(10**12)  # somebody else takes it: nothing is said that is not known
    with pytest.raises(ResourceError, match=r"\(CUDA out of memory\)"):
        preflight.rehearse_update(agent, 256)


def fitted(**options: int) -> SamGMasker:
    root = "reference_images/walker"
    made = build_masker("tiny", **options).fit(Reference.load(f"{root}_0.png", f"{root}_masked_0.png"))
    assert isinstance(made, SamGMasker)
    return made


@pytest.fixture(scope="module")
def tiny() -> SamGMasker:
    return fitted()


@pytest.mark.parametrize(
    ("num_envs", "cameras", "options", "frames"),
    [(64, 1, {"batch_size": 64}, 64), (16, 3, {"batch_size": 48}, 48), (64, 1, {}, 8)],
)
def test_frames_that_cannot_be_masked_at_once_are_refused(
    num_envs: int,
    cameras: int,
    options: dict[str, int],
    frames: int,
    available: Callable[[int], None],
) -> None:
    tiny = fitted(**options)
    taken = tiny.measure_memory(4) / 4 * preflight._UNSEEN
    before = tiny.statistics()
    available(int(taken * frames * 0.7))
    with pytest.raises(ResourceError, match=f"Masking {frames} frames at once needs about") as caught:
        check_masking(tiny, num_envs, cameras)
    said = int(caught.value.message.partition("about ")[2].split()[0].replace(",", ""))
    assert said == pytest.approx(taken * frames, rel=0.02)
    fits = int(frames * 0.7 * 0.8)
    few = f"set num_envs to {fits // cameras} or less, "
    assert f"{few}set masker.batch_size to {fits} or less, choose".capitalize() in caught.value.hint
    with pytest.raises(ResourceError) as caught:
        check_masking(tiny, num_envs, cameras, evaluating=True)
    assert f"{few}choose a smaller masker".capitalize() in caught.value.hint
    assert tiny.statistics() == before and tiny.last_empty is None
    available(int(taken * frames * 1.05))
    check_masking(tiny, num_envs, cameras)


def test_one_frame_and_maskers_without_networks_need_no_measurement(
    tiny: SamGMasker, available: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    available(1)
    monkeypatch.setattr(tiny, "measure_memory", lambda _: pytest.fail("it was measured"))
    check_masking(tiny, 1)
    check_masking(build_masker("none").fit(None), 64)


def test_a_run_whose_update_does_not_fit_is_refused_before_it_begins(
    tmp_path: Path, available: Callable[[int], None]
) -> None:
    available(3_000_000)
    with pytest.raises(ResourceError, match="batch_size=500 does not fit"):
        make_run(tmp_path, batch_size=500).train()
    assert not list(tmp_path.rglob("*.npz")) and not list(tmp_path.rglob("step_*"))


@pytest.mark.parametrize(
    ("own", "root", "names"),
    [
        ("0::/slurm/job_1/step_0", "", ("memory.max", "memory.current")),
        (
            "3:cpuset:/\n4:cpu,memory:/slurm/job_1/step_0",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ),
    ],
)
def test_limits_of_the_own_control_group_and_of_all_above_count(
    own: str, root: str, names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit(group: str, most: str, used: int) -> None:
        folder = tmp_path / "cgroup" / root / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in zip(names, (most, str(used)), strict=True):
            (folder / name).write_text(text)

    (tmp_path / "own").write_text(own)
    monkeypatch.setattr(memory, "_OWN", tmp_path / "own")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "cgroup")
    limit("", "max", 7000)
    assert (memory.available_memory() or 0) > 10_000  # the machine's
    limit("slurm/job_1", "1000", 900)
    limit("slurm/job_2", "50", 40)  # somebody else's
    assert memory.available_memory() == 100
    # Files that are kept in memory while there is room count as available.
    (tmp_path / "cgroup" / root / "slurm/job_1/memory.stat").write_text("anon 500\ninactive_file 300\n")
    assert memory.available_memory() == 400
    limit("slurm/job_1/step_0", "90", 60)
    assert memory.available_memory() == 30
    (tmp_path / "own").write_text(own.replace("/slurm", "/../../slurm"))  # seen from a namespace below
    assert (memory.available_memory() or 0) > 10_000


@pytest.mark.parametrize(
    ("given", "said", "cure"),
    [
        (
            "masker.batch_size=10000000",
            "Masking 10000000 frames at once needs about",
            "masker.batch_size to ",
        ),
        pytest.param(
            "batch_size=100000000", "batch_size=100000000 does not fit", "batch_size=", marks=pytest.mark.slow
        ),
    ],
)
def test_the_real_command_refuses_before_anything_starts(
    given: str, said: str, cure: str, tmp_path: Path
) -> None:
    done = run("train.py", "masker=tiny", "num_train_frames=1000", given, f"hydra.run.dir={tmp_path}")
    assert (
        done.returncode == 5 and f"error: {'An update with ' if cure[0] == 'b' else ''}{said}" in done.stderr
    )
    assert len(done.stderr.strip().splitlines()) == 2 and cure in done.stderr and "bytes" in done.stderr
    assert not list(tmp_path.rglob("step_*")) and not (tmp_path / "train.csv").exists()
