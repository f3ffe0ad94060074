"""Which policy was sampled: whether it is another than before, and whether the engine is one with itself."""

from __future__ import annotations

from steptool.checks.diagnosis import likelihoods
from steptool.checks.diagnosis.findings import Diagnosed, Name, Severity
from steptool.checks.diagnosis.round import Round, fine, graded

NOTHING = 0.005
"""Nats. A training that moves the tokens that it moves most by less than this has moved nothing."""
FEWEST_TOKENS = 20
"""That two samples must share to be compared."""
SAME_POLICY = 0.95
"""Share of these with the same log-probability, from which on two policies are one."""

IMPORTED = "nothing was sampled here: the attempts are imported"


def weights(of: Round) -> Diagnosed:
    """Did the round sample from another policy than the one before, as it should, and had training moved that?"""
    if of.is_imported:
        return fine(Name.weights, IMPORTED)
    if of.asked is not None and of.asked.moved < NOTHING:
        return _never_arrived(
            f"training {of.policy} moved nothing: {of.asked.moved:.2g} nats at the {of.asked.tokens} tokens of its "
            "canary that changed most",
            f"raise arms.{of.arm}.settings.learning_rate; grad_norm in {of.policy}/training.json says whether it is 0",
            {"moved": of.asked.moved},
        )
    moved = "" if of.asked is None else f"; its training moved {of.asked.moved:.2g} nats at the tokens of its canary"
    if not of.before or not of.scored:
        return fine(Name.weights, f"the first round: there is none to hold it against{moved}")
    now, then = of.scored[0].trajectory.policy, of.before[0].trajectory.policy
    if now.name == then.name:
        return fine(Name.weights, f"{now.name} was sampled in the previous round, too{moved}")
    if now.revision == then.revision:
        return _never_arrived(
            f"{now.name} holds the very files of {then.name} (revision {now.revision})",
            f"train it: `dvc repro --force --single-item train-{of.arm}`, then `dvc repro`",
            {"same_revision": 1.0},
        )
    earlier = [item.trajectory for item in of.before]
    # Only the attempts at a common task share a prompt, and so places.
    common = {each.task_id for each in of.trajectories} & {each.task_id for each in earlier}
    here, before = (
        likelihoods.places([each for each in attempts if each.task_id in common])
        for attempts in (of.trajectories, earlier)
    )
    compared, same = likelihoods.agreement(here, before, likelihoods.ROUNDING[of.dtype])
    numbers = {"compared_tokens": float(compared), "same_tokens": float(same)}
    if compared < FEWEST_TOKENS:
        says = f"{now.name} is another than {then.name}; the rounds share too few tokens to compare log-probabilities"
        return fine(Name.weights, f"{says}{moved}", numbers)
    if same / compared >= SAME_POLICY:
        return _never_arrived(
            f"{now.name} acts as {then.name} did: the same log-probability for {same:,} of {compared:,} tokens",
            f"`dvc repro --force --single-item sample-{of.name}`, if the engine left the adapter out; raise "
            f"arms.{of.arm}.settings.learning_rate, if grad_norm in {now.name}/training.json is 0",
            numbers,
        )
    says = f"{now.name} differs from {then.name} at {1 - same / compared:.0%} of {compared:,} tokens"
    return fine(Name.weights, f"{says}{moved}", numbers)


def _never_arrived(says: str, what_to_do: str, numbers: dict[str, float]) -> Diagnosed:
    return Diagnosed(name=Name.weights, severity=Severity.fault, says=says, what_to_do=what_to_do, numbers=numbers)


def engine(of: Round) -> Diagnosed:
    """Does the engine sample from one distribution, and is it the policy's own?"""
    if of.is_imported:
        return fine(Name.engine, IMPORTED)
    seen = likelihoods.spread(likelihoods.places(of.trajectories))
    numbers = {"tokens": float(seen.tokens), "mean": seen.mean, "largest": seen.largest}
    sampling = of.sampling
    if sampling is not None and sampling.top_p < 1:
        return Diagnosed(
            name=Name.engine,
            severity=Severity.warning,
            says=f"sampled with top_p {sampling.top_p:g}: the engine's probabilities are not those of the policy, and "
            "importance weights correct for a difference that training did not make",
            what_to_do="set sample.top_p: 1.0",
            numbers=numbers,
        )
    says = f"the same token in the same place differs by {seen.mean:.2g} nats in the mean ({seen.tokens:,} tokens)"
    if seen.tokens < FEWEST_TOKENS or seen.mean < 0.02:
        asked = "the canary was not asked"
        if of.asked is not None:
            asked = f"it is {of.asked.difference:.2g} nats from the trainer at the canary's {of.asked.tokens} tokens"
            numbers["canary"] = of.asked.difference
        alone = says if seen.tokens else "no token was sampled twice in the same place"
        return fine(Name.engine, f"{alone}; {asked}", numbers)
    return Diagnosed(
        name=Name.engine,
        severity=graded(seen.mean, warning=0.02, fault=0.1),
        says=f"{says}: more than rounding explains, as if a part was sampled from other weights",
        what_to_do=f"set model.dtype: float32, or sample again: `dvc repro --force --single-item sample-{of.name}`",
        numbers=numbers,
    )
