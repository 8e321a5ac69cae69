import pytest

from reptok.data.images import CROPS
from reptok.metrics.protocols import PROTOCOLS, metric_name, protocol


def test_a_name_says_what_was_measured_and_on_how_many():
    adm, val = protocol("adm256_50k"), protocol("val256_50k")
    assert adm.metric("fid", 50_000) == "gfid/adm256_50k"
    assert adm.metric("fid_infinity", 50_000) == "gfid_infinity/adm256_50k"
    assert adm.metric("precision", 50_000) == "precision/adm256_50k"
    assert adm.metric("fid", 1000) == "gfid/adm256_50k_n1000"
    assert val.metric("fid", 50_000) == "rfid/val256_50k"
    assert val.metric("psnr", 64) == "psnr/val256_50k_n64"
    assert metric_name("fd_vit", "holiday", 12) == "gfd_vit/holiday_n12"


def test_more_images_than_a_protocol_wants_are_another_score():
    with pytest.raises(ValueError, match="take the first 5,000"):
        protocol("coco2017_5k").metric("fid", 5_001)
    with pytest.raises(ValueError, match="no protocol 'fid'; there are adm256_50k"):
        protocol("fid")


def test_what_they_name_exists():
    for name, found in PROTOCOLS.items():
        assert found.name == name and found.crop in CROPS and found.source
        assert found.reference_images <= found.images
