"""How people ask: frames per kind of task, with wordings of their own for train, dev and test.

Slots: {n} item, {m} second item, {f} field, {w} comparative, {noun} kind of thing, {group} `by X` or
`in X`, {c} amount, {on} ` on <provider>` or nothing, {p} {q} providers, {do} an order in words.
"""

from __future__ import annotations

from random import Random

from steptool.worlds.base import Split

ON: dict[Split, tuple[str, ...]] = {
    "train": (" on {p}", " at {p}"),
    "dev": (" with {p}",),
    "test": (" via {p}", " using {p}"),
}

FRAMES: dict[str, dict[Split, tuple[str, ...]]] = {
    "details": {
        "train": (
            "What is the {f} of {n}{on}?",
            "I need the {f} of {n}{on}, please.",
            "{n}{on}: {f}?",
            "Could you look up {n}{on} and tell me the {f}?",
            "A friend keeps talking about {n}. What is the {f}{on}?",
        ),
        "dev": ("Tell me the {f} for {n}{on}.", "Before I decide, check {n}{on}: I want the {f}."),
        "test": (
            "Give me the {f} for {n}{on}.",
            "We are writing about {n} and one thing is missing, the {f}{on}.",
            "Do you know {n}? Find out the {f}{on}.",
        ),
    },
    "option": {
        "train": (
            "What is the {f} of {n}{on} in {c}?",
            "I count in {c}. Get me the {f} of {n}{on}.",
            "{n}{on}: {f} in {c}?",
            "Please check {n}{on} and tell me the {f} in {c}.",
        ),
        "dev": ("Tell me the {f} for {n}{on}, in {c}.", "In {c}, what {f} does {n} have{on}?"),
        "test": (
            "Give me the {f} for {n}{on}, expressed in {c}.",
            "{c} please: the {f} for {n}{on}.",
            "My notes are in {c}, so what is the {f} for {n}{on}?",
        ),
    },
    "compare": {
        "train": (
            "Which is {w}{on}, {n} or {m}?",
            "I cannot decide between {n} and {m}. Which one is {w}{on}?",
            "{n} or {m}: what is {w}{on}?",
            "Compare {n} with {m}{on} and name the one that is {w}.",
        ),
        "dev": ("Between {n} and {m}, what is {w}{on}?", "Check{on} if {n} or {m} is {w} and name it."),
        "test": (
            "Of {n} and {m}, tell me what is {w}{on}.",
            "My sister likes {n}, I like {m}. Which is {w}{on}?",
            "{n} against {m}{on}: say what is {w}.",
        ),
    },
    "act": {
        "train": (
            "Please {do}{on} and give me the code.",
            "{do}{on}. What is the confirmation code?",
            "I want you to {do}{on}; send me the code.",
            "My plans are fixed, so {do}{on} and tell me the code.",
        ),
        "dev": ("Go ahead and {do}{on}. I need the code.", "Can you {do}{on}? Reply with the code."),
        "test": (
            "It is decided: {do}{on} and report the confirmation code.",
            "Would you {do}{on} for us? The code is all I need back.",
            "We have to {do}{on}. Which code do we get?",
        ),
    },
    "quote": {
        "train": (
            "What is the total for {c}{on}?",
            "How much do I pay for {c}{on}?",
            "{c}{on}: total price?",
            "I would like {c}. What does that come to{on}?",
        ),
        "dev": ("Tell me the total of {c}{on}.", "What would {c} cost altogether{on}?"),
        "test": (
            "Sum up {c}{on}, please.",
            "Our group needs {c}. What is the bill{on}?",
            "Work out what {c} would cost{on}.",
        ),
    },
    "convert": {
        "train": (
            "How much is {c} dollars in {n}{on}?",
            "Convert {c} dollars into {n}{on}.",
            "I have {c} dollars. What is that in {n}{on}?",
            "{c} dollars to {n}{on}, please.",
        ),
        "dev": ("Change {c} dollars to {n}{on}.", "What do I get in {n} for {c} dollars{on}?"),
        "test": (
            "Express {c} dollars in {n}{on}.",
            "My budget is {c} dollars; in {n} that makes what{on}?",
            "Tell me what {c} dollars are worth in {n}{on}.",
        ),
    },
    "cheapest": {
        "train": (
            "What is the cheapest {noun} {group}{on}?",
            "I am short of money. Find the cheapest {noun} {group}{on}.",
            "Cheapest {noun} {group}{on}?",
            "Show me the {noun} {group} with the lowest price{on}.",
        ),
        "dev": ("Name the least expensive {noun} {group}{on}.", "Which {noun} {group} costs the least{on}?"),
        "test": (
            "I want to spend as little as possible: which {noun} {group}{on}?",
            "The lowest-priced {noun} {group}{on}, what is it called?",
            "Pick the {noun} {group} that costs least{on}.",
        ),
    },
    "limit": {
        "train": (
            "Which {noun} {group} costs at most {c} dollars{on}?",
            "I have {c} dollars. Find a {noun} {group}{on}.",
            "A {noun} {group} for up to {c} dollars{on}?",
            "Please find a {noun} {group} that is not over {c} dollars{on}.",
        ),
        "dev": (
            "Name a {noun} {group} within {c} dollars{on}.",
            "With {c} dollars, what {noun} {group} can I get{on}?",
        ),
        "test": (
            "My limit is {c} dollars: which {noun} {group}{on}?",
            "Suggest a {noun} {group}, {c} dollars or less{on}.",
            "We can pay {c} dollars and not more. Any {noun} {group}{on}?",
        ),
    },
    "cheapest_details": {
        "train": (
            "What is the {f} of the cheapest {noun} {group}{on}?",
            "I need the {f} of the {noun} {group} with the lowest price{on}.",
            "Cheapest {noun} {group}{on}: {f}?",
            "Find the cheapest {noun} {group}{on} and tell me the {f}.",
        ),
        "dev": (
            "Tell me the {f} for the least expensive {noun} {group}{on}.",
            "The {noun} {group} that costs the least{on}: check the {f}.",
        ),
        "test": (
            "Give me the {f} for the {noun} {group} that costs least{on}.",
            "The lowest-priced {noun} {group}{on}, what is its {f}?",
            "We take the most affordable {noun} {group}{on}. Its {f}?",
        ),
    },
    "all": {
        "train": (
            "List all {noun}s {group}{on}.",
            "Which {noun}s {group} are there{on}? Name them all.",
            "Every {noun} {group}{on}, please.",
            "I want to see all {noun}s {group}{on}.",
        ),
        "dev": ("Name each {noun} {group}{on}.", "What {noun}s {group} do they have{on}?"),
        "test": (
            "Write down each {noun} {group}{on}.",
            "Give me the full list of {noun}s {group}{on}.",
            "We need every {noun} {group}: which ones are there{on}?",
        ),
    },
    "other": {
        "train": (
            "Which other {noun} has the same {f} as {n}{on}?",
            "I liked {n}. Find another {noun} with the same {f}{on}.",
            "{n} shares its {f} with one more {noun}{on}. Which?",
            "Look up the {f} of {n}{on} and name the other {noun} that has it.",
        ),
        "dev": ("Besides {n}, what {noun} has that {f}{on}?", "Name a second {noun} with the {f} of {n}{on}."),
        "test": (
            "Apart from {n}, which {noun} shares the {f}{on}?",
            "Same {f} as {n}, but a different {noun}{on}: which one?",
            "We know {n} already. What else is there with this {f}{on}?",
        ),
    },
    "where": {
        "train": (
            "Where is {n} cheaper, {p} or {q}?",
            "Compare the price of {n} at {p} and {q}. Who is cheaper?",
            "{n}: {p} or {q}, which has the lower price?",
            "I want {n}. Should I go to {p} or {q} to pay less?",
        ),
        "dev": ("Is {p} or {q} the less expensive one for {n}?", "Who asks less for {n}: {p} or {q}?"),
        "test": (
            "For {n}, which of {p} and {q} costs least?",
            "I saw {n} at {p} and at {q}. Tell me who charges less.",
            "Between {p} and {q}, who has the better price on {n}?",
        ),
    },
    "either": {
        "train": (
            "What is the {f} of {n}? Try {p}, then {q}.",
            "I need the {f} of {n}; either {p} or {q} has it.",
            "{n}: {f}? It may be at {p} or at {q}.",
            "Look for {n} at {p}, else at {q}, and tell me the {f}.",
        ),
        "dev": ("Tell me the {f} for {n}, from {p} or from {q}.", "{p} or {q} must know {n}. I want the {f}."),
        "test": (
            "Give me the {f} for {n}; ask {p} and if needed {q}.",
            "Someone, {p} or maybe {q}, lists {n}. Find the {f}.",
            "Whoever has {n}, {p} or {q}: what is the {f}?",
        ),
    },
    "elsewhere": {
        "train": (
            "{n} is at {p}. What is the cheapest {noun} with the same {f} at {q}?",
            "Find the {f} of {n} on {p}, then the cheapest {noun} with that {f} on {q}.",
            "Take the {f} of {n} from {p}. Which {noun} with that {f} is cheapest at {q}?",
            "I know {n} from {p}. Cheapest {noun} at {q} with the same {f}?",
        ),
        "dev": (
            "Get the {f} for {n} from {p} and name the least expensive {noun} with that {f} at {q}.",
            "{p} has {n}. Same {f}, which {noun} costs the least at {q}?",
        ),
        "test": (
            "Ask {p} for the {f} for {n} and pick the {noun} at {q} that has it too and costs least.",
            "With the {f} for {n} as {p} gives it, what is the lowest-priced {noun} at {q}?",
            "{q} has {noun}s too: which one with the {f} {n} has at {p} costs least?",
        ),
    },
    "act_where": {
        "train": (
            "{do} at {p} or {q}, whichever is cheaper, and give me the code.",
            "Find out if {p} or {q} is cheaper, then {do} there. What is the code?",
            "Please {do} where it costs less, {p} or {q}; I need the code.",
            "Compare {p} with {q}, {do} at the cheaper one and tell me the code.",
        ),
        "dev": (
            "Go to the less expensive of {p} and {q} and {do}. Reply with the code.",
            "Who asks less, {p} or {q}? There, {do} and send the code.",
        ),
        "test": (
            "At the one of {p} and {q} that charges less, {do} and report the code.",
            "We pay as little as possible: {do}, {p} or {q}, and tell us the code.",
            "Check both {p} and {q}, {do} at the better price. Which code do we get?",
        ),
    },
    "weather": {
        "train": (
            "What is the {f} in the city of {n}?",
            "I am going to {n}. What {f} will there be in that city?",
            "{n}: find the city and tell me the {f} there.",
            "We plan a trip to {n}. Check the {f} in that city.",
        ),
        "dev": ("Tell me the {f} where {n} is.", "In the city of {n}, what is the {f}?"),
        "test": (
            "Find out where {n} is and give me the {f} there.",
            "Tonight it is {n} for us. Which {f} has that city?",
            "I pack for {n}: what {f} does the city expect?",
        ),
    },
    "nearby": {
        "train": (
            "What is the cheapest {noun} in the city of {n}?",
            "I am going to {n}. Find the cheapest {noun} in that city.",
            "{n}: cheapest {noun} in the same city?",
            "We plan a trip to {n} and need a {noun} there. Which is cheapest?",
        ),
        "dev": ("Name the least expensive {noun} where {n} is.", "In the city of {n}, which {noun} costs the least?"),
        "test": (
            "Find out where {n} is and pick the {noun} there that costs least.",
            "Tonight it is {n} for us. The lowest-priced {noun} in that city?",
            "Near {n}, in its city, which {noun} takes the least money?",
        ),
    },
    "abroad": {
        "train": (
            "What is the price of {n} in {c}?",
            "I pay in {c}. How much is {n}?",
            "{n}: price in {c}, please.",
            "Look up the price of {n} and convert it to {c}.",
        ),
        "dev": ("Tell me the cost of {n} as {c}.", "With {c} in my pocket, what does {n} cost?"),
        "test": (
            "Give me the price tag of {n}, expressed in {c}.",
            "We only have {c}. What would {n} cost us?",
            "How much would one need in {c} for {n}?",
        ),
    },
}


def say(kind: str, split: Split, rng: Random, provider: str | None = None, **slots: object) -> str:
    """A query of a kind, its first letter raised; `provider` fills {on}."""
    on = rng.choice(ON[split]).format(p=provider) if provider else ""
    text = rng.choice(FRAMES[kind][split]).format(on=on, **slots)
    return text[0].upper() + text[1:]
