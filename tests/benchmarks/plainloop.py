"""Side (a): a plain PyTorch loop over tensors with nothing around it."""

import time
from collections.abc import Iterator, Sequence

import torch
from benchmarks.runs import Order, network_of, normalised, splits_of, training_of
from benchmarks.work import Job, Trained, Work
from torch.nn.functional import cross_entropy


def train(work: Work, jobs: Sequence[Job]) -> list[Trained]:
    return list(_each(work, jobs))


def _each(work: Work, jobs: Sequence[Job]) -> Iterator[Trained]:
    for job in jobs:
        began = time.perf_counter()
        accuracy = train_one(work, job)
        yield Trained(job, accuracy, time.perf_counter() - began)


def train_one(work: Work, job: Job) -> float:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recipe, training = work.recipe, torch.from_numpy(training_of(work, job.seed))
    images, labels = (tensor.to(device) for tensor in normalised(work, job.seed))
    order = Order(len(training), job.seed)
    steps = len(training) // recipe.batch_size  # what is left over waits for the next epoch

    network = network_of(work, job.schedule, job.seed).to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=steps * recipe.epochs
    )
    for _ in range(recipe.epochs):
        shuffled = training[list(order)]
        for batch in shuffled.split(recipe.batch_size)[:steps]:
            loss = cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    network.eval()
    correct = 0
    with torch.no_grad():
        for batch in torch.from_numpy(splits_of(work).test).split(recipe.batch_size):
            correct += (network(images[batch]).argmax(1) == labels[batch]).sum().item()
    return correct / len(splits_of(work).test)
