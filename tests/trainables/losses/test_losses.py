"""The distillation losses against closed forms and against torchdistill."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from torchdistill.losses import mid_level

from trainables.losses import (
    CRD,
    DIST,
    DKD,
    KD,
    PKT,
    RKD,
    Attention,
    DistillBatch,
    Hint,
    Mutual,
    NetworkPair,
    Similarity,
    Spectral,
    as_map,
    kd_loss,
    pooled,
)
from trainables.losses.feature.crd import draw_negatives

shapes = st.tuples(st.integers(1, 6), st.integers(2, 12))
temperatures = st.floats(0.5, 30)
seeds = st.integers(0, 2**32 - 1)
unhurried = settings(derandomize=True, deadline=None, max_examples=60)


def logits(shape, seed, spread=3.0):
    """Student's and teacher's, (B, C) float32 each."""
    random = np.random.default_rng(seed)
    return (torch.tensor(spread * random.standard_normal(shape), dtype=torch.float32) for _ in range(2))


def closed_form(student, teacher, temperature):
    """T² · mean over the batch of Σ p · (log p − log q), in float64."""
    s, t = (x.double().numpy() / temperature for x in (student, teacher))
    divergence = (softmax(t, axis=1) * (log_softmax(t, axis=1) - log_softmax(s, axis=1))).sum(axis=1)
    return temperature**2 * divergence.mean()


@given(shapes, temperatures, seeds)
@unhurried
def test_closed_form(shape, temperature, seed):
    student, teacher = logits(shape, seed)
    loss = kd_loss(student, teacher, temperature)
    assert loss.shape == () and loss.dtype == torch.float32
    # The terms cancel down from T² · 2⁻²⁴ or so, which float32 cannot see below.
    expected = closed_form(student, teacher, temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-6 * temperature**2)


def test_two_classes_by_hand():
    """p = (3/4, 1/4), q = (1/2, 1/2): KL = ln 2 − (2 ln 2 − ¾ ln 3)."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log()
    assert float(kd_loss(student, teacher, 1.0)) == pytest.approx(0.75 * np.log(3) - np.log(2), rel=1e-5)
    assert float(kd_loss(student, 2 * teacher, 2.0)) == pytest.approx(4 * (0.75 * np.log(3) - np.log(2)), rel=1e-5)


@given(shapes, temperatures, seeds)
@unhurried
def test_gradient_is_t_over_b_times_the_difference_of_the_softmaxes(shape, temperature, seed):
    student, teacher = logits(shape, seed)
    student.requires_grad_()
    teacher.requires_grad_()
    kd_loss(student, teacher, temperature).backward()
    s, t = (x.detach().double().numpy() / temperature for x in (student, teacher))
    expected = temperature / shape[0] * (softmax(s, axis=1) - softmax(t, axis=1))
    np.testing.assert_allclose(student.grad.numpy(), expected, rtol=1e-3, atol=1e-5)
    assert teacher.grad is None


@given(shapes, seeds)
@unhurried
def test_gradient_does_not_depend_on_a_high_temperature(shape, seed):
    """For T → ∞ it is the difference of the centered logits over B · C; without T² it would fall to 1/16 in between."""
    student, teacher = logits(shape, seed)
    student.requires_grad_()
    norms = []
    for temperature in (50.0, 200.0):
        (gradient,) = torch.autograd.grad(kd_loss(student, teacher, temperature), student)
        norms.append(float(gradient.norm()))
    difference = (student - teacher).detach()
    limit = float((difference - difference.mean(1, keepdim=True)).norm()) / (shape[0] * shape[1])
    assert norms[1] == pytest.approx(limit, rel=0.1, abs=1e-3) and norms[0] == pytest.approx(
        norms[1], rel=0.2, abs=1e-3
    )


@given(shapes, temperatures, seeds)
@unhurried
def test_nothing_to_learn_from_equal_answers(shape, temperature, seed):
    student, teacher = logits(shape, seed)
    student.requires_grad_()
    same = kd_loss(student, student.detach().clone(), temperature)
    same.backward()
    assert float(same.detach()) == pytest.approx(0, abs=1e-6 * temperature**2)
    assert float(student.grad.abs().max()) <= 1e-6 * temperature
    assert float(kd_loss(student.detach(), teacher, temperature)) > -1e-6 * temperature**2


