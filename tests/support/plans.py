"""Made-up results of trials and probes for tests of the transfer plan."""

from striate.finetune.linear_probe import Probe, ProbePoint
from striate.run.transfer_plan import TransferTrial


def probed(*accuracies, count=100):
    """Cross-validated heads at so many cuts, the last one's before the classes."""
    return [
        Probe(
            cut=f"l{i}",
            width=1,
            count=count,
            points=(ProbePoint(images=80, accuracy=a, cost=0.5, penalty=0.1),),
        )
        for i, a in enumerate(accuracies)
    ]


def tried(right, head="logistic", cost=0.5):
    """A trial that got these images right, each at that cost."""
    return TransferTrial(
        head=head,
        cut="a",
        stages=("b",),
        batch_norm="",
        lr=0.0,
        lr_decay=1.0,
        epochs=1,
        steps=1 if head == "tuned" else 0,
        learned=10,
        right=tuple(right),
        costs=(cost,) * len(right),
        seconds=1.0,
        whole=1.0,
    )
