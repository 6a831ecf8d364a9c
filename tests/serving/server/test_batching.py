"""Batching of requests, with a function instead of a model."""

import threading

import numpy as np
import pytest

from tfgad.serving.errors import ServingError
from tfgad.serving.server.batching import Batcher, Batching, ClosedError
from tfgad.serving.server.image_sizes import Rows
from tfgad.serving.server.limits import Turns

PATIENCE = 30  # seconds until a test gives up


class Model:
    """Doubles its input; holds each run until `go_on`, and records its inputs."""

    def __init__(self, held=True):
        self.runs, self.entered = [], threading.Semaphore(0)
        self.go_on = threading.Semaphore(0 if held else 10**6)

    def __call__(self, inputs):
        self.runs.append(inputs["x"].tolist())
        self.entered.release()
        assert self.go_on.acquire(timeout=PATIENCE)
        if (inputs["x"] < 0).any():
            raise ServingError("INVALID_ARGUMENT", "negative")
        return {"y": inputs["x"] * 2}


@pytest.fixture
def batcher_of():
    """A function that creates batchers, which are closed at the end."""
    made = []

    def make(model, **options):
        splits = options.pop("splits", True)
        made.append((model, Batcher(model, Batching(**options), splits=splits)))
        return made[-1][1]

    yield make
    for model, batcher in made:
        model.go_on.release(1000)
        batcher.close()


def submit(batcher, *values, kind="same", cost=1):
    return batcher.submit({"x": np.array(values)}, Rows(len(values), cost, kind))


def occupy(model, batcher):
    """Starts a first run, so that further requests are queued."""
    first = submit(batcher, 0)
    assert model.entered.acquire(timeout=PATIENCE)
    return first


def answer(future):
    return future.result(PATIENCE)["y"].tolist()


def test_requests_during_a_run_share_the_next_one(batcher_of):
    model = Model()
    batcher = batcher_of(model)
    first = occupy(model, batcher)
    others = [submit(batcher, 1, 2), submit(batcher, 3)]
    assert batcher.queued_rows == 3
    model.go_on.release(2)
    assert [answer(each) for each in (first, *others)] == [[0], [2, 4], [6]]
    assert model.runs == [[0], [1, 2, 3]]
    assert batcher.queued_rows == 0


def test_requests_of_other_kinds_wait_for_their_own_run(batcher_of):
    model = Model()
    batcher = batcher_of(model)
    occupy(model, batcher)
    answers = [submit(batcher, i, kind=kind) for i, kind in enumerate("abab")]
    model.go_on.release(10)
    assert [answer(each) for each in answers] == [[0], [2], [4], [6]]
    assert model.runs == [[0], [0, 2], [1, 3]]


def test_requests_without_a_kind_run_alone(batcher_of):
    model = Model()
    batcher = batcher_of(model)
    occupy(model, batcher)
    answers = [submit(batcher, i, kind=None) for i in range(2)]
    model.go_on.release(10)
    assert [answer(each) for each in answers] == [[0], [2]]
    assert model.runs == [[0], [0], [1]]


def test_a_large_request_is_split_and_its_rest_shares_a_run(batcher_of):
    model = Model()
    batcher = batcher_of(model, max_batch_size=4)
    occupy(model, batcher)
    answers = [submit(batcher, *range(6)), submit(batcher, 7)]
    model.go_on.release(10)
    assert [answer(each) for each in answers] == [[0, 2, 4, 6, 8, 10], [14]]
    assert model.runs == [[0], [0, 1, 2, 3], [7, 4, 5]]


def test_pixels_limit_a_run(batcher_of):
    model = Model(held=False)
    batcher = batcher_of(model, max_cost=20)
    assert answer(submit(batcher, 1, 2, 3, cost=10)) == [2, 4, 6]
    assert answer(submit(batcher, 4, cost=1000)) == [8]
    assert model.runs == [[1, 2], [3], [4]]


