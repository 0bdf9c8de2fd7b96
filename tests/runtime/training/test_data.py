"""Data as batches: of arrays, of data sets, of generators; orders, positions and mistakes."""

import numpy as np
import pytest

import graphc
from graphc.ir import ops as ir
from graphc.runtime.training.data import PyDataset, adapter, split_off
from graphc.runtime.training.data.order import fold_in, permutation, threefry

KEY = np.array([7, 11], np.uint32)


def numbers(batches):
    return [batch[0].ravel().tolist() for batch in batches]


def joined(lists):
    return [number for each in lists for number in each]


class Squares(PyDataset):
    """Batches of two numbers."""

    def __init__(self, count=3, **kwargs):
        super().__init__(**kwargs)
        self.count, self.calls = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.calls.append(index)
        x = np.array([2 * index, 2 * index + 1], np.float32)
        return x, x**2

    def on_epoch_begin(self):
        self.calls.append("begin")

    def on_epoch_end(self):
        self.calls.append("end")


class Endless(Squares):
    """No end."""

    num_batches = None


class Broken(Squares):
    """A data set that cannot be read."""

    def __getitem__(self, index):
        raise ValueError("a bad file")


# --- order --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 100, 70000])
def test_the_order_is_that_of_the_op(size):
    np.testing.assert_array_equal(permutation(KEY, size), ir.random_permutation(KEY, size=size))


@pytest.mark.parametrize("number", [0, 1, 6, 2**31, 2**32 - 1])
def test_keys_are_those_of_the_op(number):
    np.testing.assert_array_equal(fold_in(KEY, number), ir.random_fold_in(KEY, np.uint32(number)))


def test_words_are_those_of_the_op():
    counters = np.arange(40000, dtype=np.uint32)
    for found, wanted in zip(threefry(KEY, 40000), ir.threefry(KEY, np.uint32(0), counters), strict=True):
        np.testing.assert_array_equal(found, wanted)


# --- arrays -------------------------------------------------------------------------------------------------------


def test_arrays_come_in_order_with_a_smaller_last_batch():
    data = adapter(np.arange(7), np.arange(7) * 2, batch_size=3)
    assert data.steps == 3
    assert numbers(data.start(0)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert [y.tolist() for _, y, _ in data.start(5)] == [[0, 2, 4], [6, 8, 10], [12]]
    assert data.example()[0].tolist() == [0, 1, 2]
    assert adapter(np.zeros(100)).steps == 4


def test_structures_are_cut_alike():
    x = {"a": np.arange(4), "b": [np.arange(4) * 2, np.arange(8).reshape(4, 2)]}
    *_, (last, y, weight) = adapter(x, None, np.ones(4), batch_size=3).start(0)
    assert y is None and weight.tolist() == [1]
    assert last["a"].tolist() == [3] and last["b"][0].tolist() == [6] and last["b"][1].tolist() == [[6, 7]]


def test_an_epoch_is_shuffled_by_its_key():
    data = adapter(np.arange(10), batch_size=4, shuffle=True, key=KEY)
    for epoch in (0, 1, 5):
        order = permutation(fold_in(KEY, 2 * epoch), 10).tolist()
        assert joined(numbers(data.start(epoch))) == order
        assert numbers(data.start(epoch, 2)) == [order[8:]]
    assert numbers(data.start(0)) != numbers(data.start(1))


def test_whole_batches_are_shuffled():
    data = adapter(np.arange(10), batch_size=4, shuffle="batch", key=KEY)
    found = joined(numbers(data.start(1)))
    assert sorted(found) == list(range(10)) and found != list(range(10))
    assert found.index(1) == found.index(0) + 1 and found.index(9) == found.index(8) + 1


def test_steps_per_epoch_cut_an_endless_sequence_of_passes():
    data = adapter(np.arange(6), batch_size=2, steps_per_epoch=2)
    assert [numbers(data.start(epoch)) for epoch in range(3)] == [
        [[0, 1], [2, 3]],
        [[4, 5], [0, 1]],
        [[2, 3], [4, 5]],
    ]
    shuffled = adapter(np.arange(6), batch_size=2, steps_per_epoch=5, shuffle=True, key=KEY)
    whole = [numbers(shuffled.start(epoch)) for epoch in range(3)]
    again = adapter(np.arange(6), batch_size=2, steps_per_epoch=5, shuffle=True, key=KEY)
    assert numbers(again.start(2, 1)) == whole[2][1:]
    assert sorted(joined(whole[0][:3])) == list(range(6))


def test_without_repeat_each_start_is_at_the_front():
    data = adapter(np.arange(6), batch_size=2, steps_per_epoch=2, repeat=False)
    assert numbers(data.start(0)) == numbers(data.start(1)) == [[0, 1], [2, 3]]
    with pytest.warns(UserWarning, match="ran out: 4 batches were asked for, 3 came"):
        assert len(list(adapter(np.arange(6), batch_size=2, steps_per_epoch=4, repeat=False).start(0))) == 3


def test_memory_mapped_arrays_are_read_by_the_batch(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6.0))
    data = adapter(np.load(tmp_path / "x.npy", mmap_mode="r"), batch_size=4, shuffle=True, key=KEY)
    assert isinstance(data.arrays[0], np.memmap)
    assert sorted(joined(numbers(data.start(0)))) == list(range(6))


