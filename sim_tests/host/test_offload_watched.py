"""What is not offloaded: it stays PyTorch's, and is counted with its reason and its size."""

import pytest
import torch
from torch import nn

from exactum.host import offload, open_device
from sim_tests.host.recorder import normal, same_bits


@pytest.fixture
def device():
    return open_device("emulator")


UNSERVED = [
    ("dtype", "dtype float64", lambda: torch.eye(2).double() @ torch.eye(2).double(), 8),
    ("integers", "dtype int64", lambda: torch.ones(2, 2).long() @ torch.ones(2, 2).long(), 8),
    ("empty", "empty operand", lambda: torch.ones(0, 3) @ torch.ones(3, 2), 0),
    ("K", "K = 40000 exceeds the device's 32768",
     lambda: torch.ones(1, 40000) @ torch.ones(40000, 1), 40000),
    ("row", "row of 20000 exceeds the softmax unit's 16384",
     lambda: torch.softmax(torch.ones(2, 20000), -1), 0),
    ("row, logarithm", "row of 20000 exceeds the softmax unit's 16384",
     lambda: torch.log_softmax(torch.ones(2, 20000), -1), 0),
    ("number", "softmax of a single number", lambda: torch.softmax(torch.tensor(1.0), 0), 0),
    ("log-softmax", "dtype float64", lambda: torch.log_softmax(torch.ones(2, 3).double(), -1), 0),
    ("vector", "product with a vector", lambda: torch.ones(2, 3) @ torch.ones(3), 6),
    ("convolution", "convolution has no unit in the device",
     lambda: nn.functional.conv2d(torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3)),
     2 * 4 * 36 * 27),
    ("short lists", "convolution has no unit in the device",
     lambda: torch.convolution(torch.ones(2, 3, 9, 9), torch.ones(4, 3, 3, 3), None, [2], [1], [1],
                               False, [0], 1), 2 * 4 * 25 * 27),
    ("transposed", "convolution has no unit in the device",
     lambda: nn.functional.conv_transpose1d(torch.ones(2, 3, 9), torch.ones(3, 4, 5)),
     2 * 3 * 9 * 4 * 5),
    ("attention", "dtype float64",
     lambda: nn.functional.scaled_dot_product_attention(*[torch.ones(1, 2, 4, 8).double()] * 3),
     2 * 2 * 4 * 4 * 8),
    ("vector, out", "product with a vector",
     lambda: torch.mv(torch.ones(2, 3), torch.ones(3), out=torch.empty(2)), 6),
    ("vector, added", "product with a vector",
     lambda: torch.addmv(torch.ones(2), torch.ones(2, 3), torch.ones(3)), 6),
    ("vector, added, out", "product with a vector",
     lambda: torch.addmv(torch.ones(2), torch.ones(2, 3), torch.ones(3), out=torch.empty(2)), 6),
    ("vector, added in place", "product with a vector",
     lambda: torch.ones(2).addmv_(torch.ones(2, 3), torch.ones(3)), 6),
    ("two vectors", "product with a vector", lambda: torch.ones(3) @ torch.ones(3), 3),
    ("two vectors, out", "product with a vector",
     lambda: torch.dot(torch.ones(3), torch.ones(3), out=torch.empty(())), 3),
    ("vecdot", "product with a vector",
     lambda: torch.linalg.vecdot(torch.ones(3), torch.ones(3)), 3),
    ("masked softmax", "softmax with a mask of its own",
     lambda: torch._masked_softmax(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)), 0),
    ("activation", "product fused with an activation",
     lambda: torch._addmm_activation(torch.ones(4), torch.ones(2, 3), torch.ones(3, 4)), 24),
    ("8-bit integers", "product of quantised tensors",
     lambda: torch._int_mm(torch.ones(2, 3).char(), torch.ones(3, 4).char()), 24),
    ("8-bit floats", "product of quantised tensors", lambda: torch._scaled_mm(
        torch.ones(16, 16).to(torch.float8_e4m3fn), torch.ones(16, 16).to(torch.float8_e4m3fn).T,
        torch.tensor(1.0), torch.tensor(1.0), out_dtype=torch.float32), 16 ** 3),
    ("8-bit weights", "product of quantised tensors", lambda: torch._weight_int8pack_mm(
        torch.ones(2, 16).bfloat16(), torch.ones(32, 16).char(), torch.ones(32).bfloat16()), None),
    ("oneDNN convolution", "convolution has no unit in the device",
     lambda: torch.mkldnn_convolution(torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3), None,
                                      [0, 0], [1, 1], [1, 1], 1), 2 * 4 * 36 * 27),
]


@pytest.mark.parametrize(("reason", "call", "products"), [case[1:] for case in UNSERVED],
                         ids=[case[0] for case in UNSERVED])
def test_what_is_not_offloaded_is_pytorchs_and_is_counted_with_its_reason(
        device, reason, call, products):
    plain = call()
    with offload(device, "e4m3") as session:
        result = call()
    assert same_bits(result, plain)
    report = session.report()
    assert report.rows == ()
    assert [(row.reason, row.calls, row.products) for row in report.fallbacks] \
        == [(reason, 1, products)]


def test_backward_of_convolution_and_attention_is_counted(device):
    with offload(device, "e4m3") as session:
        x = torch.ones(1, 1, 6, 6, requires_grad=True)
        nn.functional.conv2d(x, torch.ones(1, 1, 3, 3, requires_grad=True)).sum().backward()
        q = torch.ones(1, 1, 4, 8, dtype=torch.float64, requires_grad=True)
        nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    assert {row.op: row.products for row in session.report().fallbacks} == {
        "convolution": 16 * 9, "convolution_backward": 2 * 16 * 9,
        "_scaled_dot_product_flash_attention_for_cpu": 2 * 4 * 4 * 8,
        "_scaled_dot_product_flash_attention_for_cpu_backward": 5 * 4 * 4 * 8}


def test_a_recurrent_layer_is_counted_in_both_directions(device):
    layer = nn.LSTM(5, 7, 2, bidirectional=True)
    with offload(device, "e4m3") as session:
        layer(normal(4, 3, 5))[0].sum().backward()
    products = 2 * 4 * 3 * (4 * 7 * (5 + 7) + 4 * 7 * (14 + 7))
    assert {row.op: (row.calls, row.products) for row in session.report().fallbacks} == {
        "mkldnn_rnn_layer": (4, products), "mkldnn_rnn_layer_backward": (4, 2 * products)}


def test_an_operation_of_unknown_size_leaves_no_share(device):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with offload(device, "e4m3") as session, torch.inference_mode():
        torch.ones(1) @ torch.ones(1)
        layer(normal(2, 3, 8))
        layer(normal(2, 3, 8))
    report = session.report()
    fused, = (row for row in report.fallbacks if row.op == "_transformer_encoder_layer_fwd")
    assert (fused.calls, fused.products) == (2, None)
    assert report.offloaded_share is None
    assert report.rows  # the operations inside are met on their own
