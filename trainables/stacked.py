"""Several small learners of one task, trained as one batched computation.

The networks' parameters are stacked and answer through `torch.func` in one go, and so does the one teacher that all
students share; images, augmentation, losses and optimisers stay each learner's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call

from spaces import RequestError, WorkError
from trainables.epoch import Batch, Epoch, objective, private_randomness
from trainables.learner import Learner

Turn = Sequence[tuple[Tensor, Batch]]
"""Each learner's next batch."""


class Stack:
    """Learners whose `step`s are taken together.

    After a step each learner is as if it had stepped alone, but for float32's rounding: genome, weights, statistics,
    optimiser, position of the learning rate and metrics are its own, and between two steps everything that a learner
    can do (`obey`, `evaluate`, `state_dict`, `load_state_dict`, `step`) is done with the learner itself.

    It pays where a network is so small that the overhead of its operations takes the time: benchmarks/stacked.py.

    Args:
        learners: of one task; they may differ in seed, genome and epoch.

    Raises:
        RequestError: they cannot be stacked; see `stackable`.
    """

    def __init__(self, learners: Sequence[Learner]) -> None:
        """Try the networks on two images each."""
        if why := stackable(learners):
            raise RequestError(f"these learners cannot be stacked: {why}", mend="step each alone")
        self.learners = tuple(learners)

    def step(self) -> list[dict[str, float]]:
        """Train one epoch of each learner.

        Returns:
            for each, what its own `step` returns; each has spent its share of the seconds.

        Raises:
            RequestError: the learners' genomes cannot train together; nothing was trained.
            WorkError: a learner's loss is no longer finite; all others have trained their epoch.
        """
        start = time.perf_counter()
        if why := _apart(self.learners):
            raise RequestError(f"these learners cannot be stacked: {why}", mend="step each alone in this epoch")
        first = self.learners[0]
        epochs = [Epoch(learner) for learner in self.learners]
        networks = [learner.model for learner in self.learners]
        with private_randomness(first.seed, first.epoch, first.device), _joined(networks) as one:
            for turn in zip(*epochs, strict=True):
                with first.autocast():
                    parts = self._losses(turn, one)
                for learner in self.learners:
                    learner.forget()
                one.backward(torch.stack([objective(each) for each in parts]).sum())
                for epoch, each, (_, batch) in zip(epochs, parts, turn, strict=True):
                    epoch.update(each, batch)
        return self._ends(epochs, start)

    def _losses(self, turn: Turn, one: Joined) -> list[dict[str, Tensor]]:
        """What `Learner.losses` gives, for each."""
        answers = self._answers(turn)
        looks = [
            learner.look(images, batch, answer)
            for learner, (images, batch), answer in zip(self.learners, turn, answers, strict=True)
        ]
        logits = one(torch.stack([look.shown.contiguous() for look in looks]))
        judged = zip(self.learners, looks, logits.unbind(), strict=True)
        return [learner.judge(look, each) for learner, look, each in judged]

    def _answers(self, turn: Turn) -> Sequence[Tensor | None]:
        """The teacher's, to all learners' images in one go."""
        teacher = self.learners[0].teacher
        if teacher is None:
            return [None] * len(turn)
        asked = [learner.asked(images, batch) for learner, (images, batch) in zip(self.learners, turn, strict=True)]
        answers: Tensor = teacher(torch.cat(asked))
        return answers.chunk(len(turn))

    def _ends(self, epochs: Sequence[Epoch], start: float) -> list[dict[str, float]]:
        metrics, failed = [], []
        for index, epoch in enumerate(epochs):
            try:
                metrics.append(epoch.end(start, share=len(epochs)))
            except WorkError as error:
                failed.append(f"learner {index}: {error}")
        if failed:
            raise WorkError("; ".join(failed))
        return metrics


