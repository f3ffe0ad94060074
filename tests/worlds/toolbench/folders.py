"""Two small folders of three requests, in both layouts.

request   subset           offers                      helps     recorded
1         G1_tool          find(key, n), count()        find      find {"key": "A 1"} ─▶ one, {"key": "Berlin"} ─▶ city
2         G1_tool          count()                     count     count {} ─▶ hard error
3         G3_instruction   find(key, n)                 find
"""

import gzip
import json
from pathlib import Path
from typing import Any

from steptool.worlds.toolbench.pack import QUERIES, REPLIES

ONE, CITY = '{"error": "", "response": {"name": "one"}}', '{"error": "", "response": "a city"}'
DOWN = '{"error": "API not working error...", "response": ""}'
ID = {"name": "key", "type": "STRING", "description": "which", "default": "A 1"}
N = {"name": "n", "type": "NUMBER", "description": "", "default": ""}
_SUBSETS = {"G1_tool": [(1, "Find one.", ["Find", "Count All"], "Find"), (2, "Count.", ["Count All"], "Count All")]}
_SUBSETS["G3_instruction"] = [(3, "Find three.", ["Find"], "Find")]


def make_pack(folder: Path) -> Path:
    """`find` is shown as `find_for_my_tool`."""
    parameters = [{**each, "required": each is ID} for each in (ID, N)]
    functions: dict[str, dict[str, Any]] = {
        "Find": {"name": "find_for_my_tool", "parameters": parameters},
        "Count All": {"name": "count_all_for_my_tool", "parameters": []},
    }
    for function in functions.values():
        function |= {"description": "Does it.", "category": "Video, Images", "tool": "My Tool"}
    rows = [
        {
            "query_id": str(id),
            "subset": subset,
            "query": query,
            "api_list": [functions[name] for name in offered],
            "relevant_apis": [{"name": functions[helps]["name"]}],
        }
        for subset, requests in _SUBSETS.items()
        for id, query, offered, helps in requests
    ]
    of_tool = {"category": "Video, Images", "tool": "My Tool"}
    replies = [
        ("find_for_my_tool", '{"key":"A 1"}', ONE, "none"),
        ("find_for_my_tool", '{"key":"Berlin"}', CITY, "none"),
        ("count_all_for_my_tool", "{}", DOWN, "hard"),
    ]
    calls = [
        {**of_tool, "name": name, "arguments": arguments, "responses": [{"text": text, "error": error}]}
        for name, arguments, text, error in replies
    ]
    folder.mkdir(exist_ok=True)
    for file, lines in ((QUERIES, rows), (REPLIES, calls)):
        with gzip.open(folder / file, "wt", encoding="utf-8") as out:
            out.writelines(json.dumps(line) + "\n" for line in lines)
    return folder


def make_stable(folder: Path) -> Path:
    """StableToolBench's three folders."""
    apis: dict[str, dict[str, Any]] = {
        "Find": {"required_parameters": [ID], "optional_parameters": [N]},
        "Count All": {"required_parameters": [], "optional_parameters": [N]},
    }
    described = {"Find": "Find finds.", "Count All": ""}
    for subset, requests in _SUBSETS.items():
        rows = [
            {
                "query_id": id,
                "query": query,
                "relevant APIs": [["My Tool", helps]],
                "api_list": [
                    {
                        "category_name": "Video, Images",
                        "tool_name": "My Tool",
                        "api_name": name,
                        "api_description": described[name],
                        **apis[name],
                    }
                    for name in offered
                ],
            }
            for id, query, offered, helps in requests
        ]
        write(folder / "solvable_queries/test_instruction" / f"{subset}.json", rows)
    tool = {
        "tool_name": "My Tool",
        "tool_description": "A tool.",
        "api_list": [{"name": name, "description": described[name], **api} for name, api in apis.items()],
    }
    write(folder / "server/tools/Video_Images/my_tool.json", tool)
    cache = folder / "server/tool_response_cache/Video_Images/my_tool_for_Video_Images"
    write(cache / "find.json", {"{'key': 'A 1'}": json.loads(ONE), "{'key': 'Berlin'}": json.loads(CITY)})
    write(cache / "count_all.json", {"{}": json.loads(DOWN)})
    return folder


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