@given(shapes, temperatures, seeds, st.floats(-20, 20))
@unhurried
def test_a_constant_added_to_the_logits_of_an_image_changes_nothing(shape, temperature, seed, shift):
    student, teacher = logits(shape, seed)
    expected = kd_loss(student, teacher, temperature)
    shifted = kd_loss(student + shift, teacher - 2 * shift, temperature)
    torch.testing.assert_close(shifted, expected, rtol=1e-3, atol=1e-5 * temperature**2)


def test_mean_over_the_batch():
    student, teacher = logits((3, 5), seed=0)
    each = torch.stack([kd_loss(s[None], t[None], 4.0) for s, t in zip(student, teacher, strict=True)])
    torch.testing.assert_close(kd_loss(student, teacher, 4.0), each.mean())


def test_direction_is_from_the_teacher_to_the_student():
    student, teacher = logits((4, 5), seed=1)
    assert float(kd_loss(student, teacher, 1.0)) != pytest.approx(float(kd_loss(teacher, student, 1.0)), rel=0.05)


def test_half_precision_logits_are_summed_in_float32():
    student, teacher = (x.bfloat16() for x in logits((4, 100), seed=2))
    loss = kd_loss(student, teacher, 4.0)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(closed_form(student.float(), teacher.float(), 4.0), rel=1e-4)


def test_confident_answers_stay_finite():
    student, teacher = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])
    assert float(kd_loss(student, teacher, 1.0)) == pytest.approx(400)


# What the other losses share.

PAIR = NetworkPair(10, 40, {"low": (6, 8, 8), "last": (6, 4, 4)}, {"low": (9, 8, 8), "last": (9, 4, 4)}, 10)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seen(student=None, teacher=None, features=(), rows=None, temperature=4.0, batch=8):
    """A batch; `features` are (layer, the student's, the teacher's)."""
    labels = torch.arange(batch) % 10
    return DistillBatch(
        images=normal(batch, 3, 4, 4),
        labels=labels,
        rows=torch.arange(batch) if rows is None else rows,
        temperature=temperature,
        student=normal(batch, 10, seed=1) if student is None else student,
        teacher=normal(batch, 10, seed=2) if teacher is None else teacher,
        student_features={name: student for name, student, _ in features},
        teacher_features={name: teacher for name, _, teacher in features},
    )


def judged(loss, batch, pair=PAIR):
    return loss.build(pair)(batch)["loss"].item()


def on_maps(loss, student, teacher, pair=PAIR):
    return judged(loss, seen(features=[("last", student, teacher)]), pair)


def theirs(criterion, student, teacher, *more):
    """torchdistill's number; it reads by the path of a module."""
    return criterion({"x": {"output": student}}, {"x": {"output": teacher}}, *more).item()


PATHS = {"student_module_path": "x", "student_module_io": "output"}
PATHS |= {"teacher_module_path": "x", "teacher_module_io": "output"}


# On logits.


def test_kd_is_torchdistills_times_the_squared_temperature():
    """It scales by T² only where the labels' cross-entropy is weighed in."""
    batch = seen()
    expected = theirs(mid_level.KDLoss(**PATHS, temperature=4.0, alpha=0.0), batch.student, batch.teacher)
    assert judged(KD(), batch) == pytest.approx(16 * expected, rel=1e-5)
    with_labels = mid_level.KDLoss(**PATHS, temperature=4.0, alpha=1e-6, beta=1.0)
    assert judged(KD(), batch) == pytest.approx(
        theirs(with_labels, batch.student, batch.teacher, batch.labels), rel=1e-4
    )


@given(shapes, temperatures, seeds)
@unhurried
def test_dkd_parts_make_up_kd(shape, temperature, seed):
    """KL = TCKD + (1 − p_t) · NCKD, image by image."""
    student, teacher = logits((1, shape[1]), seed)
    label = torch.tensor([seed % shape[1]])
    batch = DistillBatch(torch.zeros(1), label, label, temperature, student, teacher)
    parts = DKD(alpha=2, beta=3).build(NetworkPair(shape[1], 1, {}, {}, shape[1]))(batch)
    target, rest = float(parts["target"]), float(parts["others"])
    missed = 1 - softmax(teacher.double().numpy() / temperature, axis=1)[0, int(label)]
    expected = closed_form(student, teacher, temperature)
    assert target + missed * rest == pytest.approx(expected, rel=1e-3, abs=1e-5 * temperature**2)
    assert float(parts["loss"]) == pytest.approx(2 * target + 3 * rest, rel=1e-5, abs=1e-6 * temperature**2)