def test_class_weights_become_weights_of_examples():
    for y in (np.array([0, 2, 1]), np.array([[0], [2], [1]]), np.eye(3)[[0, 2, 1]], np.array([0.0, 2.0, 1.0])):
        ((_, _, weights),) = adapter(np.zeros(3), y, class_weight={0: 2.0, 1: 0.5}).start(0)
        assert weights.dtype == np.float32 and weights.tolist() == [2, 1, 0.5]


def test_class_weights_of_floats_and_of_sequences():
    almost = np.array([0.9999999, 0, 2.0000001], np.float64)  # a class that was computed
    ((_, _, weights),) = adapter(np.zeros(3), almost, class_weight={0: 2.0, 1: 0.5, 2: 4.0}).start(0)
    np.testing.assert_array_equal(weights, np.array([0.5, 2.0, 4.0], np.float32))
    labels = np.array([[0, 2, 1], [1, 1, 0]])  # no one-hot rows
    with pytest.raises(graphc.GraphcError, match=r"one-hot row for each example; y has the shape \(2, 3\)"):
        list(adapter(np.zeros(2), labels, class_weight={0: 2.0}).start(0))


def test_the_last_examples_are_split_off():
    (x, y, w), (last, last_y, last_w) = split_off((np.arange(10), {"a": np.arange(10)}, None), 0.25)
    assert x.tolist() == list(range(7)) and last.tolist() == [7, 8, 9] and w is None and last_w is None
    assert y["a"].tolist() == list(range(7)) and last_y["a"].tolist() == [7, 8, 9]


# --- what gives batches -------------------------------------------------------------------------------------------


def test_a_data_set_is_read_by_number():
    squares = Squares()
    data = adapter(squares)
    assert data.steps == 3 and data.example()[1].tolist() == [0, 1]
    squares.calls.clear()
    assert numbers(data.start(0)) == [[0, 1], [2, 3], [4, 5]]
    assert squares.calls == ["begin", 0, 1, 2, "end"]


def test_a_data_set_goes_on_where_it_stopped():
    shuffled = Squares(8)
    whole = [numbers(adapter(shuffled, shuffle=True, key=KEY).start(epoch)) for epoch in (0, 1)]
    assert whole[0] != whole[1]
    again = Squares(8)
    assert numbers(adapter(again, shuffle=True, key=KEY).start(1, 3)) == whole[1][3:]
    assert again.calls[:3] == ["begin", "end", "begin"]


@pytest.mark.parametrize("workers", [2, 4])
def test_threads_read_ahead_in_order(workers):
    data = adapter(Squares(30, workers=workers, max_queue_size=3))
    assert joined(numbers(data.start(0))) == list(range(60))


