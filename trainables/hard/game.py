"""HARD's game between an augmentor and a student: the augmentor seeks views on which student and teacher disagree.

Source: Hard Augmentations for Robust Distillation (Nix, Burg & Sinz 2023, https://arxiv.org/abs/2305.14890). The
entropy term, the scale of the thresholds and the lengths of the phases are our reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from spaces import WorkError
from spaces.augmentations import Hard, View
from spaces.augmentations.hard import fill_color, load_weights, render_view
from spaces.augmentors import Augmentor, AugmentorOutput
from spaces.core.seeding import seeded_generator
from trainables.losses import divergence
from trainables.training.frozen_teacher import FrozenTeacher
from trainables.training.normalize import Normalize
from trainables.training.optimizers import Adam

AUGMENTOR_SHARE = 4
"""An augmentor step uses one image in this many of a batch."""

READ_EVERY = 10
"""Student steps between two reads of the running disagreement; each read waits for the device."""

DECAY = 0.9
"""Share of a running mean that is kept at each step."""

MIN_SCALE = 1e-2
"""Lower bound of the scale ℓ: a student that starts from its teacher's weights has no disagreement yet."""

DIVERGED = 1e4
"""A disagreement above this many times max(ℓ, 1) counts as divergence."""

SHOWN = 8
"""Images in a picture of the augmentor's views."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the drawn parameters that are kept for every epoch."""


