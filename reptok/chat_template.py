"""Chat templates: programs that come with a model, run where they can neither last nor grow.

Jinja's sandbox keeps a template from the interpreter, but not from looping for ever or building strings of
gigabytes. So it is rendered in a process of its own that has seconds and megabytes, and the operating system
ends it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

MAX_TEMPLATE = 2**16
MAX_ANSWER = 2**16
SECONDS = 5
BYTES = 2**29

_CHILD = """
import json, resource, sys
seconds, size, longest = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_AS, (size, size))
from datetime import datetime
import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

def fail(message):
    raise jinja2.TemplateError(message)

def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )

world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
world.filters["tojson"] = tojson
world.globals.update(raise_exception=fail, strftime_now=lambda form: datetime.now().strftime(form))
asked = json.load(sys.stdin)
try:
    text = world.from_string(asked.pop("template")).render(**asked)
    if len(text) > longest:
        raise ValueError(f"the text has {len(text)} characters")
except BaseException as error:
    sys.exit(f"{type(error).__name__}: {error}"[:200])
json.dump(text, sys.stdout)
"""


def render(template: str, messages: Sequence[dict[str, Any]], **values: Any) -> str:
    """Render a chat template, with the prompt for an answer, as transformers renders it.

    Args:
        template: Jinja's source.
        messages: The conversation, as JSON-able dictionaries.
        values: What else the template may see: `bos_token`, ...

    Raises:
        ValueError: It fails, or needs more than `SECONDS`, `BYTES` or `MAX_ANSWER` characters.
    """
    if len(template) > MAX_TEMPLATE:
        raise ValueError(f"the chat template has more than {MAX_TEMPLATE} characters")
    asked = {"template": template, "messages": messages, "add_generation_prompt": True, **values}
    command = [sys.executable, "-I", "-c", _CHILD, str(SECONDS), str(BYTES), str(MAX_ANSWER)]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=6 * SECONDS, check=False
        )
        if done.returncode == 0:
            return str(json.loads(done.stdout))
        last = done.stderr.strip().splitlines()[-1:] or ["it was ended"]
        reason = f"it took more than {SECONDS} s" if done.returncode < 0 else last[0][:200]
    except subprocess.TimeoutExpired:
        reason = f"it took more than {6 * SECONDS} s"
    raise ValueError(f"the chat template cannot be rendered: {reason}")