def test_a_data_set_without_end_needs_the_steps():
    data = adapter(Endless(), steps_per_epoch=2)
    assert numbers(data.start(0)) == [[0, 1], [2, 3]] and numbers(data.start(1)) == [[4, 5], [6, 7]]


def test_other_sequences_and_iterables_of_batches():
    class Old:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {"a": np.full(3, index)}, np.zeros(3)

    assert [batch[0]["a"].tolist() for batch in adapter(Old()).start(0)] == [[0, 0, 0], [1, 1, 1]]

    class Again:
        def __iter__(self):
            return iter([np.array([1]), np.array([2]), np.array([3])])

    data = adapter(Again())
    assert data.example()[0].tolist() == [1] and data.steps is None
    assert numbers(data.start(0)) == numbers(data.start(1)) == [[1], [2], [3]]
    data = adapter(Again(), steps_per_epoch=2)
    assert [numbers(data.start(e)) for e in range(3)] == [[[1], [2]], [[3], [1]], [[2], [3]]]
    assert numbers(adapter(Again(), steps_per_epoch=2).start(2, 1)) == [[3]]


def test_a_loader_of_torch():
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.arange(5.0), torch.arange(5))
    data = adapter(torch.utils.data.DataLoader(pairs, batch_size=2))
    assert data.steps == 3
    x, y, weight = list(data.start(0))[-1]
    assert type(x) is np.ndarray and x.tolist() == [4] and y.dtype == np.int64 and weight is None


def count_up(to=None):
    number = 0
    while to is None or number < to:
        yield (np.array([number]),)
        number += 1


def test_a_generator_goes_on_from_epoch_to_epoch():
    data = adapter(count_up(), steps_per_epoch=3)
    assert data.example()[0].tolist() == [0]
    assert [numbers(data.start(e)) for e in range(2)] == [[[0], [1], [2]], [[3], [4], [5]]]
    assert numbers(adapter(count_up(), steps_per_epoch=3).start(1, 2)) == [[5]]
    assert numbers(adapter(count_up(), steps_per_epoch=3, initial_epoch=4).start(4)) == [[0], [1], [2]]


def test_a_generator_that_ends_is_one_epoch():
    data = adapter(count_up(3))
    assert len(numbers(data.start(0))) == 3 and not data.exhausted
    with pytest.warns(UserWarning, match="the generator ran out: epoch 2 needs a batch, 0 came"):
        assert numbers(data.start(1)) == []
    assert data.exhausted


def test_a_generator_that_is_too_short():
    data = adapter(count_up(5), steps_per_epoch=3)
    list(data.start(0))
    with pytest.warns(UserWarning, match="the generator ran out: epoch 2 needs 3 batches, 2 came"):
        assert numbers(data.start(1)) == [[3], [4]]
    assert data.exhausted


def test_a_generator_for_evaluation_goes_on():
    data = adapter(count_up(), steps_per_epoch=2, repeat=False)
    assert numbers(data.start(0)) == [[0], [1]] and numbers(data.start(0)) == [[2], [3]]


# --- mistakes -----------------------------------------------------------------------------------------------------


def fails_at(number):
    for i in range(number):
        yield np.array([i]), np.array([i])
    raise ValueError("the disk is gone")


def test_what_a_generator_raises_says_where():
    data = adapter(fails_at(5), steps_per_epoch=3)
    list(data.start(0))
    with pytest.raises(graphc.GraphcError, match="raised ValueError at epoch 2, step 3: the disk is gone") as caught:
        list(data.start(1))
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(graphc.GraphcError, match="raised ValueError at the first batch: the disk is gone"):
        adapter(fails_at(0)).example()