def test_a_failing_request_does_not_affect_others(batcher_of):
    model = Model()
    batcher = batcher_of(model)
    occupy(model, batcher)
    good, bad, other = submit(batcher, 1), submit(batcher, -1), submit(batcher, 2)
    model.go_on.release(10)
    assert [answer(good), answer(other)] == [[2], [4]]
    with pytest.raises(ServingError, match="negative"):
        answer(bad)
    assert model.runs == [[0], [1, -1, 2], [1], [-1], [2]]


def test_a_full_queue_refuses(batcher_of):
    model = Model()
    batcher = batcher_of(model, max_queue=3)
    occupy(model, batcher)
    kept = submit(batcher, 1, 2)
    with pytest.raises(
        ServingError, match=r"queue to which this task was submitted is full \(--max-queue\)"
    ) as raised:
        submit(batcher, 3, 4)
    assert raised.value.code == "UNAVAILABLE"
    assert raised.value.http_status == 503
    also = submit(batcher, 5)
    model.go_on.release(10)
    assert [answer(kept), answer(also)] == [[2, 4], [10]]


def test_a_large_request_does_not_hold_up_others(batcher_of):
    model = Model()
    batcher = batcher_of(model, max_queue=4, max_batch_size=2)
    occupy(model, batcher)
    large = submit(batcher, *range(1, 8))
    small, last = submit(batcher, 8, kind="other"), submit(batcher, 9)
    with pytest.raises(ServingError, match="is full"):
        submit(batcher, 10)
    model.go_on.release(10)
    assert [answer(small), answer(last)] == [[16], [18]]
    assert answer(large) == [2, 4, 6, 8, 10, 12, 14]
    assert model.runs == [[0], [1, 2], [8], [9, 3], [4, 5], [6, 7]]


def test_a_cancelled_request_leaves_the_queue(batcher_of):
    model = Model()
    batcher = batcher_of(model)
    occupy(model, batcher)
    gone, kept = submit(batcher, 1), submit(batcher, 2)
    assert gone.cancel()
    assert batcher.queued_rows == 1  # at once, not when its turn comes
    model.go_on.release(10)
    assert answer(kept) == [4]
    assert model.runs == [[0], [2]]
    assert batcher.queued_rows == 0


def test_a_run_in_parts_ends_when_all_callers_have_cancelled():
    entered = threading.Semaphore(0)

    def run(inputs, is_over):
        entered.release()
        while inputs["x"][0] < 0:
            if is_over():
                raise ServingError("CANCELLED", "no caller waits")
        return {"y": inputs["x"]}

    batcher = Batcher(run, Batching(), in_parts=True)
    gone = submit(batcher, -1)
    assert entered.acquire(timeout=PATIENCE)
    after = submit(batcher, 1)
    assert gone.cancel()
    assert answer(after) == [1]
    batcher.close()


def test_an_idle_model_waits_for_the_timeout(batcher_of):
    model = Model(held=False)
    batcher = batcher_of(model, timeout=PATIENCE, max_batch_size=3)
    answers = [submit(batcher, i) for i in range(3)]  # full before the time is up
    assert [answer(each) for each in answers] == [[0], [2], [4]]
    assert model.runs == [[0, 1, 2]]


def test_an_idle_model_waits_no_longer_than_the_timeout(batcher_of):
    model = Model(held=False)
    assert answer(submit(batcher_of(model, timeout=0.01), 1)) == [2]


def test_without_batching_each_has_its_run(batcher_of):
    model = Model()
    batcher = batcher_of(model, enabled=False, threads=2)
    answers = [submit(batcher, i) for i in range(4)]
    for _ in range(2):  # two runs at once
        assert model.entered.acquire(timeout=PATIENCE)
    model.go_on.release(10)
    assert [answer(each) for each in answers] == [[0], [2], [4], [6]]
    assert sorted(model.runs) == [[0], [1], [2], [3]]


