"""The sentences of explanations, as templates by key. Says nothing about when a sentence is used.

A translation is a mapping with the same keys whose templates use the same names; `check_messages` tells whether one is.
"""

from collections.abc import Mapping
from string import Formatter
from typing import Final

ENGLISH: Final[Mapping[str, str]] = {
    "reason.retention.days": "You last practised {concept} {days} days ago; you would now recall it with {recall} %.",
    "reason.retention.day": "You last practised {concept} yesterday; you would now recall it with {recall} %.",
    "reason.retention.hours": "You practised {concept} {hours} hours ago; you would now recall it with {recall} %.",
    "reason.retention.now": "You practised {concept} just now; you would recall it with {recall} %.",
    "reason.retention.other": "It refreshes concepts that you are about to forget.",
    "reason.gain.new": "{concept} is new to you, and what it needs is in place.",
    "reason.gain.unlocks": "{unlocks} further concepts wait for {concept}; you master it to {mastery} % so far.",
    "reason.gain.unlock": "One further concept waits for {concept}; you master it to {mastery} % so far.",
    "reason.gain.known": "You know {concept} well, to {mastery} %: practice now makes it last.",
    "reason.gain": "You master {concept} to {mastery} % so far: practice can still raise it.",
    "reason.zone": "You would get it right with {predicted} %: neither too easy nor too hard for you.",
    "reason.zone.off": "You would get it right with {predicted} %; most others are further from {target} %.",
    "reason.readiness": "You know what {concept} builds on.",
    "reason.objective.goal": "It practises your goal, {objective}.",
    "reason.objective.step": "{concept} is one step away from your goal, {objective}.",
    "reason.objective.steps": "{concept} is {steps} steps away from your goal, {objective}.",
    "reason.objective.other": "It leads to your goal, {objective}.",
    "reason.collaborative": "Learners who practised what you did went on to this with profit.",
    "reason.content": "It is close to what you practised lately.",
    "reason.context": "It takes about {seconds} seconds, which suits the moment.",
    "reason.engagement": "Suggestions like this one are often taken up.",
    "reason.popularity": "Many learners practise this question.",
    "reason.repetition": "You have not met it lately.",
    "reason.diversity": "It brings variety to the list.",
    "reason.start": "A good place to start: much else builds on {concept}.",
    "reason.chance": "It was drawn at random among what you are ready for.",
    "reason.rest": "None of the questions left has more to speak for it yet.",
    "term.zone": "fit of difficulty",
    "term.gain": "expected gain",
    "term.retention": "cost of forgetting",
    "term.readiness": "readiness",
    "term.objective": "nearness to the goal",
    "term.collaborative": "liking by similar learners",
    "term.content": "likeness to recent practice",
    "term.context": "fit to the moment",
    "term.engagement": "chance of being taken up",
    "term.popularity": "popularity",
    "term.repetition": "repetition",
    "term.diversity": "sameness within the list",
    "without.zone.below": "It would not be shown if you were to get it right with less than {predicted} %.",
    "without.zone.above": "It would not be shown if you were to get it right with more than {predicted} %.",
    "without.retention": "It would not be shown if you recalled {concept} with {recall} % or more.",
    "without.term": "It would not be shown if its {term} fell from {value} to {needed}.",
    "without.nothing": "No single change would take it off the list: several reasons speak for it.",
    "without.rival": "There was nothing else to show in its place.",
    "without.tie": "Another question has as good a score, and could as well have been shown in its place.",
    "without.luck": "It was drawn for variety: another question had the better score.",
}
"""The catalogue of messages in English. `{recall}`, `{mastery}`, `{predicted}` and `{target}` are whole per cent."""


def check_messages(messages: Mapping[str, str]) -> None:
    """Check that a translation can stand in for `ENGLISH`.

    Raises:
        ValueError: naming the first key that is missing, unknown, or whose template uses other names.
    """
    for key in sorted(ENGLISH.keys() | messages.keys()):
        if key not in messages or key not in ENGLISH:
            raise ValueError(f"message {key!r} is {'missing' if key in ENGLISH else 'unknown'}")
        wanted, given = _names(ENGLISH[key]), _names(messages[key])
        if not given <= wanted:
            raise ValueError(f"message {key!r} uses {sorted(given - wanted)}; there are {sorted(wanted)}")


def _names(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}
