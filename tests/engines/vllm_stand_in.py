"""vLLM's server as far as an engine needs it, computed by Transformers on a tiny model; its faults are settings."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from steptool.policies.folder import merge_adapter
from steptool.policies.model_folder import load_model
from tests.endpoints.fake import serving


class StandIn:
    """`processed`: whether log-probabilities are of the distribution that is sampled from, as vLLM's are on request."""

    def __init__(self, base: Path, *, longest: int = 8192) -> None:
        self.base, self.longest = base, longest
        self.models: dict[str, Any] = {"served": load_model(base, dtype=torch.float32)}
        self.loaded: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.processed, self.returns_ids, self.may_load, self.fails = True, True, True, 0
        self.url = ""

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        def models() -> Any:
            cards = [{"id": name, "parent": None if name == "served" else "served"} for name in self.models]
            return {"data": [card | {"max_model_len": self.longest} for card in cards]}

        @app.post("/v1/load_lora_adapter")
        async def load(request: Request) -> Response:
            asked = await request.json()
            name, place = asked["lora_name"], Path(asked["lora_path"])
            if not self.may_load:
                return JSONResponse({"error": {"message": "Not Found"}}, 404)
            if name in self.models:
                message = f"The lora adapter '{name}' has already been loaded."
                return JSONResponse({"error": {"message": message}}, 400)
            if not place.is_dir():
                return JSONResponse({"error": {"message": f"No adapter found for {place}"}}, 404)
            with tempfile.TemporaryDirectory() as merged:
                merge_adapter(self.base, place, Path(merged), dtype="float32")
                self.models[name] = load_model(Path(merged), dtype=torch.float32)
            self.loaded.append((name, str(place)))
            return PlainTextResponse("Success")

        @app.post("/v1/completions")
        async def complete(request: Request) -> Response:
            body = await request.json()
            self.bodies.append(body)
            if self.fails:
                self.fails -= 1
                return JSONResponse({"error": {"message": "busy"}}, 503)
            return JSONResponse({"choices": [self.choice(body)]})

        return app

    @torch.no_grad()
    def choice(self, body: dict[str, Any]) -> dict[str, Any]:
        model, ids, found = self.models[body["model"]], list(body["prompt"]), []
        own = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        generator = torch.Generator().manual_seed(body.get("seed") or 0)
        finish, temperature = "length", body["temperature"]
        for _ in range(body["max_tokens"]):
            logits = model(torch.tensor([ids])).logits[0, -1]
            sampled_from = logits.log_softmax(-1) if temperature == 0 else (logits / temperature).log_softmax(-1)
            token = int(logits.argmax() if temperature == 0 else sampled_from.exp().multinomial(1, generator=generator))
            found.append(float((sampled_from if self.processed else logits.log_softmax(-1))[token]))
            ids.append(token)
            if token in body.get("stop_token_ids", []):
                finish = "stop"
                break
        made = ids[len(body["prompt"]) :]
        choice: dict[str, Any] = {"text": "…", "finish_reason": finish, "logprobs": {"token_logprobs": found}}
        if body.get("return_token_ids") and self.returns_ids:
            choice["token_ids"] = made
        if "prompt_logprobs" in body:
            rows = [{str(t): {"logprob": float(own[at, t])}} for at, t in enumerate(body["prompt"][1:])]
            choice["prompt_logprobs"] = [None, *rows]
        return choice


@contextlib.contextmanager
def stand_in(base: Path, **options: Any) -> Iterator[StandIn]:
    server = StandIn(base, **options)
    with serving(server.app()) as server.url:
        yield server
