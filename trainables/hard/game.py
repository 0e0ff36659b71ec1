"""HARD's game: the student learns from the teacher on an augmentor's views, the augmentor from where they disagree.

Source: Hard Augmentations for Robust Distillation, Nix, Burg, Sinz 2023, https://arxiv.org/abs/2305.14890; the entropy
term, the scale of the thresholds and the lengths of the phases are our reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from spaces import Phase, RequestError, WorkError
from spaces.augmentations import Hard, View, augmentation
from spaces.augmentations.hard import fill_color, load_weights, render_view
from spaces.augmentations.hard_weights import with_weights
from spaces.augmentors import Augmentor, AugmentorOutput
from spaces.core.seeding import seeded_generator
from spaces.core.weights import Learned
from spaces.schedule.schedule import merge
from trainables.losses import divergence
from trainables.training.frozen_teacher import FrozenTeacher
from trainables.training.normalize import Normalize
from trainables.training.optimizers import Adam

SHARE = 4
"""An augmentor's step sees one image in so many of a batch."""

LOOK = 10
"""Student steps from one look at the running disagreement to the next: each look waits for the device."""

KEEP = 0.9
"""How much of a running mean stays at each step."""

LEAST_SCALE = 1e-2
"""ℓ is at least this: a student that starts as its teacher has nothing to disagree about."""

EXPLODED = 1e4
"""A disagreement above so many times max(ℓ, 1) is none that anybody learns from."""

SHOWN = 8
"""Images in a picture of what the augmentor does."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the drawn parameters, that are kept of every epoch."""


