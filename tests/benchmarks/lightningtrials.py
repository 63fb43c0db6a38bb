"""Side (b): Optuna and Lightning as their documentation writes them, with a DataLoader over tensors in memory.

The trainer logs, saves and shows nothing and validates once, at the end: what people would first turn off.
"""

import logging
import warnings
from collections.abc import Callable, Sequence

import optuna
import pytorch_lightning as pl
import torch
from benchmarks.runs import Order, network_of, normalised, splits_of, training_of
from benchmarks.work import Job, Trained, Work
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset

from search.schedule import FilterSchedule
from search.trainingconfig import TrainingConfig

Datasets = Callable[[Work, int], tuple[Dataset, Dataset]]

optuna.logging.set_verbosity(optuna.logging.ERROR)
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class Classifier(pl.LightningModule):
    def __init__(self, network: torch.nn.Module, recipe: TrainingConfig) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_index):
        images, labels = batch
        loss = cross_entropy(self(images), labels)
        self.log("training_loss", loss)
        return loss

    def validation_step(self, batch, batch_index):
        images, labels = batch
        self.log("accuracy", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.recipe.learning_rate, total_steps=self.trainer.estimated_stepping_batches
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Objective:
    """Trains what a trial suggests and returns its accuracy.

    Args:
        work: What to train on.
        datasets: Of a work, what trains under a seed and what is scored, both normalised by what trains.
    """

    def __init__(self, work: Work, datasets: Datasets) -> None:
        self.work, self.datasets = work, datasets

    def __call__(self, trial: optuna.Trial) -> float:
        filters = tuple(trial.suggest_int(f"filters{stage}", 2, 64, log=True) for stage in (1, 2, 3))
        seed, recipe = trial.user_attrs["seed"], self.work.recipe
        training, test = self.datasets(self.work, seed)
        order = Order(len(training), seed)
        classifier = Classifier(network_of(self.work, FilterSchedule(filters), seed), recipe)
        trainer = pl.Trainer(
            max_epochs=recipe.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(classifier, DataLoader(training, batch_size=recipe.batch_size, sampler=order, drop_last=True))
        (scores,) = trainer.validate(classifier, DataLoader(test, batch_size=recipe.batch_size), verbose=False)
        return scores["accuracy"]


def train(work: Work, jobs: Sequence[Job]) -> list[Trained]:
    return train_on(tensors, work, jobs)


def tensors(work: Work, seed: int) -> tuple[TensorDataset, TensorDataset]:
    images, labels = normalised(work, seed)
    training, test = training_of(work, seed), splits_of(work).test
    return TensorDataset(images[training], labels[training]), TensorDataset(images[test], labels[test])


def train_on(datasets: Datasets, work: Work, jobs: Sequence[Job]) -> list[Trained]:
    """One trial per job, in their order."""
    study = optuna.create_study(direction="maximize")
    for job in jobs:
        filters = {f"filters{stage}": each for stage, each in enumerate(job.schedule.filters, start=1)}
        study.enqueue_trial(filters, user_attrs={"seed": job.seed})
    with warnings.catch_warnings(action="ignore"):  # Lightning advises workers for the loader, which would be slower
        study.optimize(Objective(work, datasets), n_trials=len(jobs))
    return [
        Trained(job, trial.value, trial.duration.total_seconds())
        for job, trial in zip(jobs, study.trials, strict=True)
    ]