def test_dkd_by_hand():
    """Teacher (½, ¼, ¼), student (½, ⅓ · ½, ⅔ · ½) with the label first: TCKD = 0, NCKD = ½ ln (9/8)."""
    student, teacher = torch.tensor([[3.0, 1, 2]]).log(), torch.tensor([[2.0, 1, 1]]).log()
    batch = DistillBatch(torch.zeros(1), torch.tensor([0]), torch.tensor([0]), 1.0, student, teacher)
    parts = DKD().build(NetworkPair(3, 1, {}, {}, 3))(batch)
    assert float(parts["target"]) == pytest.approx(0, abs=1e-6)
    assert float(parts["loss"]) == pytest.approx(8 * 0.5 * np.log(9 / 8), rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dist_is_torchdistills(temperature):
    batch = seen(temperature=temperature)
    expected = theirs(mid_level.DISTLoss(**PATHS, beta=2.0, gamma=3.0, tau=temperature), batch.student, batch.teacher)
    assert judged(DIST(beta=2, gamma=3), batch) == pytest.approx(expected, rel=1e-5)


def test_dist_by_hand():
    """Probabilities that are one linear function of the others correlate fully; the reverse order not at all so."""
    teacher = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    assert (
        judged(DIST(), seen((teacher / 2 + 1 / 6).log(), teacher.log(), temperature=1.0), NetworkPair(3, 1, {}, {}, 3))
        < 1e-6
    )
    batch = seen(teacher.flip(0).log(), teacher.log(), temperature=1.0)
    parts = DIST().build(NetworkPair(3, 1, {}, {}, 3))(batch)
    assert parts["intra"].item() == pytest.approx(2, rel=1e-5)
    assert parts["inter"].item() == pytest.approx(1 - np.corrcoef(*teacher.numpy())[0, 1], rel=1e-5)


def test_dist_of_constant_answers_has_no_gradient_but_finite_ones():
    student = torch.zeros(8, 10, requires_grad=True)
    DIST().build(PAIR)(seen(student))["loss"].backward()
    assert student.grad.isfinite().all()


def test_mutual():
    peer = nn.Sequential(nn.Flatten(), nn.Linear(48, 10))
    criterion = Mutual().build(NetworkPair(10, 40, {}, {}, 10, lambda: peer))
    batch = seen(normal(8, 10).requires_grad_())
    parts, answers = criterion(batch), peer(batch.images)
    assert parts["loss"].item() == pytest.approx(closed_form(batch.student.detach(), answers.detach(), 4.0), rel=1e-4)
    expected = cross_entropy(answers, batch.labels).item() + closed_form(answers.detach(), batch.student.detach(), 4.0)
    assert parts["auxiliary_loss"].item() == pytest.approx(expected, rel=1e-4)
    parts["loss"].backward()
    assert peer[1].weight.grad is None and batch.student.grad.abs().sum() > 0
    batch.student.grad = None
    parts["auxiliary_loss"].backward()
    assert peer[1].weight.grad.abs().sum() > 0 and batch.student.grad is None


# On features.


def test_hint_is_the_mean_squared_error():
    student = normal(8, 9, 4, 4)
    wide = NetworkPair(10, 40, PAIR.teacher, PAIR.teacher, 10)
    assert on_maps(Hint(), student, student, wide) == 0
    assert on_maps(Hint(), student, student + 3, wide) == pytest.approx(9, rel=1e-5)
    assert on_maps(Hint(pool=True), student, student.flip(3) + 3, wide) == pytest.approx(9, rel=1e-5)


def test_attention_is_torchdistills():
    maps = [("low", normal(8, 6, 8, 8), normal(8, 9, 8, 8)), ("last", normal(8, 6, 4, 4), normal(8, 9, 4, 4))]
    expected = sum(
        theirs(mid_level.ATLoss({"p": {"student": x, "teacher": x}}), *both) for _, *both in maps for x in [X]
    )
    assert judged(Attention(), seen(features=maps)) == pytest.approx(expected, rel=1e-5)
    assert judged(Attention(student="low", teacher="low"), seen(features=maps)) < expected


X = {"io": "output", "path": "x"}


def test_attention_sees_no_sign_no_scale_and_no_order_of_channels():
    student = normal(8, 6, 4, 4)
    same = NetworkPair(10, 40, {"last": (6, 4, 4)}, {"last": (6, 4, 4)}, 10)
    assert on_maps(Attention(), student, -3 * student.flip(1), same) < 1e-12


def test_similarity_is_torchdistills_but_for_the_norm(monkeypatch):
    """Its rows have the sum 1 (`normalize(…, 1)` sets p), where the paper's equation 3 has the length 1."""
    monkeypatch.setattr(mid_level, "normalize", lambda rows, _: normalize(rows))
    student, teacher = normal(8, 6, 4, 4), normal(8, 9, 4, 4)
    expected = theirs(mid_level.SPKDLoss("x", "x", reduction="batchmean"), student, teacher)
    assert on_maps(Similarity(), student, teacher) == pytest.approx(expected, rel=1e-5)


def test_pkt_is_torchdistills():
    student, teacher = normal(8, 6, 4, 4), normal(8, 9, 4, 4)
    expected = theirs(mid_level.PKTLoss(**PATHS), student.mean((2, 3)), teacher.mean((2, 3)))
    assert on_maps(PKT(), student, teacher) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("distance", "angle"), [(25, 50), (1, 0), (0, 1)])
