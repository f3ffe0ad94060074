"""How attempts ended: faults, budgets, answers without a call."""

from __future__ import annotations

from collections import Counter

from steptool.checks.diagnosis.findings import Diagnosed, Name, Severity
from steptool.checks.diagnosis.round import Round, fine, graded
from steptool.core.types import StopReason


def broken(of: Round) -> Diagnosed:
    """Attempts that a fault of the engine or the world ended."""
    lost = [each for each in of.trajectories if each.stop_reason.broken]
    if not lost:
        return fine(Name.broken, "no attempt was ended by a fault")
    error, count = Counter(each.error or each.stop_reason.value for each in lost).most_common(1)[0]
    share = len(lost) / of.counts.attempts
    first = next(each.task_id for each in lost if (each.error or each.stop_reason.value) == error)
    return Diagnosed(
        name=Name.broken,
        severity=graded(share, warning=0.0, fault=0.1),
        says=f"{len(lost)} of {of.counts.attempts} attempts were ended by a fault, {count} of them by {error[:160]}",
        what_to_do=f"mend that (first at task {first}), or raise validate.max_broken; `steptool doctor` looks at the "
        "machine",
        numbers={"broken": share},
    )


def budget(of: Round) -> Diagnosed:
    """Attempts that ran out of calls or tokens, and actions that ran into max_step_tokens."""
    counts, sampling = of.counts, of.sampling
    calls, tokens = counts.share("call_budget"), counts.share("token_budget")
    share = counts.attempts_cut / max(counts.attempts, 1)
    numbers = {"call_budget": calls, "token_budget": tokens, "cut_actions": float(counts.cut_actions), "share": share}
    if not counts.attempts_cut or sampling is None:
        return fine(Name.budget, "no attempt ran out of calls or tokens", numbers)
    actions = sum(len(each.steps) for each in of.trajectories)
    cut = counts.cut_actions / max(actions, 1)
    causes = {
        "max_step_tokens": (cut, sampling.max_step_tokens),
        "max_tokens": (tokens, sampling.max_tokens),
        "max_calls": (calls, sampling.max_calls),
    }
    # Where most actions are cut, calls run out because of that.
    setting = "max_step_tokens" if cut >= 0.5 else max(causes, key=lambda key: causes[key][0])
    now = causes[setting][1]
    room = " and sample.max_tokens with it" if setting != "max_tokens" else ""
    return Diagnosed(
        name=Name.budget,
        severity=graded(share, warning=0.15, fault=0.5),
        says=f"{share:.0%} of the attempts were cut: {calls:.0%} out of calls, {tokens:.0%} out of tokens; "
        f"{counts.cut_actions} of {actions} actions stopped at {sampling.max_step_tokens} tokens, unread",
        what_to_do=f"raise sample.{setting} from {now} to {2 * now}{room}",
        numbers=numbers,
    )


def rewritten(of: Round) -> Diagnosed:
    """Attempts whose token stream could not be extended."""
    share = of.counts.share("rewritten")
    if not share:
        return fine(Name.rewritten, "no history was rewritten")
    return Diagnosed(
        name=Name.rewritten,
        severity=graded(share, warning=0.0, fault=0.3),
        says=f"{share:.0%} of the attempts ended because their history was rewritten: what followed is not theirs",
        what_to_do="let the agent only append to its messages (no summaries, no dropped turns), or set another "
        "format.use, which can extend the stream",
        numbers={"rewritten": share},
    )


def no_calls(of: Round) -> Diagnosed:
    """Policies that answer from memory: the way to a reward that many of them find."""
    counts, previous = of.counts, of.previous
    share = counts.without_call / max(counts.attempts, 1)
    was = previous.without_call / max(previous.attempts, 1) if previous else None
    trend = "" if was is None else f", {was:.0%} in the previous round"
    numbers = {"without_call": share} | ({} if was is None else {"previous": was})
    says = f"{share:.0%} of the attempts answer or give up without a single call{trend}"
    grown = share - (was or 0.0)
    severity = graded(share, warning=0.1, fault=0.5)
    if was is not None and grown > 0.25:
        severity = Severity.fault
    if severity is Severity.fine:
        return fine(Name.no_calls, says, numbers)
    fix = "train its start policy longer on demonstrations that call tools: raise methods.sft.epochs"
    if was is not None and grown > 0.05:
        fix = f"lower arms.{of.arm}.settings.learning_rate, or raise its kl_coef: its training has unlearned to call"
    return Diagnosed(name=Name.no_calls, severity=severity, says=says, what_to_do=fix, numbers=numbers)


def endings(of: Round) -> Diagnosed:
    counts = of.counts
    said = ", ".join(f"{count / counts.attempts:.0%} {ending}" for ending, count in counts.endings.items())
    numbers = {ending: count / counts.attempts for ending, count in counts.endings.items()}
    gave_up = counts.share(StopReason.gave_up.value)
    if gave_up < 0.5:
        return fine(Name.endings, said or "no attempts", numbers)
    return Diagnosed(
        name=Name.endings,
        severity=graded(gave_up, warning=0.0, fault=0.9),
        says=f"{gave_up:.0%} of the attempts give up",
        what_to_do="show more demonstrations that answer (demonstrations), or raise methods.sft.epochs",
        numbers=numbers,
    )


def calls(of: Round) -> Diagnosed:
    """Calls an attempt, against the previous round."""
    now, previous = of.counts.calls, of.previous
    if previous is None:
        return fine(Name.calls, f"{now:.2f} calls an attempt", {"calls": now})
    says = f"{now:.2f} calls an attempt, {previous.calls:.2f} in the previous round"
    numbers = {"calls": now, "previous": previous.calls}
    if previous.calls / 2 <= now <= previous.calls * 2:
        return fine(Name.calls, says, numbers)
    return Diagnosed(
        name=Name.calls,
        severity=Severity.warning,
        says=says,
        what_to_do="raise reward.step_cost if the calls do not help, see the tools below"
        if now > previous.calls
        else "lower reward.step_cost, or raise reward.alpha: calls do not pay",
        numbers=numbers,
    )


def verdicts(of: Round) -> Diagnosed:
    """Attempts of which nobody can tell whether they solved their task."""
    unknown, attempts = of.counts.without_verdict, of.counts.attempts
    if not unknown:
        return fine(Name.verdicts, "every attempt has a verdict")
    if unknown < attempts:
        return fine(Name.verdicts, f"{unknown} of {attempts} attempts have none: only their calls earn")
    return Diagnosed(
        name=Name.verdicts,
        severity=Severity.warning,
        says=f"none of {attempts} attempts has a verdict: only calls earn, and nothing shows whether tasks are solved",
        what_to_do="give some tasks a `check`, so that evaluation can tell whether training helps",
        numbers={"unknown": unknown / attempts},
    )