def stackable(learners: Sequence[Learner]) -> str | None:
    """Why these learners cannot train as one; None: they can.

    They are of one task: role, data, recipe and device, the same network, the same teacher. The network's weights lie
    in the plain order (`channels_last: false`), and it computes without drawing (dropout does draw) and with what
    `torch.vmap` knows. Losses look at logits alone, no network is of few bits, no game is played, and all genomes have
    a second view or none has.
    """
    if not learners:
        return "there are none"
    if len(set(map(id, learners))) < len(learners):
        return "one is there twice"
    first, form = learners[0], _form(learners[0].model)
    for learner in learners:
        for name in ("role", "recipe", "device"):
            if getattr(learner, name) != getattr(first, name):
                return f"they differ in {name}"
        if learner.data is not first.data:
            return "they differ in data"
        if _form(learner.model) != form:
            return "their networks differ"
        if not _same(first.teacher, learner.teacher):
            return "their teachers differ"
        if not all(parameter.is_contiguous() for parameter in learner.model.parameters()):
            return "weights in channels-last order are not stacked; `channels_last: false` keeps them in the plain one"
    return _apart(learners) or _misfit(learners)


def _apart(learners: Sequence[Learner]) -> str | None:
    """What of the genomes in force keeps the learners from training as one."""
    for learner in learners:
        if why := learner.alone():
            return why
    if len({learner.agent.genome.has_view for learner in learners}) > 1:
        return "some genomes have a second view, and some have none"
    return None


def _misfit(learners: Sequence[Learner]) -> str | None:
    """What `torch.vmap` has against the network."""
    data, networks = learners[0].data, [learner.model for learner in learners]
    images = torch.zeros(len(learners), 2, data.channels, data.size, data.size, device=learners[0].device)
    modes = [(module, module.training) for module in networks[0].modules()]
    before = [buffer.clone() for network in networks for buffer in network.buffers()]
    try:
        networks[0].train()
        with torch.no_grad(), _joined(networks) as one:
            one(images)
    except Exception as error:  # whatever a user's network, or torch, raises
        return f"the network does not vectorise ({type(error).__name__}: {str(error).splitlines()[0]})"
    finally:
        for module, mode in modes:
            module.training = mode
        for buffer, value in zip(chain.from_iterable(each.buffers() for each in networks), before, strict=True):
            buffer.copy_(value)
    return None


def _form(network: nn.Module) -> list[object]:
    """Equal for networks that compute the same from equal parameters, as far as that can be seen from outside."""
    tensors = chain(network.named_parameters(), network.named_buffers())
    return [repr(network), *((name, each.shape, each.dtype, each.requires_grad) for name, each in tensors)]


def _same(one: nn.Module | None, other: nn.Module | None) -> bool:
    if one is None or other is None or one is other:
        return one is other
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


class Joined:
    """Networks of one form as one: images (M, B, C, H, W) → logits (M, B, classes), M learners.

    Args:
        networks: their parameters and buffers become slices of what is computed with.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """Stack what they have."""
        self._network = networks[0]
        self._members = [dict(chain(each.named_parameters(), each.named_buffers())) for each in networks]
        self._stacked = {name: self._stack(name) for name in self._members[0]}
        self._own = [{name: each.data for name, each in member.items()} for member in self._members]
        for name, whole in self._stacked.items():
            for member, slice_ in zip(self._members, whole.data.unbind(), strict=True):
                member[name].data = slice_

    def _stack(self, name: str) -> Tensor:
        tensors = [member[name] for member in self._members]
        return torch.stack([each.detach() for each in tensors]).requires_grad_(tensors[0].requires_grad)

    def __call__(self, images: Tensor) -> Tensor:
        """What each member's network answers to its own images."""
        logits: Tensor = torch.vmap(self._answer)(self._stacked, images)
        return logits

    def _answer(self, tensors: dict[str, Tensor], images: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._network, tensors, (images,))
        return logits

    def backward(self, loss: Tensor) -> None:
        """Give every member's parameters the gradient of `loss`."""
        for whole in self._stacked.values():
            whole.grad = None
        loss.backward()
        for name, whole in self._stacked.items():
            if whole.grad is not None:
                for member, gradient in zip(self._members, whole.grad.unbind(), strict=True):
                    member[name].grad = gradient

    def part(self) -> None:
        """Give every member its own memory back, with the values of now."""
        for member, own in zip(self._members, self._own, strict=True):
            for name, each in member.items():
                own[name].copy_(each.data)
                each.data, each.grad = own[name], None


@contextmanager
def _joined(networks: Sequence[nn.Module]) -> Iterator[Joined]:
    """While it lasts, the networks compute as one; afterwards each has its own memory again, trained or not."""
    one = Joined(networks)
    try:
        yield one
    finally:
        one.part()
