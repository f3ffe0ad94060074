"""What there is to learn from: contrast within tasks, returns that are more than length, credit at tokens."""

from __future__ import annotations

from steptool.checks.diagnosis.differences import explained, same_attempts, share_with_advantage
from steptool.checks.diagnosis.findings import Diagnosed, Name, Severity
from steptool.checks.diagnosis.round import Round, fine
from steptool.core.errors import DataError
from steptool.training.compared import compares, described


def length(of: Round) -> Diagnosed:
    """Is what attempts at a task earn a matter of how long they are?"""
    found = explained(of.scored, of.returns)
    if found is None:
        return fine(Name.length, "no returns differ within tasks, so none by length")
    numbers = {"length": found.by_length, "verdict": found.by_verdict, "correlation": found.direction}
    says = (
        f"within tasks, length explains {found.by_length:.0%} of what returns differ by, "
        f"the verdict {found.by_verdict:.0%}"
    )
    only = found.by_length - found.by_verdict
    if found.by_length < 0.5 or only < 0.25:
        return fine(Name.length, says, numbers)
    longer = found.direction > 0
    return Diagnosed(
        name=Name.length,
        severity=Severity.fault if found.by_length > 0.75 and found.by_verdict < 0.25 else Severity.warning,
        says=f"{says}: {'longer' if longer else 'shorter'} attempts earn more",
        what_to_do="lower reward.alpha, or set reward.use: potential, in which calls earn nothing by their number"
        if longer
        else "lower reward.step_cost and reward.budget_cost, or sample tasks of which some attempts are solved",
        numbers=numbers,
    )


def contrast(of: Round) -> Diagnosed:
    """Do attempts at a task end differently? Where they do not, none is better than another: no gradient."""
    if of.is_imported:
        return fine(Name.contrast, "the attempts are imported: those that are solved are imitated, none is compared")
    tasks, sampling = of.by_task, of.sampling
    solved = (
        f"{tasks.all_solved} tasks solved by all, {tasks.none_solved} by none, {tasks.some_solved} by some attempts"
    )
    solved += f", {tasks.unknown} without a verdict" if tasks.unknown else ""
    share = 1 - tasks.alike / tasks.compared if tasks.compared else 0.0
    numbers = {"contrast": share} | {key: float(value) for key, value in tasks.model_dump().items()}
    says = f"{tasks.compared - tasks.alike} of {tasks.compared} tasks have attempts that earn differently ({solved})"
    is_compared = compares(of.comparison)
    if not is_compared:
        if len({round(value, 9) for value in of.returns}) > 1:
            return fine(Name.contrast, says, numbers)
        severity, says = Severity.fault, f"every attempt of the round earned the same ({solved})"
    else:
        severity = Severity.fault if share < 0.05 else Severity.warning if share < 0.25 else Severity.fine
    if severity is Severity.fine:
        return fine(Name.contrast, says, numbers)
    if not tasks.compared and is_compared:
        says, fix = "every task was attempted once, so nothing is compared", "set sample.attempts to 4 or more"
    elif sampling is not None and same_attempts(of.scored) > 0.5:
        fix = f"raise sample.temperature above {sampling.temperature:g}: the attempts at a task are the same tokens"
    elif tasks.none_solved >= tasks.all_solved:
        fix = "the tasks are too hard: raise methods.sft.epochs for a better start, or sample.attempts for a lucky one"
    else:
        fix = "the tasks are too easy: give the world harder ones, or raise sample.draw for other ones"
    return Diagnosed(name=Name.contrast, severity=severity, says=says, what_to_do=fix, numbers=numbers)


def advantage(of: Round) -> Diagnosed:
    """At how many sampled tokens does credit land?"""
    compared = of.comparison
    if compared is None or not compares(compared):
        return fine(Name.advantage, "no arm of this round compares attempts with each other")
    try:
        share = share_with_advantage(of.credited, compared, of.gamma)
    except DataError as error:
        return fine(Name.advantage, f"not computed: {error.found}")
    says = f"{share:.1%} of the sampled tokens have an advantage ({described(compared, of.gamma)})"
    numbers = {"share": share}
    if share >= 0.005:
        return fine(Name.advantage, says, numbers)
    sampling = of.sampling
    now = f" ({sampling.temperature:g})" if sampling else ""
    return Diagnosed(
        name=Name.advantage,
        severity=Severity.fault if share == 0 else Severity.warning,
        says=says,
        what_to_do=f"raise sample.attempts or sample.temperature{now}, so that attempts part at more tokens",
        numbers=numbers,
    )
