"""Euclidean radial basis function (RBF) output of LeNet-5 (1998, II.B, eq. 7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Stylized 7×12 drawings of the ten digits. The paper's figure 3 uses such drawings as
# target codes, so that characters of similar shape get similar codes.
_DIGITS = """
..###.. ...#... ..###.. .#####. ....##. .#####. ...###. .#####. ..###.. ..###..
.#...#. ..##... .#...#. .....#. ...#.#. .#..... ..#.... .....#. .#...#. .#...#.
#.....# .#.#... #.....# ....#.. ...#.#. #...... .#..... .....#. #.....# #.....#
#.....# ...#... ......# ....#.. ..#..#. #...... .#..... ....#.. #.....# #.....#
#.....# ...#... .....#. ...#... ..#..#. #.###.. #.###.. ....#.. .#...#. #....##
#.....# ...#... .....#. ..###.. .#...#. ##...#. ##...#. ...#... ..###.. .####.#
#.....# ...#... ....#.. .....#. .#...#. ......# #.....# ...#... .#...#. ......#
#.....# ...#... ...#... ......# ####### ......# #.....# ...#... #.....# ......#
#.....# ...#... ..#.... ......# .....#. ......# #.....# ..#.... #.....# .....#.
#.....# ...#... .#..... ......# .....#. #.....# #.....# ..#.... #.....# .....#.
.#...#. ...#... #...... #....#. .....#. .#...#. .#...#. ..#.... .#...#. ....#..
..###.. .#####. ####### .####.. .....#. ..###.. ..###.. ..#.... ..###.. .###...
"""


def digit_codes() -> Tensor:
    """Return target codes of ten digits: 7×12 drawings as rows of ±1, shape (10, 84).

    Example:
        >>> digit_codes().shape
        torch.Size([10, 84])
    """
    lines = [line.split() for line in _DIGITS.split("\n") if line]
    drawings = ["".join(line[digit] for line in lines) for digit in range(10)]
    return torch.tensor([[1.0 if c == "#" else -1.0 for c in d] for d in drawings])


def random_codes(classes: int, features: int) -> Tensor:
    """Return random target codes of ±1, the alternative in the paper."""
    draw = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2, (classes, features), generator=draw)
    return bits.float() * 2 - 1


def class_codes(num_classes: int, features: int) -> Tensor:
    """Return target codes: the drawn digits for ten classes, otherwise random codes.

    Example:
        >>> class_codes(3, 84).shape
        torch.Size([3, 84])
    """
    digits = digit_codes()
    if (num_classes, features) == digits.shape:
        return digits
    return random_codes(num_classes, features)


class RBFOutput(nn.Module):
    """RBF output layer: logits are minus the squared distances to fixed class codes.

    The paper's penalty y_i = Σ_j (x_j − w_ij)² is smallest for the right class. With
    logits −y, softmax cross-entropy is y_right + log Σ exp(−y_i): the paper's
    discriminative criterion (eq. 9) without the constant for garbage images.

    Args:
        codes: One row of ±1 per class; a buffer, not trained (as in the paper).

    Shapes:
        (N, features) → (N, classes)

    Example:
        >>> output = RBFOutput(digit_codes())
        >>> output(digit_codes()).argmax(1).tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    codes: Tensor

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.out_features, self.in_features = codes.shape

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit −‖x − code‖² of every class."""
        # Expanded, so that the (N, classes, features) difference is never stored.
        cross = x @ self.codes.T
        squares = x.square().sum(1, keepdim=True) + self.codes.square().sum(1)
        return 2 * cross - squares

    def extra_repr(self) -> str:
        """Return the settings as text, for a printed model."""
        return f"{self.in_features}, {self.out_features}"
