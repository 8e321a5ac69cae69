"""Emoji, whose source makes parquet files with a split of its own, become a dataset."""

import io

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from examples.emoji.pictures import load
from examples.emoji.samples import EmojiConfig
from examples.emoji.stage import EmojiPictures
from pipelines.stages.import_images import ImportImages, ImportImagesConfig
from reptok.data.images import decode_image
from reptok.data.shards import read_samples


def test_pictures_become_a_dataset_that_keeps_split_caption_and_row(run_stage):
    config = EmojiConfig(count=30, val_count=10, image_size=32, seed=2)
    pictures, stats = run_stage(EmojiPictures(config), {}, "emoji")
    held_out = sum(one.held_out for one in load())
    assert stats == {
        "rows_out": len(load()) + 40, "train_rows": len(load()) - held_out + 30, "val_rows": held_out + 10,
    }  # fmt: skip
    settings = ImportImagesConfig(
        folder="artifact:emoji", layout="parquet", image_size=32, subsampling="4:4:4"
    )
    dataset, imported = run_stage(ImportImages(settings), {"emoji": pictures}, "dataset")
    assert imported["rows_out"] == stats["rows_out"] and not imported.get("without_caption")
    tables = {}
    for split in ("train", "val"):
        with pictures.open(f"{split}-00000.parquet") as file:
            tables[split] = pq.read_table(file).to_pylist()
    found = {"train": 0, "val": 0}
    for split, entries in dataset.read_json("index.json")["splits"].items():
        for entry in entries:
            with dataset.open(f"{entry['shard']}.tar") as file:
                for sample in read_samples(file):
                    name, _, row = sample.info["file"].partition(":")
                    told = tables[split][int(row)]
                    assert name == f"{split}-00000.parquet" and sample.caption == told["caption"]
                    found[split] += 1
                    original = np.asarray(Image.open(io.BytesIO(told["image"]))).astype(int)
                    assert np.abs(decode_image(sample.jpg) - original).mean() < 8
    assert found == {"train": stats["train_rows"], "val": stats["val_rows"]}
