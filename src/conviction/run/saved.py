"""A run as Python sees it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from torch import nn

from conviction.core.errors import RunError, UnknownName
from conviction.core.ledger import Ledger
from conviction.core.records import EpochRecord, Evaluation, RunSummary, SplitName
from conviction.core.run_folder import RunFolder, find_run_folder, runs_home
from conviction.evaluate.holdout import look_with, open_test_split
from conviction.metrics.accuracy import accuracy_by_class, count_by_class, score
from conviction.metrics.interval import wilson_interval
from conviction.predict import Predictions
from conviction.run.model import Model, Picture, Prediction, load_model
from conviction.run.prepared import Machine, describe_change, prepare
from conviction.run.recipe import Recipe, load_recipe

_SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class Run:
    """One training and what came of it; reads the run folder, and changes it by `evaluate` alone."""

    def __init__(self, folder: RunFolder, ledger_url: str | None = None) -> None:
        self.folder = folder
        self._ledger_url = ledger_url

    @classmethod
    def open(
        cls, reference: str | Path | Run = "latest", home: str | Path | None = None, ledger_url: str | None = None
    ) -> Run:
        """The run with this id (a part is enough), in this folder, or the `latest`. Raises: RunError."""
        if isinstance(reference, Run):
            return cls(reference.folder, ledger_url or reference._ledger_url)
        return cls(find_run_folder(str(reference), Path(home or runs_home())), ledger_url)

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r})"

    @property
    def id(self) -> str:
        """The run's id, `<date>-<name>-<id>`."""
        return self.folder.id

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def summary(self) -> RunSummary:
        """The state of the run. Raises: RunError."""
        return self.folder.read_summary()

    @property
    def history(self) -> list[EpochRecord]:
        """A record for each epoch, epoch 0 (the untrained network) first."""
        return self.folder.read_history()

    @property
    def best(self) -> EpochRecord | None:
        """The best epoch's record; None before the first. Raises: RunError."""
        return self.summary.best

    @property
    def last(self) -> EpochRecord | None:
        """The last epoch's record; None before the first. Raises: RunError."""
        return self.summary.last

    @property
    def evaluations(self) -> list[Evaluation]:
        """What `evaluate` found, oldest first. Raises: RunError."""
        return self.folder.read_evaluations()

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe. Raises: ConfigError where its file is damaged."""
        return load_recipe(self.folder.recipe)

    def model(self, weights: str = "best") -> Model:
        """The network with its class names and preprocessing. Raises: RunError."""
        return load_model(self.folder, weights)

    def network(self, weights: str = "best") -> nn.Module:
        """The network alone, in evaluation mode. Raises: RunError."""
        return self.model(weights).network

    def predict(self, pictures: Picture | Sequence[Picture], weights: str = "best") -> list[Prediction]:
        """What the network sees in pictures: paths, Pillow images, or `uint8` arrays. Raises: DataError, RunError."""
        return self.model(weights).predict(pictures)

    def evaluate(self, split: str = "test", weights: str = "best", detail: bool = False) -> Evaluation:
        """Accuracy and loss on a split; looking at `test` is recorded in the ledger for good.

        `detail` adds figures that take seconds more (macro F1, calibration).

        Raises: UnknownName; RunError where the run or its pictures changed; LedgerError where an opening cannot be
        recorded.
        """
        name = _split_named(split)
        summary = self.summary
        model = self.model(weights)
        machine = Machine.for_evaluation(self.folder, self.recipe)
        machine.engage()
        prepared = prepare(self.recipe, machine, standardization=model.standardization)
        if change := describe_change(summary.data, prepared.data_record()):
            raise RunError(
                f"{change} since {self.id} was trained: its splits would mix training with test pictures. Bring the "
                "former ones back."
            )
        network = model.network.to(prepared.machine.device)

        look = look_with(network, prepared.stream, prepared.machine.precision, self.recipe.test_time)
        ledger = Ledger.beside(self.path.resolve().parent, self._ledger_url)
        # The folder remembers its own looks where the ledger was lost.
        former = sum(evaluation.split == "test" for evaluation in self.evaluations)
        if name == "test":
            seen = open_test_split(ledger, self.id, weights, prepared.pack, prepared.splits, look)
            openings = max(seen.openings, former + 1)
            predictions, of_the_set = seen.predictions, max(seen.test_set_openings, openings)
        else:
            predictions = look(prepared.splits.train if name == "train" else prepared.splits.validation)
            own = ledger.openings(run=self.id)
            openings = max(len(own), former)
            of_the_set = max(len(ledger.openings(test_digest=own[0].test_digest)) if own else 0, openings)
        evaluation = self._described(predictions, name, weights, model, (openings, of_the_set), detail)
        self.folder.add_evaluation(evaluation)
        return evaluation

    def _described(
        self,
        predictions: Predictions,
        split: SplitName,
        weights: str,
        model: Model,
        openings: tuple[int, int],
        detail: bool,
    ) -> Evaluation:
        found = score(predictions.logits, predictions.labels)
        one_view = predictions.one_view_logits
        figures = {}
        if detail:
            from conviction.metrics.detail import detailed_figures

            figures = detailed_figures(predictions.logits, predictions.labels)
        return Evaluation(
            run=self.id,
            split=split,
            weights=weights,
            epoch=model.epoch,
            accuracy=found.accuracy,
            loss=found.loss,
            count=found.count,
            openings=openings[0],
            test_set_openings=openings[1],
            evaluated_at=datetime.now(UTC).isoformat(timespec="seconds"),
            interval_95=wilson_interval(round(found.accuracy * found.count), found.count),
            accuracy_by_class=accuracy_by_class(predictions.logits, predictions.labels, model.classes),
            count_by_class=count_by_class(predictions.labels, model.classes),
            detail=figures,
            num_views=self.recipe.test_time.num_views,
            one_view=None if one_view is None else score(one_view, predictions.labels),
        )


def _split_named(name: str) -> SplitName:
    for split in _SPLITS:
        if split == name:
            return split
    raise UnknownName("split", name, _SPLITS)
