"""Train a classifier of handwritten digits, every matrix product offloaded in exact FP8.

    python examples/train_digits.py [EPOCHS] [REPORT.html]

An ordinary training loop: only the lines marked with an arrow are Exactum's.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

from exactum.host import offload, open_device

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
report = sys.argv[2] if len(sys.argv) > 2 else None

torch.manual_seed(0)
torch.set_num_threads(1)  # the tensors are small
digits = load_digits()
images = torch.tensor(digits.data / 16, dtype=torch.float32)
labels = torch.tensor(digits.target)
shuffled = torch.randperm(len(images))
train, test = shuffled[:1437], shuffled[1437:]

model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
loss_function = nn.CrossEntropyLoss()

device = open_device("emulator", config="small")                    # <--
with offload(device, precision="e4m3") as session:                  # <--
    for epoch in range(1, epochs + 1):
        for batch in train[torch.randperm(len(train))].split(128):
            loss = loss_function(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if epoch % 5 == 0 or epoch == epochs:
            print(f"epoch {epoch}: loss {loss.item():.3f}")
    right = (model(images[test]).argmax(1) == labels[test]).float().mean().item()

print(f"test accuracy, offloaded: {right:.1%}")
print(session.report())                                             # <--
if report:
    print("report:", session.report().save(report))