def test_relational_is_torchdistills(distance, angle):
    student, teacher = normal(8, 6, 4, 4), normal(8, 9, 4, 4)
    criterion = mid_level.RKDLoss("x", "x", dist_factor=distance, angle_factor=angle, reduction="mean")
    expected = theirs(criterion, student.mean((2, 3)), teacher.mean((2, 3)))
    assert on_maps(RKD(distance=distance, angle=angle), student, teacher) == pytest.approx(expected, rel=1e-5)


def test_relational_by_hand():
    """A right angle at (0, 0), between (1, 0) and (0, 1), against a straight line: distances (1, 1, √2), (1, 1, 2)."""
    corner, line = torch.tensor([[1.0, 0], [0, 0], [0, 1]]), torch.tensor([[1.0, 0], [0, 0], [-1, 0]])
    vectors = NetworkPair(10, 40, {"last": (2,)}, {"last": (2,)}, 10)
    batch = seen(features=[("last", corner, line)], batch=3)
    flat, bent = np.array([1, 1, 2]) * 3 / 4, np.array([1, 1, np.sqrt(2)]) * 3 / (2 + np.sqrt(2))
    expected = 2 * (0.5 * (flat - bent) ** 2).sum() / 9
    assert judged(RKD(distance=1, angle=0), batch, vectors) == pytest.approx(expected, rel=1e-5)
    # Twice (both orders) the angle at the corner, 0 against -1, and those at the two ends, √½ against 1.
    expected = 2 * (0.5 * 1 + 2 * 0.5 * (1 - np.sqrt(0.5)) ** 2) / 27
    assert judged(RKD(distance=0, angle=1), batch, vectors) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("features", [torch.zeros(8, 6), torch.ones(8, 6) * 1e4, normal(2, 6).repeat(4, 1)])
@pytest.mark.parametrize("loss", [RKD(), PKT(), Similarity(pool=True), Spectral(k=2)])
def test_equal_rows_have_finite_gradients(loss, features):
    student = features.clone().requires_grad_()
    pair = NetworkPair(10, 40, {"last": (6,)}, {"last": (9,)}, 10)
    value = loss.build(pair)(seen(features=[("last", student, normal(8, 9))]))["loss"]
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


def remembered(criterion):
    return criterion.contrasts[0]


def test_crd_is_torchdistills_with_the_same_draws(monkeypatch):
    """Its own module wants the embeddings made outside, draws on the data set's side, and keeps Z as a number."""
    pair = NetworkPair(10, 40, {"last": (6,)}, {"last": (9,)}, 10)
    ours = CRD(width=5, negatives=12).build(pair)
    memory = remembered(ours)
    their = mid_level.CRDLoss("s", "e", "t", input_size=5, output_size=40, num_negative_samples=12, num_samples=40)
    their.memory_v1.copy_(memory.memory_student)
    their.memory_v2.copy_(memory.memory_teacher)
    draws = torch.randint(0, 40, (8, 12))
    monkeypatch.setattr("trainables.losses.feature.crd.draw_negatives", lambda *_: draws)
    for step in range(3):
        rows = torch.arange(8) + 8 * step
        student, teacher = normal(8, 6, seed=step), normal(8, 9, seed=step + 9)
        with torch.no_grad():
            embedded = normalize(memory.student(student)), normalize(memory.teacher(teacher))
            supplement = {"pos_idx": rows, "contrast_idx": torch.cat((rows[:, None], draws), 1)}
            expected = their(
                {"s": {"output": embedded[0]}, "e": {"input": supplement}}, {"t": {"output": embedded[1]}}
            ).item()
        value = ours(seen(features=[("last", student, teacher)], rows=rows))["loss"]
        assert value.item() == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(memory.memory_student, their.memory_v1)
        torch.testing.assert_close(memory.memory_teacher, their.memory_v2)
    assert [memory.scale_student.item(), memory.scale_teacher.item()] == pytest.approx(their.params[2:4].tolist())


