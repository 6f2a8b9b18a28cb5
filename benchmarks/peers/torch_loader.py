"""Pictures as PyTorch's tutorial reads them: ImageFolder, transforms for one picture at a time, two workers."""

from __future__ import annotations

from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from peers.task import DEVIATION, MEAN, NUM_WORKERS, PADDING_PX, SIDE_PX, Task


def loader(task: Task) -> DataLoader:
    change = transforms.Compose(
        [
            transforms.RandomCrop(SIDE_PX, padding=PADDING_PX),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, DEVIATION),
        ]
    )
    pictures = datasets.ImageFolder(f"{task.folder}/train", change)
    return DataLoader(pictures, batch_size=task.batch_size, shuffle=True, num_workers=NUM_WORKERS)