class Game:
    """One augmentor against one student, phase by phase.

    After `warmup` student steps, whose clean distillation loss sets the scale ℓ, the augmentor has its turn until the
    phase's running disagreement is above `high`·ℓ, then the student until it is below `low`·ℓ; each phase has a longest
    length, the student's a shortest one as well.

    Args:
        augment: which augmentor, and the rules.
        channels: C of the images.
        teacher: frozen; gradients pass through it to the augmentor.
        student: never changed here.
        normalize: from pixels to what both networks are given.
        temperature: of the disagreement.
        seed: of every draw, with the epoch.
        device: where all of them live.
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
        """Put an augmentor at its start."""
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

    def plays(self, augment: Hard) -> bool:
        """Whether `augment` has this very augmentor, if perhaps other rules."""
        return self.augment.structure == augment.structure

    # One epoch ------------------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int, augment: Hard, seed: int) -> None:
        """Go on by the rules of `augment`; all draws of the epoch follow from `seed` and its number."""
        self.augment, self._epoch = augment, epoch
        for group in self._optimizer.param_groups:
            group["lr"] = augment.lr
        del self._memory[: max(0, len(self._memory) - augment.memory)]
        self._generator = seeded_generator(seed, epoch, 6)
        self._sums: dict[str, float] = {}
        self._judged: list[float] = []
        self._drawn: AugmentorOutput | None = None
        self._before = (self.student_steps, self.augmentor_steps, len(self.phases))

    def turn(self, images: Tensor) -> None:
        """Before a student's step on these uint8 images: the augmentor's phase, where it is due, on parts of them."""
        if self._phase != "augmentor":
            return
        training = self._student.training
        self._student.eval()
        try:
            with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
                while not self._augmentor_is_done():
                    self._augmentor_step(images)
        finally:
            self._student.train(training)
        if self.augment.memory:
            self._memory = [*self._memory, self.augmentor.learnable()][-self.augment.memory :]
        self._end_phase("student")

    def view(self, images: Tensor) -> View:
        """The student's view of uint8 images; with a memory, half of them by an earlier augmentor."""
        fill = self._normalize.fill
        if not self._memory or len(images) < 4:  # each half may be mixed, which takes two
            return render_view(self._watched(self.augmentor), images, fill, self._generator)
        half = len(images) // 2
        place = int(torch.randint(len(self._memory), (), generator=self._generator))
        earlier = _Earlier(self.augmentor, self._memory[place])
        views = (
            render_view(earlier, images[:half], fill, self._generator),
            render_view(self._watched(self.augmentor), images[half:], fill, self._generator),
        )
        shift = (0, half)
        return View(
            torch.cat([view.images for view in views]),
            torch.cat([view.first + by for view, by in zip(views, shift, strict=True)]),
            torch.cat([view.second + by for view, by in zip(views, shift, strict=True)]),
            torch.cat([view.weight for view in views]),
        )

    def compute_losses(self, clean: Tensor, disagreement: Tensor) -> None:
        """After a student's step: its distillation loss on the clean images, and on their views."""
        self.student_steps += 1
        self._length += 1
        self._unread.append((clean.detach(), disagreement.detach()))
        warm = self.student_steps == self.augment.warmup
        if self.student_steps % LOOK == 0 or warm:
            self._look()
        if math.isnan(self._scale) and self.student_steps >= self.augment.warmup:
            self._look()
            self._scale = max(self._clean, LEAST_SCALE)
            self._end_phase("augmentor")
        elif not math.isnan(self._scale) and self._student_is_done():
            self._end_phase("augmentor")

    def end_epoch(self, shown: Tensor | None) -> dict[str, float]:
        """Keep what there is to look at, and the augmentor as it stands.

        Args:
            shown: uint8 images for a picture, (n, C, H, W); None: none is due.

        Returns:
            `hard/student_steps`, `hard/augmentor_steps` and `hard/phases` of this epoch; `hard/disagreement` (L_st, the
            mean over its student steps); and of its augmentor steps, where there were any, the means `hard/sought`
            (L_st), `hard/teacher_shift` (L_tt) and `hard/entropy` (nats).
        """
        self._look()
        student, augmentor, phases = self._before
        steps = self.augmentor_steps - augmentor
        counts = {
            "student_steps": self.student_steps - student,
            "augmentor_steps": steps,
            "phases": len(self.phases) - phases,
        }
        seen = fmean(self._judged) if self._judged else math.nan
        figures = {"disagreement": seen, **{name: value / steps for name, value in self._sums.items()}}
        drawn = self._drawn.parameters.float() if self._drawn is not None else torch.zeros(1, len(self.augmentor.names))
        levels = torch.tensor(QUANTILES, device=drawn.device)
        self.epochs.append(
            {"epoch": self._epoch, **counts, **figures, "quantiles": drawn.quantile(levels, dim=0).T.tolist()}
        )
        self.snapshots[self._epoch] = {name: value.cpu() for name, value in self.augmentor.learnable().items()}
        if shown is not None:
            self.grids.append(self._picture(shown))
        return {f"hard/{name}": float(value) for name, value in (counts | figures).items()}

    # The augmentor's turn -------------------------------------------------------------------------------------------

    def _augmentor_step(self, images: Tensor) -> None:
        rules = self.augment
        rows = torch.randperm(len(images), generator=self._generator)[: max(2, len(images) // SHARE)]
        clean = images[rows.to(images.device)].float() / 255
        drawn = self.augmentor(clean, self._color, self._generator)
        with torch.no_grad():
            before = self._teacher(self._normalize(255 * clean))
        seen = self._normalize(255 * drawn.images)
        answers = self._teacher.through(seen)
        sought = divergence(self._student(seen), answers, self._temperature)
        shift = divergence(answers, before, self._temperature)
        loss = (rules.lambda_t * shift - rules.lambda_s * sought) / self._scale - rules.lambda_h * drawn.entropy
        # Not `backward`, which would leave gradients in the student.
        for value, gradient in zip(
            self._learnable, torch.autograd.grad(loss, self._learnable, allow_unused=True), strict=True
        ):
            value.grad = gradient
        self._optimizer.step()
        self.augmentor_steps += 1
        self._length += 1
        read = torch.stack((sought, shift, drawn.entropy)).tolist()
        figures = dict(zip(("sought", "teacher_shift", "entropy"), read, strict=True))
        for name, figure in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + figure
        self._take(figures["sought"])

    def _augmentor_is_done(self) -> bool:
        if self._length >= self.augment.augmentor_steps:
            return True
        return self._running > self.augment.high * self._scale

    def _student_is_done(self) -> bool:
        longest = self.augment.student_steps
        if self._length >= longest:
            return True
        return 4 * self._length >= longest and self._running < self.augment.low * self._scale

    def _end_phase(self, following: str) -> None:
        self._look()
        self.phases.append(
            {
                "phase": self._phase,
                "student_steps": self.student_steps,
                "augmentor_steps": self.augmentor_steps,
                "disagreement": self._running,
            }
        )
        # The student trains in one mode and is played against in the other, so each phase has a mean of its own.
        self._phase, self._length, self._running = following, 0, math.nan

    # Running means --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Take in the losses since the last look, in one transfer from the device."""
        if not self._unread:
            return
        for clean, disagreement in torch.stack([torch.stack(pair) for pair in self._unread]).tolist():
            self._clean = clean if math.isnan(self._clean) else KEEP * self._clean + (1 - KEEP) * clean
            self._judged.append(disagreement)
            self._take(disagreement)
        self._unread = []

    def _take(self, disagreement: float) -> None:
        limit = EXPLODED * max(1.0, 0.0 if math.isnan(self._scale) else self._scale)
        if not disagreement < limit:
            what = "is not a number" if math.isnan(disagreement) else f"exploded to {disagreement:.3g}"
            hint = "a smaller lr or lambda_s, or a larger lambda_t, may help"
            raise WorkError(f"{self.augment.label}: the disagreement {what} in epoch {self._epoch}; {hint}")
        running = self._running
        self._running = disagreement if math.isnan(running) else KEEP * running + (1 - KEEP) * disagreement

    # To look at -----------------------------------------------------------------------------------------------------

    def _watched(self, augmentor: Augmentor) -> Callable[..., AugmentorOutput]:
        def watched(*args: Any) -> AugmentorOutput:
            self._drawn = augmentor(*args)
            return self._drawn

        return watched

    @torch.no_grad()
    def _picture(self, images: Tensor) -> dict[str, Any]:
        """What both say of some images and of their views."""
        view = render_view(self.augmentor, images, self._normalize.fill, self._generator)
        training = self._student.training
        self._student.eval()
        try:
            before, after = (self._teacher(self._normalize(shown)) for shown in (images, view.images))
            student = self._student(self._normalize(view.images))
        finally:
            self._student.train(training)
        said = {"teacher_before": before, "teacher": after, "student": student}
        pairs = zip(student.split(1), after.split(1), strict=True)
        apart = torch.stack([divergence(one, other, self._temperature) for one, other in pairs])
        content: dict[str, Any] = {"epoch": self._epoch, "images": images.cpu(), "views": view.images.cpu()}
        for name, logits in said.items():
            probability, label = logits.float().softmax(dim=1).max(dim=1)
            content[name] = {"label": label.tolist(), "probability": probability.tolist()}
        return content | {"disagreement": apart.tolist()}

    # State ----------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs at the end of an epoch: tensors, numbers and names only."""
        self._look()
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
        """Go on from `state`, which is of a game with the same augmentor."""
        load_weights(self.augmentor, state["augmentor"], "the augmentor's weights")
        self._optimizer.load_state_dict(state["optimizer"])
        self._memory = [{name: value.to(self._device) for name, value in part.items()} for part in state["memory"]]
        self._scale, self._clean, self._running = state["scale"], state["clean"], state["running"]
        self._phase, self._length = state["phase"], state["length"]
        self.student_steps, self.augmentor_steps = state["steps"]
        self.phases, self.epochs, self.grids = list(state["phases"]), list(state["epochs"]), list(state["grids"])
        self.snapshots = dict(state["snapshots"])


class _Earlier:
    """An augmentor as it once was."""

    def __init__(self, augmentor: Augmentor, weights: dict[str, Tensor]) -> None:
        self._augmentor, self._weights = augmentor, weights

    def __call__(self, *args: Any) -> AugmentorOutput:
        drawn: AugmentorOutput = functional_call(self._augmentor, self._weights, args)
        return drawn


def played(state: Mapping[str, Any], weights: Mapping[str, Mapping[str, Tensor]]) -> Hard:
    """Which augmentor, and which rules, the game in `state` had last."""
    found = with_weights(augmentation(state["augment"]), weights)
    if not isinstance(found, Hard):
        raise RequestError("a game's state names a hard augmentation", value=found.kind)
    return found


def replayable(
    phases: Sequence[Phase], state: Mapping[str, Any] | None, weights: Mapping[str, Mapping[str, Tensor]]
) -> tuple[Phase, ...]:
    """`phases` as anybody can replay them: where a game was played, the augmentor as it stood after each epoch.

    Args:
        phases: from the training's first epoch on.
        state: of the game at the end; None: there was none.
        weights: ready-made ones that the genomes refer to, by their hash.
    """
    replayed: list[Phase] = []
    for epoch, genome in enumerate(phase.genome for phase in phases for _ in range(phase.epochs)):
        augment = with_weights(genome.augment, weights)
        if isinstance(augment, Hard) and augment.learns and state is not None:
            augment = replace(augment, learned=Learned.of(state["snapshots"][epoch]))
        replayed.append(Phase(1, replace(genome, augment=augment)))
    return merge(replayed)
