"""Words that a language model takes for its unknown one are counted; the zoo's knows the demo's alone."""

from pathlib import Path

import pytest

from reptok.vocabulary import words_of

ZOO = Path(__file__).parents[2] / "zoo" / "text_encoder"


def test_words_are_counted_as_often_as_they_occur():
    found = words_of(ZOO, ["a cat, a CAT and an aardvark", "the aardvark's 2 aardvarks"])
    assert found.total == 10
    assert found.unknown["aardvark"] == 1 and found.unknown["aardvarks"] == 1
    assert "cat" not in found.unknown and "a" not in found.unknown
    assert found.unknown_share == found.unknown.total() / 10
    assert "unknown to the text encoder (" in str(found)


def test_a_word_in_pieces_is_known(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "aard": 1, "##vark": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert words_of(tmp_path, ["aardvark zebra"]).unknown == {"zebra": 1}


def test_a_unigram_models_unknown_token_has_a_number(tmp_path):
    from tokenizers import Tokenizer, models

    model = models.Unigram([("<unk>", -10.0), ("cat", -1.0)], unk_id=0)
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    assert words_of(tmp_path, ["cat dog"]).unknown == {"dog": 1}


def test_nothing_is_said_of_a_model_without_such_a_file_and_of_no_words(tmp_path):
    assert words_of(tmp_path, ["cat"]) is None
    assert words_of(ZOO, ["", "42"]).unknown_share == pytest.approx(0)
