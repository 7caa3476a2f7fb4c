"""One erasure over several processes, on one machine or more: they share the latents of every step.

The first process runs the command as if it were alone. The others serve it: they hold the model twice and the
loss's networks, and for each step they take the weights as they are now, find the gradients of their chunks,
and give them back with the figures. Adam, the checks, the checkpoint and everything that is written, pushed
or printed are the first's alone, so nothing happens twice and no two can drift apart.

`torchrun` or `accelerate launch` start them, and accelerate speaks between them (`guide-hub[distributed]`):
over gloo on the CPU, over NCCL on CUDA. They trust each other, and speak in clear.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import io
import os
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from guide_hub.errors import ConflictError, GuideHubError, HubError, InputError, Problem, RefusedError
from guide_hub.interrupt import Stopper, stopping

if TYPE_CHECKING:
    from torch import Tensor

    from guide_hub.eg3d import EG3D
    from guide_hub.guide.eraser import Draws, Eraser, Figures, Pairs
    from guide_hub.networks import NetworkNames

PATIENCE = timedelta(days=1)  # the others wait while the first inverts, measures and pushes
DEBUG = "GUIDE_HUB_DEBUG"


class Processes:
    """What a run may ask of its processes; this one is alone and does everything itself, at no cost."""

    count = 1
    made_with: dict[str, Any] = {}  # noqa: RUF012  # joins what a resumed run has to have in common

    @staticmethod
    def alone() -> Processes:
        return Processes()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def load(self, teacher: EG3D, names: NetworkNames, stopper: Stopper) -> None:
        """Gives everybody the model. A signal to any of them reaches `stopper` with the next step."""

    def backward(self, eraser: Eraser, pairs: list[Pairs], draws: Draws) -> list[Figures]:
        """An eraser's `share`: the gradients go to its parameters, the figures come in their order."""
        return eraser.backward(pairs, draws)


def launched(device: str) -> Processes:
    """The processes that torchrun or `accelerate launch` started for a run on `device` (as in `--device`).

    It returns in the first one alone, which enters it as a context. In the others it serves the first, and
    ends the process with the first's exit code (SystemExit). InputError: accelerate is not installed, or
    `device` is neither CPU nor CUDA.
    """
    count = int(os.environ.get("WORLD_SIZE") or 1)
    if count == 1 or "RANK" not in os.environ:
        return Processes.alone()
    try:
        from accelerate import PartialState
    except ImportError:
        remedy = "pip install 'guide-hub[distributed]', or start one process"
        raise InputError("several processes need accelerate", remedy=remedy) from None
    from guide_hub.sequence import pick_device

    kind = pick_device(device).type
    if kind == "cpu":
        state = PartialState(cpu=True, timeout=PATIENCE)
    elif kind == "cuda":
        # What is no tensor of the model's goes over gloo: a wait in NCCL keeps the GPU busy.
        state = PartialState(backend="cuda:nccl,cpu:gloo", timeout=PATIENCE)
    else:
        raise InputError(f"several processes do not run on {kind}", remedy="use --device cpu")
    if state.is_main_process:
        return _First(state)
    sys.exit(_Other(state).serve())


class Lost(GuideHubError):
    """Another process ended, or cannot be reached any more."""

    def __init__(self) -> None:
        super().__init__(
            "another process has ended, or cannot be reached",
            remedy="its own message says why; the same command goes on from the last saved step",
        )


@dataclass(frozen=True)
class _Outcome:
    """How one process's share went. `error` is the kind of what it raised, with `problems`."""

    figures: Sequence[Figures] = ()
    error: type[GuideHubError] | None = None
    problems: Sequence[Problem] = ()
    signum: int | None = None


