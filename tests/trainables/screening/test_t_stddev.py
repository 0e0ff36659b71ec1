"""T. stddev: closed forms, streaming in any batch sizes, coverage of the interval, and the running ratio."""

import math

import numpy as np
import pytest
import torch

from spaces import Entry, Genome, Policy, RequestError
from spaces.augmentations import augmentation
from trainables.screening.t_stddev import RunningTStddev, TStddev, identity_reference, mean_deviation, percentiles

CLASSES, TOTAL, BATCH = 100, 50_000, 64


def draw(seed):
    return torch.Generator().manual_seed(seed)


def answers(count, classes=10, seed=0):
    """Distributions over the classes, (count, classes)."""
    return (2 * torch.randn(count, classes, generator=draw(seed))).softmax(dim=1)


def of_rows(metric, probabilities):
    metric.add(probabilities)
    return metric


# ---- closed forms ----------------------------------------------------------------------------------


def cifar_sized(second_view, epochs=2):
    """T. stddev of a one-hot teacher on 50,000 balanced labels, each epoch a shuffle of them all; 640 rows a mean.

    Args:
        second_view: the answers to x (B, K) → those to DA(x).
    """
    labels, metric = torch.arange(TOTAL) % CLASSES, TStddev(10 * BATCH)
    hot, generator = torch.eye(CLASSES), draw(0)
    for _ in range(epochs):
        order = torch.randperm(TOTAL, generator=generator)
        for rows in order.split(BATCH)[: TOTAL // BATCH]:
            seen = hot[labels[rows]]
            metric.add(torch.cat((seen, second_view(seen))))
    assert metric.means == epochs * (TOTAL // BATCH) // 5
    return metric.value


@pytest.fixture(scope="module")
def identity():
    return cifar_sized(lambda seen: seen)


def test_identity_of_a_one_hot_teacher(identity):
    """√(p(1 − p) / rows) with the 320 different images of a mean: 5.56e-3, where the authors measured 5.53e-3."""
    assert identity == pytest.approx(math.sqrt(0.01 * 0.99 / 320), rel=0.03)
    assert identity == pytest.approx(5.56e-3, rel=0.03)


def test_a_constant_answer_to_the_second_view_gives_half_of_identity(identity):
    """So the metric can be gamed by noise."""
    constant = cifar_sized(lambda seen: torch.full_like(seen, 1 / CLASSES))
    assert constant == pytest.approx(identity / 2, rel=1e-6)


def test_one_image_repeated_over_each_batch_gives_the_high_value(identity):
    repeated = cifar_sized(lambda seen: seen[:1].expand_as(seen))
    assert repeated == pytest.approx(2.26e-2, rel=0.04)
    assert 3.9 < repeated / identity < 4.3


def test_rows_that_are_the_same_in_every_mean_have_no_spread():
    metric = of_rows(TStddev(10, replicates=20), answers(10).repeat(40, 1))
    assert metric.value == pytest.approx(0, abs=1e-7)
    assert metric.interval() == pytest.approx((0, 0), abs=1e-7)


def test_the_value_by_hand():
    """Means (0.5, 0.5) and (0.9, 0.1): the unbiased deviation of two numbers is their distance over √2."""
    metric = TStddev(2)
    assert math.isnan(metric.value)
    metric.add(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert metric.means == 1 and math.isnan(metric.value)
    metric.add(torch.tensor([[0.8, 0.2], [1.0, 0.0]]))
    assert metric.means == 2
    assert metric.value == pytest.approx(0.4 / math.sqrt(2), rel=1e-6)


# ---- a stream --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_the_value_against_numpy(rows):
    stream = answers(rows * 30 + rows // 2)
    means = stream[: rows * 30].double().numpy().reshape(30, rows, 10).mean(axis=1)
    metric = of_rows(TStddev(rows), stream)
    assert metric.means == 30
    assert metric.value == pytest.approx(means.std(axis=0, ddof=1).mean(), rel=1e-10)


@pytest.mark.parametrize("pieces", [[1], [3], [64], [63, 1], [5, 0, 200], [1000], [7, 7, 500, 1]])
def test_the_pieces_do_not_matter(pieces):
    stream = answers(1000)
    whole = of_rows(TStddev(40, seed=1, replicates=30), stream)
    chopped, start = TStddev(40, seed=1, replicates=30), 0
    while start < len(stream):
        for size in pieces:
            chopped.add(stream[start : start + size])
            start += size
    assert chopped.means == whole.means == 25
    torch.testing.assert_close(chopped.replicates(), whole.replicates(), rtol=1e-12, atol=1e-12)


def numbers_in(state):
    return sum(value.numel() if isinstance(value, torch.Tensor) else 1 for value in state.values())


@pytest.mark.parametrize("replicates", [0, 25])
def test_the_memory_does_not_grow_with_the_means(replicates):
    metric = of_rows(TStddev(4, replicates=replicates), answers(42))
    before = numbers_in(metric.state_dict())
    metric.add(answers(4000))
    assert metric.means == 1010
    assert numbers_in(metric.state_dict()) == before
    assert numbers_in(vars(metric)) <= before + 5


def test_neither_the_answers_nor_their_gradients_are_kept():
    stream = answers(20).requires_grad_()
    before = stream.detach().clone()
    metric = of_rows(TStddev(8), stream)
    stream.detach().zero_()
    assert not any(isinstance(value, torch.Tensor) and value.requires_grad for value in metric.state_dict().values())
    assert metric.value == of_rows(TStddev(8), before).value


@pytest.mark.parametrize("replicates", [0, 25])
@pytest.mark.parametrize("seen", [0, 3, 40, 45, 203])
def test_it_goes_on_from_a_file_as_if_nothing_had_happened(replicates, seen, through_file):
    stream = answers(400)
    whole = of_rows(of_rows(TStddev(20, seed=3, replicates=replicates), stream[:seen]), stream[seen:])
    begun = of_rows(TStddev(20, seed=3, replicates=replicates), stream[:seen])
    resumed = TStddev(1, seed=99, replicates=replicates)
    resumed.load_state_dict(through_file(begun.state_dict()))
    resumed.add(stream[seen:])
    assert (resumed.rows, resumed.means) == (20, 20)
    assert torch.equal(resumed.replicates(), whole.replicates())
    assert len(resumed.replicates()) == replicates + 1


def test_a_state_is_a_copy():
    metric = of_rows(TStddev(4, replicates=5), answers(30))
    state = metric.state_dict()
    expected = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in state.items()}
    metric.add(answers(30, seed=1))
    for name, value in expected.items():
        assert torch.equal(state[name], value) if isinstance(value, torch.Tensor) else state[name] == value


def test_a_state_from_the_cpu_goes_on_where_the_answers_are():
    """With fake tensors, which have a device and no values."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        metric = of_rows(TStddev(4, replicates=3), torch.zeros(10, 5))
        metric.add(torch.zeros(9, 5, device="cuda"))
        state = metric.state_dict()
        assert (state["means"], state["pending"].device.type, state["sums"].device.type) == (4, "cuda", "cuda")


@pytest.mark.parametrize("rows", [0, -1])
def test_a_mean_of_no_rows_is_refused(rows):
    with pytest.raises(RequestError, match=f"^rows must be >= 1, got {rows}$"):
        TStddev(rows)


# ---- the interval ----------------------------------------------------------------------------------


def normal_means(count, classes, seed):
    """Means whose deviation is 0.01, (count, classes)."""
    return 0.1 + 0.01 * torch.randn(count, classes, generator=draw(seed), dtype=torch.float64)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_interval_holds_the_true_value_as_often_as_it_says(classes):
    """Many classes make it narrow, so that any bias of the bootstrap would show."""
    held, simulations = 0, 200
    for seed in range(simulations):
        metric = of_rows(TStddev(1, seed=seed, replicates=200), normal_means(60, classes, seed))
        low, high = metric.interval()
        assert low < metric.value < high
        held += low <= 0.01 <= high
    assert 0.86 <= held / simulations <= 0.99


def test_more_means_make_it_narrower():
    """With the root of their number."""

    def width(means):
        metrics = [of_rows(TStddev(1, seed=s, replicates=400), normal_means(means, 10, s)) for s in range(6)]
        return np.mean([high - low for low, high in (metric.interval() for metric in metrics)])

    assert width(800) / width(50) == pytest.approx(1 / 4, rel=0.15)
    metric = of_rows(TStddev(1, replicates=200), normal_means(100, 10, 0))
    narrow, wide = metric.interval(0.5), metric.interval(0.99)
    assert wide[0] < narrow[0] < metric.value < narrow[1] < wide[1]


def test_without_replicates_there_is_no_interval():
    metric = of_rows(TStddev(1), normal_means(20, 3, 0))
    assert metric.replicates().shape == (1,)
    assert all(math.isnan(bound) for bound in metric.interval())


@pytest.mark.parametrize("means", [0, 1])
def test_before_the_second_mean_nothing_is_known(means):
    metric = of_rows(TStddev(2, replicates=5), answers(2 * means + 1))
    assert metric.replicates().shape == (6,)
    assert metric.replicates().isnan().all()
    assert all(math.isnan(bound) for bound in metric.interval())


def test_of_two_means_some_replicates_know_nothing_and_the_interval_leaves_them_out():
    metric = of_rows(TStddev(1, replicates=200), answers(2))
    replicates = metric.replicates()
    assert 0 < replicates.isnan().sum() < 200 and not replicates[0].isnan()
    assert all(math.isfinite(bound) for bound in metric.interval())


def test_replicates_are_paired_where_the_seed_is_the_same():
    stream = answers(900)
    one, same = (of_rows(TStddev(15, seed=4, replicates=50), stream) for _ in range(2))
    half = of_rows(TStddev(15, seed=4, replicates=50), stream / 2 + 0.05)
    other = of_rows(TStddev(15, seed=5, replicates=50), stream)
    assert torch.equal(one.replicates() / same.replicates(), torch.ones(51, dtype=torch.float64))
    torch.testing.assert_close(half.replicates() / one.replicates(), torch.full((51,), 0.5, dtype=torch.float64))
    assert other.value == one.value
    assert (other.replicates()[1:] != one.replicates()[1:]).all()


def test_replicates_do_not_touch_the_global_random_state():
    before = torch.get_rng_state()
    of_rows(TStddev(1, replicates=10), answers(20))
    assert torch.equal(torch.get_rng_state(), before)


def test_percentiles_leave_nan_out():
    values = torch.tensor([math.nan, *range(101), math.nan], dtype=torch.float64)
    assert percentiles(values, 0.9) == pytest.approx((5, 95))
    assert percentiles(torch.tensor([3.0]), 0.95) == (3, 3)
    assert all(math.isnan(bound) for bound in percentiles(torch.tensor([math.nan]), 0.95))


# ---- what is expected without augmentation ---------------------------------------------------------


def test_the_mean_deviation_by_hand():
    """Of a one-hot teacher with balanced classes: √(p(1 − p)); the sample's own, so over all of its rows."""
    hot = torch.eye(4).repeat(5, 1)
    assert mean_deviation(hot) == pytest.approx(math.sqrt(0.25 * 0.75))
    assert mean_deviation(torch.tensor([[0.5, 0.5], [0.9, 0.1]])) == pytest.approx(0.2)


def test_drawn_with_replacement_it_is_the_deviation_over_the_root_of_the_images():
    assert identity_reference(0.3, 1000, 100) == pytest.approx(0.03)
    assert identity_reference(math.sqrt(0.01 * 0.99), TOTAL, 320) == pytest.approx(5.56e-3, rel=1e-3)


def test_in_many_epochs_without_replacement_it_is_smaller_by_the_share_that_a_mean_has_of_the_set():
    for rows in (10, 100, 500, 900):
        small = identity_reference(0.3, 1000, rows, 10**6, 1)
        assert small / identity_reference(0.3, 1000, rows) == pytest.approx(math.sqrt(1 - rows / 1000), rel=2e-3)
    assert identity_reference(0.3, 1000, 1000, 50, 1) == 0, "each mean is the mean of all"


def test_within_one_epoch_nothing_is_lost():
    """The means of one epoch differ as much as if they were drawn with replacement, up to N / (N − 1) and c₄."""
    for means, c4 in ((2, 0.797885), (5, 0.939986), (10, 0.972659)):
        once = identity_reference(0.3, 1000, 100, means, 10)
        assert once == pytest.approx(0.03 * math.sqrt(1000 / 999) * c4, rel=1e-5)
    assert identity_reference(0.3, 1000, 100, 20, 10) / 0.986934 < once / c4


@pytest.mark.parametrize("means", [2, 3, 5, 20])
def test_the_closed_form_is_what_few_means_give_on_average(means):
    """The sample standard deviation of few numbers is too small on average, and so must the reference be."""
    hot = torch.eye(10).repeat(400, 1)
    generator, values = draw(1), []
    for _ in range(400):
        rows = torch.randperm(4000, generator=generator)[: means * 100]
        values.append(of_rows(TStddev(100), hot[rows]).value)
    assert np.mean(values) == pytest.approx(identity_reference(mean_deviation(hot), 4000, 100, means, 40), rel=0.02)


def simulated(stream, images, epochs, replacement):
    """T. stddev over many trials, on average."""
    generator, total, values = draw(0), len(stream), []
    for _ in range(300):
        if replacement:
            rows = torch.randint(total, (epochs * (total // images) * images,), generator=generator)
        else:
            shuffles = [torch.randperm(total, generator=generator) for _ in range(epochs)]
            rows = torch.cat([order[: total // images * images] for order in shuffles])
        values.append(of_rows(TStddev(images), stream[rows]).value)
    return np.mean(values)


@pytest.mark.parametrize(("images", "epochs"), [(20, 4), (12, 3), (30, 10), (60, 12), (6, 1)])
def test_the_closed_form_against_simulation(images, epochs):
    """60 images of two classes, whose deviations are equal; small enough that drawing without replacement shows."""
    first = answers(60, 2)[:, :1].double()
    stream, total = torch.cat((first, 1 - first), dim=1), 60
    per_epoch = total // images
    deviation, means = mean_deviation(stream), epochs * per_epoch
    without = identity_reference(deviation, total, images, means, per_epoch)
    assert simulated(stream, images, epochs, replacement=False) == pytest.approx(without, rel=0.05, abs=1e-7)
    within = identity_reference(deviation, 10**9, images, means, 1)  # of so large a set one draws as with replacement
    assert simulated(stream, images, epochs, replacement=True) == pytest.approx(within, rel=0.06)


# ---- the running ratio -----------------------------------------------------------------------------

PLAIN = Genome()
HARD = Genome(Policy((Entry("Invert", 10, 0),)))
CUT = Genome(augment=augmentation("cutmix"))


class Epochs:
    """A student's epochs: batches of the training set without replacement, the last that is not full left out."""

    def __init__(self, total=960, batch=48, classes=6, certainty=3.0):
        labels = torch.arange(total) % classes
        noise = torch.randn(total, classes, generator=draw(8))
        self.logits = certainty * torch.eye(classes)[labels] + noise
        self.batch, self.generator, self.teacher_inputs = batch, draw(1), []
        self.running = self.fresh()

    def fresh(self):
        return RunningTStddev(self.ask, len(self.logits), self.batch)

    def ask(self, rows):
        self.teacher_inputs.append(len(rows))
        return self.logits[rows]

    def run(self, genome, epochs=1, *, shown=lambda logits: logits):
        for _ in range(epochs):
            self.running.begin(genome)
            for rows in torch.randperm(len(self.logits), generator=self.generator).split(self.batch):
                if len(rows) == self.batch:
                    views = [shown(self.logits[rows])] * (2 if genome.has_view else 1)
                    self.running.add(*views)
        return self.running.ratio()


def state_of(running):
    return running.state_dict()["metric"]


@pytest.mark.parametrize("genome", [PLAIN, HARD, CUT], ids=["one view", "a policy", "two views"])
@pytest.mark.parametrize(("total", "batch"), [(960, 48), (130, 50), (1000, 32)])
def test_where_the_teacher_answers_as_without_augmentation_the_ratio_is_one(genome, total, batch):
    """Whatever the number of views, whatever is left of an epoch, however small the set."""
    ratios = [Epochs(total, batch, certainty=certainty).run(genome, 60) for certainty in (1.0, 3.0)]
    assert ratios == pytest.approx([1, 1], abs=0.15)


def test_a_second_view_that_is_answered_with_a_constant_halves_it():
    epochs, ratios = Epochs(), []
    for constant in (False, True):
        epochs.running, epochs.generator = epochs.fresh(), draw(1)
        for _ in range(3):
            epochs.running.begin(CUT)
            for rows in torch.randperm(960, generator=epochs.generator).split(48):
                logits = epochs.logits[rows]
                epochs.running.add(logits, torch.zeros_like(logits) if constant else logits)
        ratios.append(epochs.running.ratio())
    assert ratios[1] / ratios[0] == pytest.approx(0.5, rel=1e-5)


def test_answers_that_spread_more_raise_it():
    assert Epochs().run(HARD, 5, shown=lambda logits: 10 * logits) > 1.05
    assert Epochs().run(HARD, 5, shown=lambda logits: logits / 10) < 0.5


def test_there_is_no_ratio_before_the_second_mean():
    epochs = Epochs()
    assert epochs.running.ratio() is None
    epochs.running.begin(PLAIN)
    for start in range(0, 480, 48):  # five batches a mean
        assert epochs.running.ratio() is None
        epochs.running.add(epochs.logits[start : start + 48])
    assert state_of(epochs.running)["means"] == 2
    assert epochs.running.ratio() > 0


def test_the_teacher_is_asked_about_plain_images_once_and_only_when_it_is_needed():
    epochs = Epochs(total=3000, batch=50)
    epochs.running.begin(PLAIN)
    assert epochs.running.ratio() is None and epochs.teacher_inputs == []
    for _ in range(3):
        assert epochs.run(PLAIN) > 0
    assert epochs.run(CUT) > 0
    assert epochs.teacher_inputs == [2048], "of a large set a sample"


def test_it_starts_anew_with_a_new_genome_and_goes_on_with_the_same():
    epochs = Epochs()
    epochs.run(PLAIN, 2)
    assert (state_of(epochs.running)["means"], state_of(epochs.running)["rows"]) == (8, 240)
    epochs.run(CUT, 1)
    assert (state_of(epochs.running)["means"], state_of(epochs.running)["rows"]) == (4, 480)
    epochs.run(CUT, 2)
    assert state_of(epochs.running)["means"] == 12
    again = Epochs()
    assert epochs.run(HARD) == pytest.approx(again.run(HARD), rel=0.5), "nothing is left of the others"
    assert state_of(epochs.running)["means"] == 4


@pytest.mark.parametrize(
    ("total", "batch", "batches"), [(960, 48, 5), (480, 48, 5), (432, 48, 4), (100, 48, 1), (40, 48, 1)]
)
def test_a_mean_takes_five_batches_or_half_of_a_small_epoch(total, batch, batches):
    epochs = Epochs(total, batch)
    epochs.running.begin(PLAIN)
    assert state_of(epochs.running)["rows"] == batches * batch


@pytest.mark.parametrize("genome", [PLAIN, HARD, CUT], ids=["one view", "a policy", "two views"])
def test_the_ratio_resumes_from_a_file(genome, through_file):
    whole, stopped = Epochs(total=1000), Epochs(total=1000)
    expected = [whole.run(genome, 1) for _ in range(4)]
    begun = [stopped.run(genome, 1) for _ in range(2)]
    state = through_file(stopped.running.state_dict())
    stopped.running = stopped.fresh()
    stopped.running.load_state_dict(state)
    assert stopped.running.ratio() == begun[-1]
    assert begun + [stopped.run(genome, 1) for _ in range(2)] == expected


def test_a_state_of_before_the_first_epoch_resumes(through_file):
    epochs = Epochs()
    state = through_file(epochs.running.state_dict())
    epochs.running.load_state_dict(state)
    assert epochs.running.ratio() is None
    assert epochs.run(HARD) == Epochs().run(HARD)
