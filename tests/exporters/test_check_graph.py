"""A graph of a file is accepted only with the shapes that its operations give."""

import copy
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate.core.errors import GeometryError, UnknownNameError
from striate.exporters.check_graph import ATTRIBUTES, check_graph
from striate.exporters.graph import OPERATIONS
from striate.exporters.graph_shapes import SHAPE_RULES, result_shape
from support.small_bundles import small_graph

FIELDS = small_graph().as_dict()
CONSTANTS = {name: v.shape for name, v in small_graph().constants.items()}
JSON = (
    st.none() | st.integers(-5, 2**70) | st.text(max_size=3) | st.lists(st.integers())
)


def test_every_operation_has_a_rule():
    assert SHAPE_RULES.keys() == OPERATIONS.keys() >= ATTRIBUTES.keys()


@given(st.data())
def test_any_other_shape_is_refused(data):
    fields = copy.deepcopy(FIELDS)
    shape = fields["shapes"][data.draw(st.sampled_from(sorted(FIELDS["shapes"])))]
    position = data.draw(st.integers(0, len(shape) - 1))
    shape[position] += data.draw(st.integers(1, 9))
    with pytest.raises(GeometryError, match="damaged graph"):
        check_graph(fields, CONSTANTS)


@given(st.data())
def test_any_other_value_gives_no_other_error(data):
    """Whatever a field holds: an error of the graph, or a graph with right shapes."""
    fields = copy.deepcopy(FIELDS)
    places = [fields, fields["shapes"], *fields["nodes"]]
    places += [node["attrs"] for node in fields["nodes"] if node["attrs"]]
    place = data.draw(st.sampled_from(places))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    with suppress(GeometryError, UnknownNameError):
        check_graph(fields, CONSTANTS)


@pytest.mark.parametrize(
    ("kind", "attrs", "inputs"),
    [
        ("add", {}, [(2, 3), (2, 4)]),
        ("matmul", {}, [(2, 3), (4, 3)]),
        ("reshape", {"shape": [-1, -1]}, [(2, 4)]),
        ("reshape", {"shape": [-1, 3]}, [(2, 4)]),
        ("permute", {"dims": [0, 0]}, [(2, 4)]),
        ("expand", {"shape": [3]}, [(2, 3)]),
        ("slice", {"dim": 1, "start": 3, "end": 5, "step": 1}, [(2, 4)]),
        ("slice", {"dim": 1, "start": 0, "end": 4, "step": 0}, [(2, 4)]),
        ("sum", {"dims": [2, 1], "keepdim": True}, [(2, 4, 4)]),
        ("softmax", {"dim": 2}, [(2, 4)]),
        ("concat", {"dim": 1}, [(2, 4), (3, 4)]),
        ("layer_norm", {"count": 2}, [(2, 4)]),
        ("group_norm", {"groups": 3}, [(2, 4), (4,), (4,)]),
        ("prelu", {}, [(2, 4), (3,)]),
        ("resize", {"size": [3]}, [(2, 4, 3)]),
        ("relu", {}, [(2, 4), (3,)]),
        ("batch_norm", {}, [(2, 4), (4,), (4,), (3,), (4,)]),
    ],
)
def test_inputs_that_do_not_fit(kind, attrs, inputs):
    with pytest.raises(ValueError, match=r"."):
        result_shape(kind, attrs, inputs, batch=2)
