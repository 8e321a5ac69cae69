"""Stages that run side by side in one process must not be the first to import diffusers and transformers."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_stages_that_run_side_by_side_leave_no_import_of_diffusers_for_their_threads():
    script = """
        import sys
        from pipelines.dag.runner import load
        from pipelines.stages.evaluate_generator import EvaluateGenerator, EvaluateGeneratorConfig
        from pipelines.stages.evaluate_tokenizer import EvaluateTokenizer, EvaluateTokenizerConfig

        load([EvaluateTokenizer(EvaluateTokenizerConfig()), EvaluateGenerator(EvaluateGeneratorConfig())])
        before = set(sys.modules)

        def late(*packages):
            return sorted(name for name in set(sys.modules) - before if name.split(".")[0] in packages)

        from reptok.configs import TextEncoderConfig
        from reptok.pretrained import load_tokenizer
        from reptok.text_encoder import TextEncoder

        load_tokenizer("zoo/reptok/tokenizer")
        assert not late("diffusers", "transformers"), late("diffusers", "transformers")
        TextEncoder(TextEncoderConfig(kind="clip", path="zoo/text_encoder"))
        assert not late("diffusers"), late("diffusers")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
