"""Words are shouted by ray.data.llm's own processor of rows; a stage of ours stands where engines do."""

from dataclasses import dataclass
from typing import Any

from ray.data.llm import vLLMEngineProcessorConfig
from ray.llm._internal.batch.processor.base import Processor
from ray.llm._internal.batch.stages.base import StatefulStage, StatefulStageUDF

from pipelines.dag.asking import ADDRESS, UNASKED, Asking


class Loud(StatefulStageUDF):
    """Stands where an engine does; cannot say what has two letters and a 3."""

    async def udf(self, rows):
        for row in reversed(rows):
            failure = "hoarse" if row["word"] == "aa3" else ""
            said = {"said": row.pop("word").upper(), UNASKED: failure}
            yield {**said, self.IDX_IN_BATCH_COLUMN: row[self.IDX_IN_BATCH_COLUMN]}


@dataclass(frozen=True)
class AskLoud(Asking):
    job: Any

    def questions(self, shard):
        for word in self.job.lines(shard):
            yield {"word": word, UNASKED: "too long" if word.startswith("aaa") else ""}

    def processor(self, workers):
        config = vLLMEngineProcessorConfig(model_source="none", batch_size=4, should_continue_on_error=True)
        engine = StatefulStage(fn=Loud, map_batches_kwargs={"concurrency": workers, "num_cpus": 0.1})
        return Processor(config, [engine], postprocess=said)

    def answer(self, row):
        return {"said": row["said"] if not row[UNASKED] else row[UNASKED]}


def said(row):
    return {name: row[name] for name in (*ADDRESS, "said")}