def test_crd_draws_evenly_among_images_of_other_labels():
    labels = torch.tensor([0, 1, 2, 1, 0, 2, -1, 0])
    own = torch.tensor([0, 1, 2])
    drawn = draw_negatives(labels, own, 20_000)
    for label, rows in zip(own.tolist(), drawn, strict=True):
        allowed = labels != label
        shares = torch.bincount(rows, minlength=8) / 20_000
        assert not shares[~allowed].any()
        torch.testing.assert_close(shares[allowed], (1 / allowed.sum()).expand(int(allowed.sum())), atol=0.02, rtol=0)


def test_crd_remembers_the_labels_that_it_saw():
    criterion = CRD(width=4, negatives=100).build(PAIR)
    assert criterion.negatives == 40, "no more than there are images"
    criterion(seen(features=[("last", normal(8, 6, 4, 4), normal(8, 9, 4, 4))], rows=torch.arange(8) * 5))
    assert criterion.labels[::5].tolist() == list(range(8)) and (criterion.labels == -1).sum() == 32


def test_crd_goes_on_from_its_state():
    first, again = (CRD(width=4, negatives=7).build(PAIR) for _ in range(2))
    batch = seen(features=[("last", normal(8, 6, 4, 4), normal(8, 9, 4, 4))])
    first(batch)
    again.load_state_dict(first.state_dict())
    values = []
    for criterion in (first, again):
        torch.default_generator.manual_seed(3)
        values.append(criterion(batch)["loss"].item())
    assert values[0] == values[1]


@pytest.mark.parametrize("shape", [(20, 6), (5, 9)])
def test_spectral_is_the_share_beyond_k(shape):
    rows = normal(*shape)
    values = np.linalg.svd((rows - rows.mean(0)).numpy(), compute_uv=False) ** 2
    criterion = Spectral(k=2).build(NetworkPair(10, 40, {"last": shape[1:]}))
    value = criterion(seen(features=[("last", rows, None)], batch=shape[0]))["loss"]
    assert value.item() == pytest.approx(values[2:].sum() / values.sum(), rel=1e-4)
    shares = values[values > 1e-9] / values.sum()
    assert criterion.report() == {"rank": pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)}
    assert criterion.report() == {}


def test_spectral_gradient_at_equal_singular_values():
    """Four directions of one strength each: the share is 1/2 for k = 2, and the gradient follows its definition."""
    rows = torch.cat((torch.eye(4), -torch.eye(4))).requires_grad_()
    criterion = Spectral(k=2).build(NetworkPair(10, 40, {"last": (4,)}))
    value = criterion(seen(features=[("last", rows, None)]))["loss"]
    value.backward()
    assert value.item() == pytest.approx(0.5) and rows.grad.isfinite().all()
    assert (rows.detach() * rows.grad).sum().item() == pytest.approx(0, abs=1e-6), "the share has no scale"


def test_spectral_gradient_by_differences():
    rows = normal(7, 5).double().requires_grad_()
    criterion = Spectral(k=2).build(NetworkPair(10, 40, {"last": (5,)}))
    value = criterion(seen(features=[("last", rows, None)], batch=7))["loss"]
    value.backward()
    direction, values = normal(7, 5, seed=4), []
    for sign in (1, -1):
        moved = rows.detach() + sign * 1e-2 * direction
        values.append(criterion(seen(features=[("last", moved, None)], batch=7))["loss"].item())
    assert (rows.grad * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-2, rel=0.02)


# Features of other shapes.


def test_tokens_are_a_square_without_their_class_token():
    tokens = normal(2, 10, 3)
    square = as_map(tokens)
    assert square.shape == (2, 3, 3, 3)
    torch.testing.assert_close(square[1, :, 1, 2], tokens[1, 1 + 5])
    torch.testing.assert_close(as_map(tokens[:, 1:]), square)
    torch.testing.assert_close(pooled(tokens), tokens[:, 1:].mean(1))
    assert as_map(tokens[:, 0]).shape == (2, 3, 1, 1)
    with pytest.raises(ValueError, match=r"square map.*7 tokens"):
        as_map(tokens[:, :7])


def test_the_larger_map_is_pooled_to_the_smaller_one():
    student = normal(8, 9, 8, 8)
    teacher = student.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))
    pair = NetworkPair(10, 40, {"last": (9, 8, 8)}, {"last": (9, 4, 4)}, 10)
    assert on_maps(Hint(), student, teacher, pair) < 1e-12
