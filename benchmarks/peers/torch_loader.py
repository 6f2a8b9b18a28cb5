"""Pictures as PyTorch's tutorial has them: arrays in memory, transforms for one picture at a time, two workers."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from peers.arrays import read_arrays
from peers.task import DEVIATION, MEAN, NUM_WORKERS, PADDING_PX, SIDE_PX, Task


class Pictures(Dataset):
    """Each picture becomes a PIL image when it is asked for, as in torchvision's CIFAR10."""

    def __init__(self, task: Task, change: transforms.Compose) -> None:
        self.images, labels = read_arrays(Path(task.folder))
        self.labels = labels.tolist()
        self.change = change

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.change(Image.fromarray(self.images[index])), self.labels[index]


def loader(task: Task) -> DataLoader:
    change = transforms.Compose(
        [
            transforms.RandomCrop(SIDE_PX, padding=PADDING_PX),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, DEVIATION),
        ]
    )
    return DataLoader(Pictures(task, change), batch_size=task.batch_size, shuffle=True, num_workers=NUM_WORKERS)
