"""How products are cut to fit the engine."""

import pytest

from exactum.gen.config import preset
from exactum.hdl.formats import BF16, E4M3, FP32
from exactum.host.tiling import pieces, tile_columns, tile_words


@pytest.mark.parametrize(("k", "expected"), [(0, [(0, 0)]), (1, [(0, 1)]), (64, [(0, 64)]),
                                             (130, [(0, 64), (64, 128), (128, 130)])])
def test_pieces_cover_k(k, expected):
    assert pieces(k, 64) == expected


@pytest.mark.parametrize(("formats", "columns"), [((E4M3, BF16), 16), ((FP32, E4M3), 4)])
def test_a_tile_is_four_columns_of_each_lane_or_one(formats, columns):
    assert tile_columns(preset("small"), formats) == columns


@pytest.mark.parametrize(("k", "scaled", "words"), [
    (0, False, 4), (33, False, 136), (33, True, 144)])
def test_a_tile_is_its_anchors_and_a_word_for_each_lane_and_index(k, scaled, words):
    assert tile_words(preset("small"), k, scaled) == words