class _Group:
    """What all of them do at the same time."""

    def __init__(self, state: Any):
        import torch

        self.state = state
        self.count: int = state.num_processes
        self.device = torch.device("cpu") if state.device.type == "cpu" else state.device  # not cpu:0

    def say(self, message: Any = None) -> Any:
        """The first's message, in all processes; its tensors come on each one's own device."""
        import torch
        from accelerate.utils import broadcast_object_list

        packed: list[Any] = [None]
        if self.state.is_main_process:
            buffer = io.BytesIO()
            torch.save(message, buffer)
            packed = [buffer.getvalue()]
        with _reached():
            broadcast_object_list(packed)
        if self.state.is_main_process:
            return message
        # a pickle, as all that torch.distributed says in objects: the processes are one program
        return torch.load(io.BytesIO(packed[0]), map_location=self.device, weights_only=False)

    def weights(self, parameters: Sequence[Tensor]) -> None:
        """The first's values in all processes."""
        from accelerate.utils import broadcast

        flat = _flat([p.detach() for p in parameters])
        with _reached():
            _spread(broadcast(flat), [p.detach() for p in parameters])

    def gradients(self, parameters: Sequence[Tensor]) -> None:
        """The sum over all processes in each of them. Who had no share has none, or zeros."""
        import torch
        from accelerate.utils import reduce

        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        grads = [p.grad for p in parameters if p.grad is not None]
        with _reached():
            _spread(reduce(_flat(grads), "sum"), grads)

    def outcomes(self, own: _Outcome) -> list[_Outcome]:
        from accelerate.utils import gather_object

        with _reached():
            found: list[_Outcome] = gather_object([own])
        return found

    def leave(self) -> None:
        self.state.destroy_process_group()


class _First(_Group, Processes):
    """The process that runs the command."""

    def __init__(self, state: Any):
        super().__init__(state)
        self.made_with = {"processes": self.count}
        self.code = 0  # of this process, when it ends
        self.sound = True  # whether all are waiting for the next message
        self.stopper = Stopper()
        self.eraser: Callable[[], Eraser | None] = lambda: None  # whose step was the last one
        atexit.register(self.end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.code = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1)

    def load(self, teacher: EG3D, names: NetworkNames, stopper: Stopper) -> None:
        self.stopper = stopper
        self._together(_Model(teacher.config.to_dict(), teacher.state_dict(), names), list)

    def backward(self, eraser: Eraser, pairs: list[Pairs], draws: Draws) -> list[Figures]:
        recipe = None if self.eraser() is eraser else eraser.recipe
        self.eraser = weakref.ref(eraser)
        found = self._together(
            _Step(recipe, pairs, draws),
            lambda: eraser.backward(pairs, draws, 0, self.count),
            eraser.parameters,
        )
        return sorted(found, key=lambda figures: figures.number)

    def _together(
        self, message: Any, work: Callable[[], list[Figures]], parameters: Sequence[Tensor] | None = None
    ) -> list[Figures]:
        """Everybody's figures. What one process raised is raised here, when none is at work any more."""
        if not self.sound:
            raise Lost
        self.sound = False  # until the end of what follows: an interruption leaves the others in the middle
        self.say(message)
        if parameters is not None:
            self.weights(parameters)
        own, error = _outcome(work)
        outcomes = self.outcomes(own)
        failed = [(k, o) for k, o in enumerate(outcomes) if o.error is not None]
        if parameters is not None and not failed:
            self.gradients(parameters)
        self.sound = True
        if error is not None:
            raise error
        for k, outcome in failed:
            assert outcome.error is not None
            told = [dataclasses.replace(p, message=f"process {k}: {p.message}") for p in outcome.problems]
            raise outcome.error(*told)
        for outcome in outcomes:
            if outcome.signum is not None:
                self.stopper(outcome.signum, None)
        return [figures for outcome in outcomes for figures in outcome.figures]

    def end(self) -> None:
        """Lets the others go, with this one's exit code; last of all, since a launcher ends all after one."""
        if not self.sound:  # somebody waits for something else; that this process ends will tell them
            return
        self.sound = False
        sys.stdout.flush()
        with contextlib.suppress(Lost):
            self.say(_End(self.code))
            self.leave()