def test_closing_answers_queued_requests_and_refuses_others(batcher_of):
    model = Model()
    batcher = batcher_of(model)
    answers = [occupy(model, batcher), submit(batcher, 1)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    model.go_on.release(10)
    closing.join(PATIENCE)
    assert [answer(each) for each in answers] == [[0], [2]]
    with pytest.raises(ClosedError):
        submit(batcher, 2)


def test_inputs_without_rows_run_whole(batcher_of):
    model = Model(held=False)
    batcher = batcher_of(model, splits=False, max_batch_size=1)
    assert answer(batcher.submit({"x": np.array([1, 2])}, Rows(2, 1, "same"))) == [2, 4]
    assert model.runs == [[1, 2]]


def test_many_images_of_different_sizes_are_refused(batcher_of):
    batcher = batcher_of(Model(held=False), max_batch_size=2)
    with pytest.raises(ServingError, match=r"3 images of different sizes .*--max-batch-size"):
        submit(batcher, 1, 2, 3, kind=None)


def test_requests_run_alone_if_outputs_have_other_rows_than_inputs(batcher_of):
    class Sums(Model):
        def __call__(self, inputs):
            return {"y": super().__call__(inputs)["y"].sum(keepdims=True)}

    model = Sums()
    batcher = batcher_of(model, max_batch_size=3)
    first = occupy(model, batcher)
    others = [submit(batcher, 1, 2), submit(batcher, 3), submit(batcher, 1, 2, 3, 4)]
    model.go_on.release(10)
    assert [answer(each) for each in (first, *others)] == [[0], [6], [6], [20]]
    assert model.runs == [[0], [1, 2, 3], [1, 2], [3], [1, 2, 3, 4]]
    assert batcher.queued_rows == 0
    assert answer(submit(batcher, *range(9))) == [72]


def test_a_split_request_runs_whole_if_outputs_have_other_rows():
    def run(inputs):
        return {"y": np.float32(inputs["x"].sum())}

    batcher = Batcher(run, Batching(max_batch_size=2))
    assert answer(submit(batcher, 1, 2, 3)) == 6
    assert answer(submit(batcher, 4)) == 4
    batcher.close()


def test_outputs_of_runs_that_do_not_fit_together_are_an_error():
    def run(inputs):  # its second axis is as long as the largest value
        return {"y": np.zeros((len(inputs["x"]), inputs["x"].max()), int)}

    batcher = Batcher(run, Batching(max_batch_size=2))
    with pytest.raises(ServingError, match="runs do not fit together") as raised:
        answer(submit(batcher, 1, 1, 2))
    assert raised.value.code == "INTERNAL"
    assert answer(submit(batcher, 2, 1, 2)) == [[0, 0]] * 3  # the queue continues
    batcher.close()


def test_there_may_be_no_outputs():
    batcher = Batcher(lambda inputs: {}, Batching(max_batch_size=2))
    assert submit(batcher, 1, 2, 3).result(PATIENCE) == {}
    batcher.close()


class Failing:
    """An output with one row that fails when it is sliced."""

    shape = (1,)

    def __init__(self, error):
        self.error = error

    def __getitem__(self, rows):
        raise self.error


@pytest.mark.parametrize("error", [KeyError("y"), SystemExit()], ids=["error", "exit"])
def test_the_queue_continues_after_any_error(error):
    outputs = [{"y": Failing(error)}, {"y": np.array([2])}]
    batcher = Batcher(lambda inputs: outputs.pop(0), Batching(max_batch_size=1))
    with pytest.raises(RuntimeError, match="a batch ended in"):
        answer(submit(batcher, 1, 2))
    assert answer(submit(batcher, 1)) == [2]
    batcher.close()


def test_turns_are_in_order_of_arrival():
    turns, done = Turns(1), []

    def take(i):
        with turns.taken():
            done.append(i)

    threads = [threading.Thread(target=take, args=[i]) for i in range(3)]
    with turns.taken():
        for i, thread in enumerate(threads):
            thread.start()
            while turns.waiting <= i:
                assert thread.is_alive()
        assert done == []
    for thread in threads:
        thread.join(PATIENCE)
    assert done == [0, 1, 2]
    with pytest.raises(ServingError), turns.taken():
        raise ServingError("INTERNAL", "")
    with turns.taken():  # it was released
        assert turns.waiting == 0
