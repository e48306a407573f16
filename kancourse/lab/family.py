"""A parent and its children: training that parts at step k, each child with noise of its own.

Notable points:
- A child inherits everything at step k: weights, Adam's moments, and the schedule, which is the parent's to the last
  step. Only its seed is another: the order of the data and, where there is any, dropout. Nothing else is random.
- With a fresh schedule it inherits only the weights.
- Everything lies in one folder, and what is there already is not trained again.

Glossary (code name ↔ paper symbol): `k` ↔ k, a child's seed ↔ u, of Frankle et al. 2020.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from kancourse.gpt import GPT
from kancourse.lab.checkpoint import load_checkpoint, restore_optimizer, save_checkpoint
from kancourse.lab.corpus import Corpus
from kancourse.lab.optim import make_adamw
from kancourse.lab.train import LATEST, TrainConfig, train

CARRIED, FRESH = "carried", "fresh"  # schedules


def child_seed(seed: int, child: int) -> int:
    """The seed of a child's noise, unlike every parent's and every other child's."""
    return 10_000 * (seed + 1) + child


class Family:
    """One parent and its children.

    Args:
        config: how the parent is trained; its seed is the parent's.
        corpus: what on.
        newborn: makes the model before the first step, the same every time.
        steps: all k at which anybody parts, so that the parent is trained once, on the way to the last.
        folder: where checkpoints go.
    """

    def __init__(
        self, config: TrainConfig, corpus: Corpus, newborn: Callable[[], GPT], *, steps: set[int], folder: Path
    ) -> None:
        self.config, self.corpus, self.newborn = replace(config, out_dir=None), corpus, newborn
        self.steps, self.folder = steps, folder

    def parent(self, k: int) -> GPT:
        """The parent after k steps."""
        return self.newborn() if k == 0 else load_checkpoint(self._parent_at(k)).model

    def child(self, k: int, schedule: str, number: int, *, twin_of: int | None = None) -> GPT:
        """Where one child of step k ends.

        Args:
            k: when it parts from its parent.
            schedule: CARRIED or FRESH.
            number: which child.
            twin_of: it has the noise of that child, and must end where that one does.
        """
        name = f"{k}-{schedule}-{number}" if twin_of is None else f"{k}-{schedule}-twin-{number}"
        folder = self.folder / name
        noise = child_seed(self.config.seed, number if twin_of is None else twin_of)
        config = replace(self.config, seed=noise, out_dir=str(folder))
        model = self.newborn()
        if schedule == CARRIED and k > 0 and not (folder / LATEST).exists():
            self._inherit(k, config, folder / LATEST)
        elif schedule == FRESH:
            model.load_state_dict(self.parent(k).state_dict())
        train(model, self.corpus, config)
        return model.cpu()

    def _parent_at(self, k: int) -> Path:
        """The parent's checkpoint at step k; it goes on from the last one before."""
        path = self.folder / f"parent-{k}" / LATEST
        before = [step for step in self.steps if 0 < step < k]
        if not path.exists() and before:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            shutil.copyfile(self._parent_at(max(before)), partial)
            partial.replace(path)
        train(self.newborn(), self.corpus, replace(self.config, out_dir=str(path.parent)), until=k)
        return path

    def _inherit(self, k: int, config: TrainConfig, path: Path) -> None:
        """Write the checkpoint from which a child goes on: the parent's at k, with the child's settings."""
        parent = load_checkpoint(self._parent_at(k))
        settings = {"lr": config.lr, "beta1": config.beta1, "beta2": config.beta2, "weight_decay": config.weight_decay}
        optimizer = make_adamw(parent.model, **settings)
        restore_optimizer(optimizer, parent.model, parent.optimizer_state)
        state = parent.train_state | {"train": asdict(config)}
        save_checkpoint(path, parent.model, tokenizer=parent.tokenizer, optimizer=optimizer, train_state=state)