class _Other(_Group):
    """A process that serves the first."""

    def serve(self) -> int:
        """Until the first ends; its exit code. Signals wait, and are told to the first with the next step."""
        with stopping() as stopper, stopper.step():
            try:
                code = self._serve(stopper)
                self.leave()
                return code
            except Lost:
                if stopper.signum is not None:
                    return 128 + stopper.signum
                print("guide-hub: the first process has ended without a word", file=sys.stderr)
                return 1

    def _serve(self, stopper: Stopper) -> int:
        desk = _Desk(self)
        while not isinstance(message := self.say(), _End):
            if isinstance(message, _Step):
                self.weights(desk.parameters)
            own, _ = _outcome(partial(desk.work, message))
            outcomes = self.outcomes(dataclasses.replace(own, signum=stopper.signum))
            failed = any(outcome.error is not None for outcome in outcomes)
            if isinstance(message, _Step) and not failed:
                self.gradients(desk.parameters)
        return message.code


@dataclass(frozen=True)
class _Model:
    """The model as it was pulled, and the networks of the loss."""

    config: dict[str, Any]
    state: dict[str, Tensor]
    names: NetworkNames


@dataclass(frozen=True)
class _Step:
    """`recipe` comes with an eraser's first step: what was kept of the one before has no use any more."""

    recipe: Any
    pairs: list[Pairs]
    draws: Draws


@dataclass(frozen=True)
class _End:
    code: int


class _Desk:
    """What a serving process works with: what the first has, but for the judge and the photos."""

    def __init__(self, group: _Group):
        self.group = group
        self.parameters: Sequence[Tensor] = ()

    def work(self, message: _Model | _Step) -> list[Figures]:
        return self._load(message) if isinstance(message, _Model) else self._step(message)

    def _load(self, model: _Model) -> list[Figures]:
        from guide_hub.eg3d import EG3D
        from guide_hub.faces.registry import load_identity, load_perceptual

        device = self.group.device
        self.teacher, self.student = (EG3D(model.config).to(device).eval() for _ in range(2))
        for side in (self.teacher, self.student):
            side.load_state_dict(model.state)
        self.parameters = list(self.student.backbone.synthesis.parameters())
        self.perceptual = load_perceptual(model.names.perceptual, device)
        self.identity = load_identity(model.names.identity_loss, device)
        return []

    def _step(self, step: _Step) -> list[Figures]:
        from guide_hub.guide.eraser import Eraser

        if step.recipe is not None:
            self.eraser = Eraser(self.student, self.teacher, step.recipe, self.perceptual, self.identity)
        self.eraser.optimizer.zero_grad(set_to_none=True)
        return self.eraser.backward(step.pairs, step.draws, self.group.state.process_index, self.group.count)


def _outcome(work: Callable[[], list[Figures]]) -> tuple[_Outcome, BaseException | None]:
    """How `work` went, and what it raised. Of what was not raised on purpose only the kind is told."""
    try:
        return _Outcome(work()), None
    except GuideHubError as error:
        return _Outcome(error=_kind(error), problems=error.problems), error
    except BaseException as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        problem = Problem(
            f"unexpected {type(error).__name__}", f"set {DEBUG}=1 for the traceback, and report it"
        )
        return _Outcome(error=GuideHubError, problems=[problem]), error


def _kind(error: GuideHubError) -> type[GuideHubError]:
    """The base of an error: a class of its own may want other arguments than problems."""
    kinds = (InputError, RefusedError, HubError, ConflictError)
    return next((kind for kind in kinds if isinstance(error, kind)), GuideHubError)


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """Lost in place of what torch.distributed raises where a process is gone."""
    try:
        yield
    except RuntimeError as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        raise Lost from error


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat([t.reshape(-1) for t in tensors])


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """`_flat` undone, into the tensors."""
    for part, t in zip(flat.split([t.numel() for t in tensors]), tensors, strict=True):
        t.copy_(part.view_as(t))
