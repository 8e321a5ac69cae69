"""Pictures of four colours and their names, in the eyes of a CLIP that has learnt them."""

import numpy as np
import open_clip
import pytest
import torch

from pipelines.encoding.device import ComputeConfig
from pipelines.filters.clip_similarity import REASON, SCORE, ClipSimilarity
from reptok.data.images import encode_jpeg
from reptok.metrics.clip_score import ClipScore


@pytest.fixture(scope="module")
def colours(small_clip):
    """Rows with the right texts, and the filter."""
    module, folder = small_clip
    rows = [
        {
            "key": f"{number}",
            "jpg": encode_jpeg(module.picture(colour, 1000 + number, 40)),
            "text": f"a {colour} square",
        }
        for number, colour in enumerate(list(module.COLOURS) * 3)
    ]
    clip = ClipSimilarity(path=str(folder), min_similarity=0.5, compute=ComputeConfig(batch_size=5))
    clip.setup()
    return rows, clip


def similarities(clip, rows):
    return np.array([finding.scores[SCORE] for finding in clip.judge_all(rows)])


def test_permuted_texts_are_less_like_their_pictures(colours):
    rows, clip = colours
    wrong = [{**row, "text": rows[number - 1]["text"]} for number, row in enumerate(rows)]
    assert (similarities(clip, rows) > similarities(clip, wrong) + 0.3).all()
    assert [finding.reason for finding in clip.judge_all(rows)] == [None] * len(rows)
    assert [finding.reason for finding in clip.judge_all(wrong)] == [REASON] * len(rows)


def test_a_score_depends_on_its_own_picture(colours):
    rows, clip = colours
    alone = np.concatenate([similarities(clip, [row]) for row in rows])
    np.testing.assert_allclose(similarities(clip, rows), alone, atol=1e-4)


def test_without_a_text_nothing_is_said(colours):
    rows, clip = colours
    (first, second) = clip.judge_all([{**rows[0], "text": "  "}, {**rows[0], "text": None}])
    assert (first.scores, first.reason, second.scores, second.reason) == ({}, None, {}, None)


def test_the_cosines_are_open_clips_own(small_clip):
    """open_clip loads the same folder by its own code."""
    module, folder = small_clip
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    from PIL import Image

    pictures = [module.picture(colour, 5) for colour in module.COLOURS]
    texts = [f"a {colour} square" for colour in module.COLOURS]
    with torch.no_grad():
        seen = model.eval().encode_image(
            torch.stack([preprocess(Image.fromarray(p)) for p in pictures]), normalize=True
        )
        read = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(texts), normalize=True)
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    ours = ClipScore.from_folder(folder).cosine(images, texts)
    torch.testing.assert_close(ours, (seen * read).sum(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vision_cfg": {"timm_model_name": "vit"}}, "timm_model_name"),
        ({"vision_cfg": {"layers": [3, 4, 6, 3]}}, "layers cannot be"),
        ({"text_cfg": {"width": 10**9}}, "width cannot be"),
        ({"text_cfg": {"pool_type": "last"}}, "not CLIP's own"),
        ({"text_cfg": {"width": 48}}, "shape|size"),
    ],
)
def test_a_folder_that_is_no_such_clip_is_refused(change, words, small_clip, tmp_path):
    import json
    import shutil

    module, folder = small_clip
    shutil.copytree(folder, tmp_path / "clip")
    config = {**module.CONFIG, **{key: {**module.CONFIG[key], **value} for key, value in change.items()}}
    (tmp_path / "clip" / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(ValueError, match=words):
        ClipScore.from_folder(tmp_path / "clip")
