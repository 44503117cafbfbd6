"""Training does not import torch's compiler, which takes more than a second."""

import subprocess
import sys

LEARN = """
import sys, torch
from striate.engine.recoverable_step import RecoverableStep
from striate.engine.optim import OPTIMIZERS, make_optimizer
for name in OPTIMIZERS:
    model = torch.nn.Linear(3, 2)
    optimizer = make_optimizer(model, name, 0.1, 0.9, 0.0)
    RecoverableStep(model, optimizer)(torch.ones(2, 3), torch.tensor([0, 1]), 0)
    optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
compiled = torch.compile(torch.nn.Linear(3, 2), backend="eager")
optimizer = make_optimizer(compiled, "adamw", 0.1, 0.9, 0.0)
compiled(torch.ones(2, 3)).sum().backward()
optimizer.step()
optimizer.zero_grad()
print(compiled._orig_mod.weight.grad)
"""


def test_training_does_not_import_the_compiler():
    # Without `_avoid_compiler_import`, or `_uncompiled`, the first word is True.
    words = [sys.executable, "-c", LEARN]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "None"], done.stderr
