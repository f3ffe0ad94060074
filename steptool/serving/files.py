"""What a server needs beside a policy's weights, so that it writes and reads what the policy was trained on.

chat_template.jinja       messages and tools as the format renders them
tool_parser.py            what the model writes as `tool_calls`, for formats of ours
generation_config.json    where sampling stops, and how long an action may be
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from steptool.config.settings import Params
from steptool.core.errors import InputError
from steptool.core.storage import write_bytes, write_json
from steptool.formats.base import Format, Served
from steptool.formats.chat_template import TODAY
from steptool.policies.model_folder import load_tokenizer

TEMPLATE, PARSER, GENERATION = "chat_template.jinja", "tool_parser.py", "generation_config.json"
GPT_OSS = "openai"
"""vLLM's parser of GPT-OSS."""
DATE = "VLLM_SYSTEM_START_DATE"
OWN_PARSERS = ("json_call", "react")
"""Formats that `tool_parser.py` reads; any other name is that of a parser of vLLM's."""


@dataclass(frozen=True)
class ServingFiles:
    parser: str
    """Name of the parser of calls."""
    has_template: bool
    """Whether a template beside the model stands above its own."""

    @property
    def has_parser(self) -> bool:
        return self.parser in OWN_PARSERS

    @property
    def environment(self) -> dict[str, str]:
        """Of vLLM's server. It writes GPT-OSS's prompts by itself, with today's date."""
        return {DATE: TODAY.strftime("%Y-%m-%d")} if self.parser == GPT_OSS else {}

    def arguments(self, folder: str) -> list[str]:
        """Of vLLM's server, for the files in `folder`."""
        found = ["--enable-auto-tool-choice", "--tool-call-parser", self.parser, "--generation-config", folder]
        if self.has_parser:
            found += ["--tool-parser-plugin", str(Path(folder) / PARSER)]
        if self.has_template:
            found += ["--chat-template", str(Path(folder) / TEMPLATE)]
        return found


def write_serving_files(params: Params, policy: Path, folder: Path) -> ServingFiles:
    """Write them into an existing folder. Raises InputError for a format that no server can speak."""
    format: Format = params.format.build(load_tokenizer(policy))
    if not isinstance(format, Served):
        raise InputError(
            f"the format {params.format.name} has no chat_template and no tool_parser, so no server can speak it",
            where="params.yaml: format",
            fix="give its class both methods (steptool/formats/base.py, Served)",
        )
    template, parser = format.chat_template(), format.tool_parser()
    if template is not None:
        write_bytes(folder / TEMPLATE, template.encode())
    files = ServingFiles(parser, has_template=template is not None)
    if files.has_parser:
        shutil.copyfile(Path(__file__).with_name(PARSER), folder / PARSER)
    limits = {"max_new_tokens": params.sample.max_step_tokens, "temperature": params.evaluate.temperature}
    write_json(folder / GENERATION, {"eos_token_id": list(format.stop_ids), **limits})
    return files
