"""The simulation of sweeps: exact where it can be counted, and never better than what is possible."""

import pytest

from benchmarks.sweep_simulation import Cluster, makespan, run_times
from common.errors import InputError
from common.files import write_json
from training.status import DONE, update_status


@pytest.mark.parametrize(
    ("cluster", "span"),
    [
        (Cluster(1), 10.0),
        (Cluster(2), 6.0),  # 1 3 | 2 4 -> 4 and 6
        (Cluster(4), 4.0),
        (Cluster(1, pack=2, slowdown=1.5), 9.0),  # (max(1, 2) + max(3, 4)) * 1.5
        (Cluster(2, startup=0.5), 7.0),
    ],
)
def test_what_can_be_counted_by_hand(cluster, span):
    assert makespan([1.0, 2.0, 3.0, 4.0], cluster) == pytest.approx(span)


def test_preemption_costs_and_every_run_still_ends():
    times = [1.0] * 40
    calm = makespan(times, Cluster(4))
    warned = makespan(times, Cluster(4, preempted_every=0.5, requeue=0.01))
    killed = makespan(times, Cluster(4, preempted_every=0.5, requeue=0.01, lost=0.1))
    assert calm == 10.0
    assert calm < warned < killed


def test_times_are_those_of_finished_runs(tmp_path):
    write_json(tmp_path / ".sweep" / "plan.json", {"runs": {"a": {"decisions": 1}, "b": {"decisions": 1}}})
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    update_status(tmp_path / "b", state=DONE, seconds=7.0)
    assert run_times(str(tmp_path)) == [7.0]
    (tmp_path / "b" / "status.json").unlink()
    with pytest.raises(InputError, match="no finished run"):
        run_times(str(tmp_path))
