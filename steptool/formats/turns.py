"""The turns of a conversation as tokens, between the markers of a model's own chat template.

    prompt   <|im_start|>system⏎ … <|im_end|>⏎<|im_start|>user⏎ … <|im_end|>⏎<|im_start|>assistant⏎
    action   … <|im_end|>
    reply    ⏎<|im_start|>tool⏎ … <|im_end|>⏎<|im_start|>assistant⏎

Texts from outside (queries, tool descriptions, tool output) never become control tokens: output holding `<|im_end|>`
is encoded as plain letters and cannot end a turn (`encoder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steptool.formats.chat_template import read_template, unfit
from steptool.formats.encoder import Encoder
from steptool.formats.text import shorten, valid_text


class Turns:
    """`tokenizer` is a Hugging Face tokenizer with a chat template; `max_observation` is in characters.

    Raises ModelError where the template is missing, does not end, or does not keep a conversation's prefix.
    """

    def __init__(self, tokenizer: Any, max_observation: int) -> None:
        self.template = template = read_template(tokenizer)
        self._tokenizer = tokenizer
        self._max_observation = max_observation
        self._encoder = Encoder(tokenizer, template.markers)
        self.control_names = self._encoder.names
        """How the tokens are spelled that no text from outside may become."""
        _, _, before_action, before_observation, after_observation = template.markers
        self._observation = self._encoder.chunk(before_observation, after_observation)
        self._action = self._encoder.chunk(self._encoder.last_turn(before_action), "")
        self._before_action = self._encoder.encode(self._action, "")
        self.end_of_turn: int = self._read_end()
        self.end_text: str = tokenizer.convert_ids_to_tokens(self.end_of_turn)
        ends = {self.end_of_turn, tokenizer.eos_token_id} - {None}
        self.stop_ids: tuple[int, ...] = tuple(sorted(ends))

    def conversation(self, system: str, turns: Sequence[tuple[bool, str]]) -> tuple[int, ...]:
        """Any turns behind a system message, up to where the policy begins: of each whether it is an action, and its
        text. The first of the others is the query, and those behind it stand where observations do.

        Raises ValueError where the last is an action, or there is none.
        """
        before_system, before_query, before_action, before_observation, after_observation = self.template.markers
        pieces, texts = [before_system], [self.template.system.trim(valid_text(system))]
        before, behind = before_query, ""
        for number, (is_action, text) in enumerate(turns):
            if is_action:
                pieces.append(behind or before + before_action)
                texts.append(valid_text(text))
                before, behind = before_observation, ""
            elif number == 0:
                pieces.append(before_query)
                texts.append(self.template.query.trim(valid_text(text)))
                before, behind = before_observation, before_action
            else:
                pieces.append(before_observation)
                texts.append(self.template.observation.trim(shorten(text, self._max_observation)))
                behind = after_observation
        if not behind:
            raise ValueError("nothing is asked" if not turns else "the assistant has spoken last")
        return tuple(self._encoder.encode(self._encoder.chunk(*pieces, behind), *texts))

    def reply(self, action_ids: Sequence[int], observation: str) -> tuple[int, ...]:
        """All tokens between the action `action_ids` and the next, the end of a cut action's turn included."""
        text = shorten(observation, self._max_observation)
        ids = self._encoder.encode(self._observation, self.template.observation.trim(text))
        ended = bool(action_ids) and action_ids[-1] == self.end_of_turn
        return tuple(ids[1 if ended else 0 :])

    def encode_action(self, text: str) -> list[int]:
        """Ids of what the model writes behind the generation prompt, without the end of its turn."""
        text, lead = valid_text(text), self._before_action
        ids = self._encoder.encode(self._action, text)
        return ids[len(lead) :] if ids[: len(lead)] == lead else self._encoder.plain(text)

    def decode(self, ids: Sequence[int]) -> str:
        """What the model wrote, without the tokens that ended its turn."""
        ids = list(ids)
        while ids and ids[-1] in self.stop_ids:
            ids.pop()
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _read_end(self) -> int:
        first = self._encoder.encode(self._observation, "")[:1]
        if not first or first[0] not in self._tokenizer.all_special_ids:
            raise unfit(
                self._tokenizer,
                "its chat template does not end an assistant turn with a special token",
                "use an instruction-tuned model whose turns end with a token such as <|im_end|>",
            )
        return first[0]
