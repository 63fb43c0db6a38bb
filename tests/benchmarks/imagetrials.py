"""Side (c): as side (b), but torchvision's transforms make each image a tensor when asked for, as most have it."""

from collections.abc import Sequence

from benchmarks.lightningtrials import train_on
from benchmarks.runs import images_of, splits_of, training_of
from benchmarks.work import Job, Trained, Work
from PIL import Image
from torchvision import transforms
from torchvision.datasets import VisionDataset


class Pictures(VisionDataset):
    """Images `(n_images, h, w)` or `(n_images, h, w, 3)` with labels, kept as torchvision keeps MNIST and CIFAR10."""

    def __init__(self, images, labels, transform) -> None:
        super().__init__(transform=transform)
        self.images, self.labels = images, labels

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])

    def __len__(self) -> int:
        return len(self.images)


def train(work: Work, jobs: Sequence[Job]) -> list[Trained]:
    return train_on(pictures, work, jobs)


def pictures(work: Work, seed: int) -> tuple[Pictures, Pictures]:
    training, test = training_of(work, seed), splits_of(work).test
    mean, deviation = images_of(work).normalisation(training)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean / 255, deviation / 255)])
    pixels = images_of(work).images.transpose(0, 2, 3, 1)  # n h w c
    images = pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels
    return tuple(Pictures(images[those], images_of(work).labels[those], transform) for those in (training, test))
