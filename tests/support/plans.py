"""Made-up results of trials and probes for tests of the transfer plan."""

from striate.finetune.linear_probe import LinearProbe, ProbePoint
from striate.run.transfer_plan import TransferTrial


def make_probes(*accuracies, count=100):
    """Return linear probes with these accuracies, one per cut point."""
    return [
        LinearProbe(
            cut=f"l{i}",
            width=1,
            count=count,
            points=(ProbePoint(images=80, accuracy=a, loss=0.5, penalty=0.1),),
        )
        for i, a in enumerate(accuracies)
    ]


def make_trial(correct, head="logistic", loss=0.5):
    """Return a trial with these predictions, each with that loss."""
    return TransferTrial(
        head=head,
        cut="a",
        stages=("b",),
        batch_norm="",
        lr=0.0,
        layer_decay=1.0,
        epochs=1,
        steps=1 if head == "tuned" else 0,
        train_images=10,
        correct=tuple(correct),
        losses=(loss,) * len(correct),
        seconds=1.0,
        full_seconds=1.0,
    )