def give(*items):
    return adapter(iter(items))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: adapter(np.zeros(3), np.zeros(4)), "data differs in length: x has 3, y has 4"),
        (lambda: adapter([np.zeros(3)], (np.zeros(4),)), "data differs in length: x has 3, y has 4"),
        (lambda: adapter([np.zeros(3), np.zeros(2)]), r"x\[0\] has 3, x\[1\] has 2"),
        (lambda: adapter({"a": np.zeros(3), "b": np.zeros(2)}), r"x\['a'\] has 3, x\['b'\] has 2"),
        (lambda: adapter(np.zeros((0, 3))), r"there are no examples: x is \(0, 3\)"),
        (lambda: adapter(np.float32(3)), "x is a single number"),
        (lambda: adapter(np.array([1, "a"], object)), "x is an array of Python objects .the first is int"),
        (lambda: adapter(np.zeros(2), np.array([[1], [1, 2]], object)), "y is an array of Python objects"),
        (lambda: adapter(np.zeros(2), np.array(["a", "b"])), "y has the dtype <U1, which is no number"),
        (lambda: adapter(np.zeros(2), [0, 1]), r"y has 0 in a list, and lists stand for .* np.asarray\(y\)"),
        (lambda: adapter(None), "x is None"),
        (lambda: adapter(7), "x is a single number"),
        (lambda: adapter(object()), "data is arrays, a PyDataset"),
        (lambda: adapter(count_up), "has to be called"),
        (lambda: adapter(Squares), "has to be called"),
        (lambda: adapter(Squares(), np.zeros(3)), "Squares gives y and sample weights itself"),
        (lambda: adapter(Squares(0)), "Squares has no batches"),
        (lambda: adapter(Endless()), "Endless has no end"),
        (lambda: adapter(np.zeros(3), batch_size=0), "batch_size is an integer of 1 or more, not 0"),
        (lambda: adapter(np.zeros(3), steps_per_epoch=1.5), "steps_per_epoch is an integer of 1 or more"),
        (lambda: adapter(np.zeros(3), shuffle="yes"), "shuffle is True, False or 'batch'"),
        (lambda: adapter(np.zeros(3), class_weight={}), "class_weight needs the classes"),
        (lambda: adapter(np.zeros(3), np.zeros(3), np.ones(3), class_weight={}), "either class_weight or"),
        (lambda: adapter(np.zeros(3), [np.zeros(3)] * 2, class_weight={}), "models of one output"),
        (lambda: adapter(np.zeros(3), np.zeros(3), class_weight=[1, 2]), "a dict from class to weight"),
        (lambda: split_off((np.zeros(3), None, None), 1.0), "a share between 0 and 1"),
        (lambda: split_off((np.zeros(3), None, None), 0.99), "leaves 0 to train on"),
        (lambda: list(give((1, 2, 3, 4)).start(0)), "gives tuples of 4"),
        (lambda: list(give((np.zeros(3), np.zeros(2))).start(0)), "x has 3, y has 2\n.*gave at epoch 1, step 1"),
        (lambda: list(give(np.array([{}])).start(0)), "an array of Python objects"),
        (lambda: give().example(), "the generator gives no batches"),
        (
            lambda: list(give((np.zeros(2), np.zeros(2)), (np.zeros(2), np.zeros(2), np.ones(2))).start(0)),
            "at epoch 1, step 2 is made of x, y, sample_weight; the first one was of x, y",
        ),
        (lambda: list(give(np.zeros(2), {"a": np.zeros(2)}).start(0)), r"made of x\['a'\]; the first one was of x"),
        (lambda: adapter(Broken()).example(), "Broken raised ValueError at the first batch: a bad file"),
    ],
)
def test_mistakes_are_explained(make, message):
    with pytest.raises(graphc.GraphcError, match=message):
        make()


def test_nan_is_found_on_demand():
    x = np.ones((5, 2))
    x[3, 1] = np.nan
    assert len(list(adapter(x, batch_size=2).start(0))) == 3
    with pytest.raises(graphc.GraphcError, match=r"x has 1 value that is NaN.* at epoch 1, step 2.* at \[1, 1\]"):
        list(adapter(x, batch_size=2, check_finite=True).start(0))