class Game:
    """One augmentor against one student, in alternating phases.

    After `warmup` student steps, whose mean clean distillation loss sets the scale ℓ, the augmentor trains until the
    running disagreement exceeds `high`·ℓ, then the student until it falls below `low`·ℓ. Both phases have a maximum
    length; the student's has a minimum length as well, a quarter of it.

    Args:
        augment: The augmentor and the rules of the game.
        channels: Number of channels of the images.
        teacher: Frozen teacher; gradients pass through it to the augmentor.
        student: Student; never changed here.
        normalize: Normalization that both networks expect.
        temperature: Temperature of the disagreement.
        seed: Seed of all draws, together with the epoch.
        device: Device of the images and of all networks.

    Attributes:
        phases: One record for each finished phase.
        epochs: One record for each epoch: steps, disagreement, quantiles of the drawn parameters.
        grids: Pictures of views, with both networks' answers.
        snapshots: The augmentor's weights after each epoch.

    Example:
        >>> from spaces.augmentations import HardAffine
        >>> from trainables.data import load
        >>> from trainables.models import build_model
        >>> student, teacher = (build_model("mlp", classes=10, channels=1, size=8, seed=seed) for seed in (0, 1))
        >>> data = load("digits", train=20, validation=10)
        >>> images, _ = next(data.train.batches(8))
        >>> cpu = torch.device("cpu")
        >>> game = Game(HardAffine(), channels=1, teacher=FrozenTeacher(teacher), student=student,
        ...             normalize=Normalize(data, cpu), temperature=4.0, seed=0, device=cpu)
        >>> game.begin_epoch(0, game.augment, seed=0)
        >>> tuple(game.view(images).images.shape)
        (8, 1, 8, 8)
        >>> game.record_student_step(torch.tensor(1.0), torch.tensor(2.0))
        >>> game.end_epoch(None)["hard/student_steps"]
        1.0
    """

    def __init__(
        self,
        augment: Hard,
        *,
        channels: int,
        teacher: FrozenTeacher,
        student: nn.Module,
        normalize: Normalize,
        temperature: float,
        seed: int,
        device: torch.device,
    ) -> None:
        """Build the augmentor at its initial weights."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seeded_generator(seed, 0, 7).initial_seed())
            self.augmentor: Augmentor = augment.augmentor(channels).to(device)
        self.augment, self.seed = augment, seed
        self._teacher, self._student, self._normalize, self._temperature = teacher, student, normalize, temperature
        self._color, self._device = fill_color(normalize.fill, device), device
        self._learnable = [value for value in self.augmentor.parameters() if value.requires_grad]
        self._optimizer = Adam(self._learnable, lr=augment.lr)
        self._memory: list[dict[str, Tensor]] = []
        self._scale, self._clean, self._running = math.nan, math.nan, math.nan
        self._unread: list[tuple[Tensor, Tensor]] = []
        self._phase, self._length, self.student_steps, self.augmentor_steps = "student", 0, 0, 0
        self.phases: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []
        self.grids: list[dict[str, Any]] = []
        self.snapshots: dict[int, dict[str, Tensor]] = {}

    def fits(self, augment: Hard) -> bool:
        """Return True if `augment` has the same augmentor, whatever its rules."""
        return self.augment.structure == augment.structure

    # One epoch ------------------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int, augment: Hard, seed: int) -> None:
        """Begin an epoch by the rules of `augment`; all its draws follow from `seed` and its number."""
        self.augment, self._epoch = augment, epoch
        for group in self._optimizer.param_groups:
            group["lr"] = augment.lr
        del self._memory[: max(0, len(self._memory) - augment.memory)]
        self._generator = seeded_generator(seed, epoch, 6)
        self._sums: dict[str, float] = {}
        self._disagreements: list[float] = []
        self._drawn: AugmentorOutput | None = None
        self._before = (self.student_steps, self.augmentor_steps, len(self.phases))

    def train_augmentor(self, images: Tensor) -> None:
        """Run the augmentor's phase, if it is due, on parts of a batch of uint8 images, before the student's step."""
        if self._phase != "augmentor":
            return
        training = self._student.training
        self._student.eval()
        try:
            with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
                while not self._augmentor_phase_is_over():
                    self._augmentor_step(images)
        finally:
            self._student.train(training)
        if self.augment.memory:
            self._memory = [*self._memory, self.augmentor.learnable()][-self.augment.memory :]
        self._end_phase("student")

    def view(self, images: Tensor) -> View:
        """Return the student's view of uint8 images; with a memory, half of it is made by an earlier augmentor."""
        fill = self._normalize.fill
        if not self._memory or len(images) < 4:  # each half may be mixed, which takes two images
            return render_view(self._recording(self.augmentor), images, fill, self._generator)
        half = len(images) // 2
        place = int(torch.randint(len(self._memory), (), generator=self._generator))
        earlier = _EarlierAugmentor(self.augmentor, self._memory[place])
        views = (
            render_view(earlier, images[:half], fill, self._generator),
            render_view(self._recording(self.augmentor), images[half:], fill, self._generator),
        )
        shift = (0, half)
        return View(
            torch.cat([view.images for view in views]),
            torch.cat([view.first + by for view, by in zip(views, shift, strict=True)]),
            torch.cat([view.second + by for view, by in zip(views, shift, strict=True)]),
            torch.cat([view.weight for view in views]),
        )

    def record_student_step(self, clean: Tensor, disagreement: Tensor) -> None:
        """Record a student's step, and end the phase if its condition is met.

        Args:
            clean: Distillation loss on the unaugmented images, a scalar.
            disagreement: Distillation loss on their views, a scalar.
        """
        self.student_steps += 1
        self._length += 1
        self._unread.append((clean.detach(), disagreement.detach()))
        warm = self.student_steps == self.augment.warmup
        if self.student_steps % READ_EVERY == 0 or warm:
            self._read_losses()
        if math.isnan(self._scale) and self.student_steps >= self.augment.warmup:
            self._read_losses()
            self._scale = max(self._clean, MIN_SCALE)
            self._end_phase("augmentor")
        elif not math.isnan(self._scale) and self._student_phase_is_over():
            self._end_phase("augmentor")

    def end_epoch(self, examples: Tensor | None) -> dict[str, float]:
        """Record the epoch, and a snapshot of the augmentor.

        Args:
            examples: Images for a picture, (n, C, H, W) uint8; None for no picture.

        Returns:
            `hard/student_steps`, `hard/augmentor_steps` and `hard/phases` of this epoch; `hard/disagreement` (L_st, the
            mean over its student steps); and, of its augmentor steps, if any, the means `hard/sought` (L_st),
            `hard/teacher_shift` (L_tt) and `hard/entropy` (nats).
        """
        self._read_losses()
        student, augmentor, phases = self._before
        steps = self.augmentor_steps - augmentor
        counts = {
            "student_steps": self.student_steps - student,
            "augmentor_steps": steps,
            "phases": len(self.phases) - phases,
        }
        disagreement = fmean(self._disagreements) if self._disagreements else math.nan
        figures = {"disagreement": disagreement, **{name: value / steps for name, value in self._sums.items()}}
        drawn = self._drawn.parameters.float() if self._drawn is not None else torch.zeros(1, len(self.augmentor.names))
        levels = torch.tensor(QUANTILES, device=drawn.device)
        self.epochs.append(
            {"epoch": self._epoch, **counts, **figures, "quantiles": drawn.quantile(levels, dim=0).T.tolist()}
        )
        self.snapshots[self._epoch] = {name: value.cpu() for name, value in self.augmentor.learnable().items()}
        if examples is not None:
            self.grids.append(self._picture(examples))
        return {f"hard/{name}": float(value) for name, value in (counts | figures).items()}

    # The augmentor's phase -----------------------------------------------------------------------------------------

    def _augmentor_step(self, images: Tensor) -> None:
        rules = self.augment
        rows = torch.randperm(len(images), generator=self._generator)[: max(2, len(images) // AUGMENTOR_SHARE)]
        clean = images[rows.to(images.device)].float() / 255
        drawn = self.augmentor(clean, self._color, self._generator)
        with torch.no_grad():
            before = self._teacher(self._normalize(255 * clean))
        views = self._normalize(255 * drawn.images)
        answers = self._teacher.forward_with_grad(views)
        disagreement = divergence(self._student(views), answers, self._temperature)
        shift = divergence(answers, before, self._temperature)
        loss = (rules.lambda_t * shift - rules.lambda_s * disagreement) / self._scale - rules.lambda_h * drawn.entropy
        # `backward` would leave gradients in the student.
        for value, gradient in zip(
            self._learnable, torch.autograd.grad(loss, self._learnable, allow_unused=True), strict=True
        ):
            value.grad = gradient
        self._optimizer.step()
        self.augmentor_steps += 1
        self._length += 1
        values = torch.stack((disagreement, shift, drawn.entropy)).tolist()
        for name, value in zip(("sought", "teacher_shift", "entropy"), values, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._update_running_mean(values[0])

    def _augmentor_phase_is_over(self) -> bool:
        if self._length >= self.augment.augmentor_steps:
            return True
        return self._running > self.augment.high * self._scale

    def _student_phase_is_over(self) -> bool:
        longest = self.augment.student_steps
        if self._length >= longest:
            return True
        return 4 * self._length >= longest and self._running < self.augment.low * self._scale

    def _end_phase(self, following: str) -> None:
        self._read_losses()
        self.phases.append(
            {
                "phase": self._phase,
                "student_steps": self.student_steps,
                "augmentor_steps": self.augmentor_steps,
                "disagreement": self._running,
            }
        )
        # The student is in training mode in one phase and in evaluation mode in the other: their means do not compare.
        self._phase, self._length, self._running = following, 0, math.nan

    # Running means --------------------------------------------------------------------------------------------------

    def _read_losses(self) -> None:
        """Read the losses since the last read, in one transfer from the device."""
        if not self._unread:
            return
        for clean, disagreement in torch.stack([torch.stack(pair) for pair in self._unread]).tolist():
            self._clean = clean if math.isnan(self._clean) else DECAY * self._clean + (1 - DECAY) * clean
            self._disagreements.append(disagreement)
            self._update_running_mean(disagreement)
        self._unread = []

    def _update_running_mean(self, disagreement: float) -> None:
        limit = DIVERGED * max(1.0, 0.0 if math.isnan(self._scale) else self._scale)
        if not disagreement < limit:
            fault = "is NaN" if math.isnan(disagreement) else f"diverged to {disagreement:.3g}"
            hint = "try a smaller lr or lambda_s, or a larger lambda_t"
            raise WorkError(f"{self.augment.label}: the disagreement {fault} in epoch {self._epoch}; {hint}")
        running = self._running
        self._running = disagreement if math.isnan(running) else DECAY * running + (1 - DECAY) * disagreement

    # Pictures ------------------------------------------------------------------------------------------------------

    def _recording(self, augmentor: Augmentor) -> Callable[..., AugmentorOutput]:
        """Wrap `augmentor` so that its last draw is kept."""

        def record(*args: Any) -> AugmentorOutput:
            self._drawn = augmentor(*args)
            return self._drawn

        return record

    @torch.no_grad()
    def _picture(self, images: Tensor) -> dict[str, Any]:
        """Return images, their views, and both networks' answers to them."""
        view = render_view(self.augmentor, images, self._normalize.fill, self._generator)
        training = self._student.training
        self._student.eval()
        try:
            before, after = (self._teacher(self._normalize(pixels)) for pixels in (images, view.images))
            student = self._student(self._normalize(view.images))
        finally:
            self._student.train(training)
        answers = {"teacher_before": before, "teacher": after, "student": student}
        pairs = zip(student.split(1), after.split(1), strict=True)
        disagreement = torch.stack([divergence(one, other, self._temperature) for one, other in pairs])
        content: dict[str, Any] = {"epoch": self._epoch, "images": images.cpu(), "views": view.images.cpu()}
        for name, logits in answers.items():
            probability, label = logits.float().softmax(dim=1).max(dim=1)
            content[name] = {"label": label.tolist(), "probability": probability.tolist()}
        return content | {"disagreement": disagreement.tolist()}

    # State ----------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs at the end of an epoch: tensors, numbers and names only."""
        self._read_losses()
        return {
            "augment": self.augment.to_json(),
            "augmentor": self.augmentor.learnable(),
            "optimizer": self._optimizer.state_dict(),
            "memory": list(self._memory),
            "scale": self._scale,
            "clean": self._clean,
            "running": self._running,
            "phase": self._phase,
            "length": self._length,
            "steps": [self.student_steps, self.augmentor_steps],
            "names": list(self.augmentor.names),
            "phases": list(self.phases),
            "epochs": list(self.epochs),
            "grids": list(self.grids),
            "snapshots": dict(self.snapshots),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, the state of a game with the same augmentor."""
        load_weights(self.augmentor, state["augmentor"], "the augmentor's weights")
        self._optimizer.load_state_dict(state["optimizer"])
        self._memory = [{name: value.to(self._device) for name, value in part.items()} for part in state["memory"]]
        self._scale, self._clean, self._running = state["scale"], state["clean"], state["running"]
        self._phase, self._length = state["phase"], state["length"]
        self.student_steps, self.augmentor_steps = state["steps"]
        self.phases, self.epochs, self.grids = list(state["phases"]), list(state["epochs"]), list(state["grids"])
        self.snapshots = dict(state["snapshots"])


class _EarlierAugmentor:
    """An augmentor with earlier weights."""

    def __init__(self, augmentor: Augmentor, weights: dict[str, Tensor]) -> None:
        self._augmentor, self._weights = augmentor, weights

    def __call__(self, *args: Any) -> AugmentorOutput:
        drawn: AugmentorOutput = functional_call(self._augmentor, self._weights, args)
        return drawn
