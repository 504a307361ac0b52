"""Replay: returns against a hand-written loop, boundaries, eviction, memory, files, prefetching, resume."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from algos import Batch
from common.errors import ConfigError, ResourceError, SnapshotError
from training import replay_cache
from training.episodes import Episode
from training.memory import available_memory
from training.replay_buffer import ReplayBuffer
from training.replay_cache import DeviceFrames, MappedFrames, RamFrames, check_batch, choose_frames

SHAPE = (4, 4, 3)


def frame_of(episode: int, time: int) -> np.ndarray:
    """A frame that says where it comes from, differently in each channel."""
    return np.stack([np.full((4, 4), value, np.uint8) for value in (episode, time, 7)], axis=-1)


def make_buffer(directory: Path, capacity: int = 100, **options: object) -> ReplayBuffer:
    return ReplayBuffer(directory, SHAPE, 2, capacity, **options)  # type: ignore[arg-type]


def play(buffer: ReplayBuffer, episode: int, length: int, terminated: bool = False, env: int = 0) -> None:
    buffer.begin_episode(env, episode, frame_of(episode, 0))
    for time in range(length):
        last = time == length - 1
        action = np.array([episode, time], np.float32)
        discount = 0.0 if last and terminated else 1.0
        buffer.add(env, action, episode + time / 10, discount, frame_of(episode, time + 1), last)


def equal(first: Batch, second: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("nstep", [1, 3, 5])
def test_samples_against_a_hand_written_loop(tmp_path: Path, nstep: int) -> None:
    buffer = make_buffer(tmp_path, nstep=nstep, discount=0.9)
    lengths = {0: 5, 1: 9, 2: nstep, 3: nstep - 1}
    for episode, length in lengths.items():
        if length:
            play(buffer, episode, length, terminated=episode == 1)
    starts = set()
    for index in range(30):
        batch = buffer.sample(32, index)
        assert batch.obs.shape == (32, 9, 4, 4) and batch.obs.dtype == torch.uint8
        for obs, action, reward, discount, next_obs in zip(*batch[:5], strict=True):
            episode, time = (int(value) for value in action)
            starts.add((episode, time))
            wanted_reward, running = 0.0, 1.0
            for later in range(time, time + nstep):
                wanted_reward += running * (episode + later / 10)
                ended = episode == 1 and later == lengths[1] - 1
                running *= 0.9 * (0.0 if ended else 1.0)
            assert reward.item() == pytest.approx(wanted_reward, rel=1e-5)
            assert discount.item() == pytest.approx(running, rel=1e-5)
            for stack, newest in ((obs, time), (next_obs, time + nstep)):
                frames = [frame_of(episode, max(newest - age, 0)) for age in (2, 1, 0)]
                assert np.array_equal(stack, np.concatenate([f.transpose(2, 0, 1) for f in frames]))
    wanted = {(e, t) for e, length in lengths.items() for t in range(length - nstep + 1)}
    assert starts == wanted, "every start whose window ends inside its episode, and no other"


def test_episodes_are_drawn_uniformly_whatever_their_length(tmp_path: Path) -> None:
    buffer = make_buffer(tmp_path, nstep=1)
    play(buffer, 0, 3)
    play(buffer, 1, 60)
    drawn = torch.cat([buffer.sample(256, index).action[:, 0] for index in range(20)])
    assert abs(float(drawn.mean()) - 0.5) < 0.03


def test_the_open_episode_is_not_sampled(tmp_path: Path) -> None:
    buffer = make_buffer(tmp_path, nstep=1)
    buffer.begin_episode(0, 0, frame_of(0, 0))
    buffer.add(0, np.zeros(2, np.float32), 1.0, 1.0, frame_of(0, 1), last=False)
    assert not buffer.can_sample and not list(tmp_path.glob("episode_*"))
    with pytest.raises(ValueError, match="no finished episode"):
        buffer.sample(4, 0)
    buffer.add(0, np.zeros(2, np.float32), 1.0, 1.0, frame_of(0, 2), last=True)
    assert buffer.can_sample and buffer.num_transitions == 2
    with pytest.raises(ValueError, match="begin_episode"):
        buffer.add(0, np.zeros(2, np.float32), 1.0, 1.0, frame_of(0, 3), last=True)


def test_batches_depend_on_seed_and_index_only(tmp_path: Path) -> None:
    buffers = [make_buffer(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1))]
    for buffer in buffers:
        play(buffer, 0, 40)
    first, same, other = buffers
    forward = [first.sample(8, index) for index in range(4)]
    backward = [same.sample(8, index) for index in reversed(range(4))][::-1]
    assert all(equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not equal(forward[0], forward[1]) and not equal(forward[0], other.sample(8, 0))


@pytest.mark.reliability("exact", "prefetching does not change the batches")
def test_prefetching_changes_nothing(tmp_path: Path) -> None:
    plain, threaded = make_buffer(tmp_path / "a", 50), make_buffer(tmp_path / "b", 50, prefetch=True)
    for episode in range(12):
        for buffer in (plain, threaded):
            play(buffer, episode, 9)
        for index in range(3 * episode, 3 * episode + 3):
            assert equal(plain.sample(16, index), threaded.sample(16, index))
    threaded.close()


def test_oldest_episodes_leave_first_and_files_wait_for_the_snapshots(tmp_path: Path) -> None:
    buffer = make_buffer(tmp_path, capacity=20)
    for episode in range(5):
        play(buffer, episode, 6)
    assert buffer.num_transitions == 18
    assert buffer.manifest() == [f"episode_{i:010d}_6.npz" for i in (2, 3, 4)]
    assert set(buffer.sample(200, 0).action[:, 0].tolist()) == {2.0, 3.0, 4.0}
    assert len(list(tmp_path.glob("episode_*.npz"))) == 5
    buffer.delete_unnamed(kept=["episode_0000000001_6.npz"])
    assert sorted(p.name for p in tmp_path.glob("*.npz")) == [f"episode_{i:010d}_6.npz" for i in (1, 2, 3, 4)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=20), capacity=st.integers(12, 40))
def test_the_ring_never_mixes_episodes(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], capacity: int
) -> None:
    buffer = make_buffer(tmp_path_factory.mktemp("ring"), capacity, nstep=1)
    for episode, length in enumerate(lengths):
        play(buffer, episode, length)
        assert buffer.num_transitions <= capacity
        batch = buffer.sample(16, episode)
        newest = batch.obs[:, -3:, 0, 0]
        assert torch.equal(newest[:, :2].float(), batch.action), "frame and action belong together"
        assert torch.equal(batch.next_obs[:, -2, 0, 0].float(), batch.action[:, 1] + 1)


def test_an_episode_longer_than_the_buffer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="11 transitions does not fit into 10"):
        play(make_buffer(tmp_path, capacity=10), 0, 11)


@pytest.mark.parametrize("action_dim", [1, 6, 12, 38])
def test_memory_per_transition(tmp_path: Path, action_dim: int) -> None:
    buffer = ReplayBuffer(tmp_path, (84, 84, 3), action_dim, capacity=10_000)
    assert buffer.nbytes / buffer.capacity <= 22_300


CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


def with_space(monkeypatch: pytest.MonkeyPatch, ram: int | None, disk: int = 0, gpu: int = 0) -> None:
    monkeypatch.setattr(replay_cache, "available_memory", lambda: ram)
    monkeypatch.setattr(replay_cache, "available_disk", lambda directory: disk)
    monkeypatch.setattr(replay_cache, "available_gpu_memory", lambda device: gpu)


@pytest.mark.reliability("27", "too little memory for the replay buffer is told before the start, in bytes")
def test_too_little_memory_is_told_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_space(monkeypatch, ram=10_000_000)
    with pytest.raises(ResourceError, match=r"needs 22,014,889,344 bytes.*10,000,000 bytes of mem") as caught:
        ReplayBuffer(
            tmp_path, (84, 84, 3), 6, 1_000_000, open_frames=choose_frames("ram", 1_000_000, CPU, tmp_path)
        )
    assert "replay.cache=auto or memmap" in caught.value.hint
    fits = int(caught.value.hint.split("replay_buffer_size=")[1].split()[0])
    ReplayBuffer(tmp_path, (84, 84, 3), 6, fits, open_frames=choose_frames("ram", fits, CPU, tmp_path))
    with_space(monkeypatch, ram=None)
    make_buffer(tmp_path, open_frames=choose_frames("auto", 100, CPU, tmp_path))


@pytest.mark.parametrize(
    ("device", "ram", "disk", "gpu", "kind"),
    [
        (CPU, 1000, 1000, 0, RamFrames),
        (CPU, 999, 1000, 0, MappedFrames),
        (CUDA, 1000, 1000, 1000, RamFrames),  # the GPU has to keep some for the networks
        (CUDA, 1000, 1000, 2000, DeviceFrames),
    ],
)
def test_the_fastest_cache_that_fits_is_chosen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
    ram: int,
    disk: int,
    gpu: int,
    kind: type,
) -> None:
    with_space(monkeypatch, ram, disk, gpu)
    on_cpu = DeviceFrames.__init__
    monkeypatch.setattr(
        DeviceFrames, "__init__", lambda self, n, length, device: on_cpu(self, n, length, CPU)
    )
    assert type(choose_frames("auto", 10, device, tmp_path)(10, 100)) is kind


def test_without_any_room_all_places_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_space(monkeypatch, ram=500, disk=600, gpu=100)
    with pytest.raises(ResourceError) as caught:
        choose_frames("auto", 10, CUDA, tmp_path)(10, 100)
    text = str(caught.value)
    assert all(
        word in text
        for word in ("1,000 bytes", "500 bytes of memory", "600 bytes of disk", "70 bytes of GPU")
    )
    assert "replay_buffer_size=5 " in text


def test_rows_leave_room_in_memory_for_the_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_space(monkeypatch, ram=1500, disk=2000)
    left = []

    def beside(room: int) -> int:
        left.append(room)
        return 600

    kept = functools.partial(choose_frames, directory=tmp_path, beside=beside)
    assert type(kept("auto", 9, CPU)(9, 100)) is RamFrames
    assert type(kept("auto", 10, CPU)(10, 100)) is MappedFrames
    assert left == [600, 500]
    with pytest.raises(ResourceError, match=r"only 900 bytes of memory beside the updates") as caught:
        kept("ram", 10, CPU)(10, 100)
    assert "replay_buffer_size=8 " in caught.value.hint
    with_space(monkeypatch, ram=500, disk=2000)
    with pytest.raises(ResourceError, match=r"only 0 bytes of memory") as caught:
        kept("ram", 10, CPU)(10, 100)
    assert caught.value.hint == "Set replay.cache=auto or memmap."


@pytest.mark.parametrize(("cache", "words"), [("gpu", "device is cpu"), ("rom", "Did you mean ram?")])
def test_impossible_caches_are_refused(tmp_path: Path, cache: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_frames(cache, 10, CPU, tmp_path)
    assert words in str(caught.value)


def test_a_batch_that_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_space(monkeypatch, ram=10_000_000)
    check_batch(10, 1000, CPU)
    with pytest.raises(ResourceError, match=r"at least 100,000,000 bytes on cpu.*10,000,000") as caught:
        check_batch(10_000, 1000, CPU)
    assert "batch_size=125 " in caught.value.hint


def fill_and_sample(directory: Path, **options: object) -> list[Batch]:
    """Batches from before and after the ring has come round, some of them after a resume."""
    buffer, batches = make_buffer(directory, 50, **options), []
    for episode in range(14):
        play(buffer, episode, 9)
        batches += [buffer.sample(16, 2 * episode), buffer.sample(16, 2 * episode + 1)]
        if episode == 9:
            buffer = reload(buffer, **options)
    buffer.close()
    return batches


@pytest.mark.parametrize("kind", ["memmap", "device", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("prefetch", [False, True])
def test_every_cache_gives_the_same_batches(tmp_path: Path, kind: str, prefetch: bool) -> None:
    if kind == "gpu" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    openers = {
        "memmap": lambda n, length: MappedFrames(n, length, directory=tmp_path / "cache"),
        "device": lambda n, length: DeviceFrames(n, length, CPU),
        "gpu": lambda n, length: DeviceFrames(n, length, CUDA),
    }
    wanted = fill_and_sample(tmp_path / "ram")
    found = fill_and_sample(tmp_path / kind, open_frames=openers[kind], prefetch=prefetch)
    assert all(equal(a, b.to("cpu")) for a, b in zip(wanted, found, strict=True))
    assert kind != "memmap" or not list((tmp_path / "cache").iterdir()), "nothing is left on disk"


def test_a_memory_map_takes_no_more_disk_than_was_written(tmp_path: Path) -> None:
    frames = MappedFrames(1_000_000, 4096, directory=tmp_path)
    assert frames.nbytes == 4_096_000_000
    frames.write(np.array([999_999, 0]), np.full((2, 4096), 7, np.uint8))
    assert (frames.take(np.array([[999_999, 0, 1]])).view(3, -1)[:, 0] == torch.tensor([7, 7, 0])).all()
    assert os.fstat(frames._file.fileno()).st_blocks * 512 < 1_000_000
    frames.close()


def test_available_memory_is_plausible() -> None:
    available = available_memory()
    assert available is None or 2**20 < available < 2**50


def test_episode_files_are_whole_small_and_free_of_pickle(tmp_path: Path) -> None:
    frames = np.zeros((31, 3, 84, 84), np.uint8)
    frames[:, :, 30:50, 30:50] = np.random.default_rng(0).integers(0, 256, (31, 3, 20, 20))
    episode = Episode(
        12, frames, np.ones((30, 2), np.float32), np.ones(30, np.float32), np.ones(30, np.float32)
    )
    episode.save(tmp_path)
    path = tmp_path / "episode_0000000012_30.npz"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_size < frames.nbytes / 5
    loaded = Episode.load(path)
    assert loaded.index == 12 and len(loaded) == 30 and loaded.total_reward == 30
    assert all(
        np.array_equal(a, b) for a, b in zip(loaded.arrays().values(), episode.arrays().values(), strict=True)
    )


def reload(buffer: ReplayBuffer, **options: object) -> ReplayBuffer:
    again = make_buffer(buffer.directory, buffer.capacity, **{"max_lost": 1.0, **options})
    again.load_state_dict(buffer.state_dict())
    return again


def test_resume_gives_the_same_batches_and_goes_on_with_the_open_episode(tmp_path: Path) -> None:
    buffer = make_buffer(tmp_path, capacity=30, num_envs=2)
    for episode in range(6):
        play(buffer, episode, 7, env=1)
    buffer.begin_episode(0, 6, frame_of(6, 0))
    for time in range(4):
        buffer.add(0, np.array([6, time], np.float32), 1.0, 1.0, frame_of(6, time + 1), last=False)
    again = reload(buffer, num_envs=2)
    assert again.open[1] is None and again.manifest() == buffer.manifest()
    for current in (buffer, again):
        finished = current.add(0, np.array([6, 4], np.float32), 1.0, 0.0, frame_of(6, 5), last=True)
        assert finished is not None and finished.name == "episode_0000000006_5.npz"
    for index in range(5):
        assert equal(buffer.sample(16, index), again.sample(16, index))


@pytest.mark.reliability("6", "damaged or foreign episodes go to quarantine/; more than 1 % lost is an error")
@pytest.mark.parametrize(
    "damage", ["truncated", "flipped", "empty", "missing", "foreign", "other_size", "other_run"]
)
def test_a_damaged_file_is_set_aside_and_the_rest_goes_on(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    buffer = make_buffer(tmp_path)
    for episode in range(3):
        play(buffer, episode, 5)
    path = tmp_path / buffer.manifest()[2]
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        np.savez(path, something=np.zeros(3))
    elif damage == "other_run":  # a whole file of the right shape, from elsewhere
        other = Episode.load(path)
        other.frames = other.frames + np.uint8(1)
        other.save(tmp_path)
    elif damage == "other_size":
        small = Episode.load(path)
        small.frames = small.frames[:, :, :2]
        small.save(tmp_path)
    else:
        flipped = bytearray(data)
        flipped[80] ^= 255
        path.write_bytes({"truncated": data[:-30], "flipped": bytes(flipped), "empty": b""}[damage])
    again = reload(buffer)
    assert again.damaged_files == 1 and again.manifest() == buffer.manifest()[:2]
    assert set(again.sample(64, 0).action[:, 0].tolist()) == {0.0, 1.0}
    assert path.name in caplog.text and not path.exists()
    assert len(list((tmp_path / "quarantine").glob("*.npz"))) == (damage != "missing")
    with pytest.raises(SnapshotError, match="5 of 15 transitions are damaged or missing") as caught:
        reload(buffer, max_lost=0.01)
    assert "replay.max_lost=1" in caught.value.hint


@pytest.mark.reliability("2", "episodes newer than the snapshot are put aside, not sampled twice")
def test_files_of_after_the_snapshot_are_moved(tmp_path: Path) -> None:
    buffer = make_buffer(tmp_path)
    for episode in range(3):
        play(buffer, episode, 5)
    state = {"manifest": buffer.manifest()[:1], "open": [None]}
    again = make_buffer(tmp_path)
    again.load_state_dict(state)
    again.move_unnamed(kept=buffer.manifest()[:2])
    assert [p.name for p in (tmp_path / "after_snapshot").iterdir()] == buffer.manifest()[2:]
    assert sorted(p.name for p in tmp_path.glob("*.npz")) == buffer.manifest()[:2]
