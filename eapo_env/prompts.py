"""All text that the policy reads in an episode: prompts, relayed replies, notices (Appendix G).

Expert text is data: the grammar's tags inside it are escaped, so that no reply can close its own
tag, open a consultation, or imitate the environment; a reply that is too long is cut, with a mark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from eapo_env.types import LONE_SURROGATE, Consultation, Message, Problem, Reply, Rules
from eapo_env.validation import UserError

CUT_MARK = "... [cut]"

_TAG = re.compile(r"<(?=\s*+(?:/\s*+)?+(?:consult|query|reply|think)\b)", re.IGNORECASE)
_UNENCODABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The prompts, as `str.format` templates; the default is the paper's regime in full sentences.

    `training` and `alone` open an episode and see `statement`, `turn_budget`, `queries_per_turn`;
    `reply` sees `slot` (from 1), `expert`, `text`; `unavailable` sees `slot`, and reads the same
    whether the gate refused, the expert failed or time ran out; `surplus` sees
    `queries_per_turn`; `turns_left` sees `turns_left`; `malformed` and `last_turn` see nothing.

    Raises:
        UserError: a template with any other field.
    """

    training: str = (
        "Solve the problem below. You may consult experts before you answer. To consult, end your"
        " turn with up to {queries_per_turn} questions, which are answered in parallel:\n"
        "<consult>\n<query>first question</query>\n<query>second question</query>\n</consult>\n"
        "Ask about the whole problem or about a part of it; each question must be understandable"
        " by itself. Replies can be wrong, and an expert can be unavailable: check what you are"
        " told, and go on by yourself where nothing comes back. You have {turn_budget} turns in"
        " all; a consultation in the last one cannot be used. When you are done, reason to the end"
        " and put the final answer in \\boxed{{}}.\n\nProblem: {statement}"
    )
    alone: str = (
        "Solve the problem below. Reason step by step, and put the final answer in \\boxed{{}}."
        "\n\nProblem: {statement}"
    )
    reply: str = '<reply query="{slot}" expert="{expert}">\n{text}\n</reply>\n'
    unavailable: str = '<reply query="{slot}">\nNo expert is available for this.\n</reply>\n'
    surplus: str = "Only the first {queries_per_turn} questions were asked.\n"
    malformed: str = "That was neither a consultation nor a final answer in \\boxed{{}}.\n"
    turns_left: str = "Turns left: {turns_left}."
    last_turn: str = "This is your last turn: give the final answer in \\boxed{{}}."

    def __post_init__(self) -> None:
        values: dict[str, dict[str, object]] = {
            "training": {"statement": "", "turn_budget": 4, "queries_per_turn": 3},
            "alone": {"statement": "", "turn_budget": 1, "queries_per_turn": 0},
            "reply": {"slot": 1, "expert": "", "text": ""},
            "unavailable": {"slot": 1},
            "surplus": {"queries_per_turn": 3},
            "turns_left": {"turns_left": 1},
        }
        for field in fields(self):
            template = getattr(self, field.name)
            try:
                template.format(**values.get(field.name, {}))
            except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
                raise UserError(
                    f"prompt {field.name!r} cannot be filled in: {error!r} in {template!r}"
                ) from None

    @classmethod
    def terse(cls) -> Prompts:
        """Return the shortest wording, for character-level models that pay for every letter."""
        return cls(
            training="{statement}\nask {queries_per_turn}, turns {turn_budget}",
            alone="{statement}",
            reply="<reply>{text}</reply>\n",
            unavailable="<reply>-</reply>\n",
            surplus="",
            malformed="?\n",
            turns_left="turns {turns_left}",
            last_turn="turns 1",
        )

    @classmethod
    def few_shot(cls) -> Prompts:
        """Return the default wording with an example before the problem."""
        plain = cls()
        return cls(
            training=_with_example(plain.training, _TRAINING_EXAMPLE),
            alone=_with_example(plain.alone, _ALONE_EXAMPLE),
        )

    def opening(self, problem: Problem, rules: Rules) -> Message:
        """Return the opening: the training prompt, or without experts the evaluation prompt."""
        template = self.alone if rules.is_alone else self.training
        return Message(
            "user",
            template.format(
                statement=problem.statement,
                turn_budget=rules.turn_budget,
                queries_per_turn=rules.queries_per_turn,
            ),
        )

    def relay(
        self, consultation: Consultation, *, num_surplus: int, turns_left: int, rules: Rules
    ) -> Message:
        """Return the message that brings the accepted replies, in query order."""
        parts = [
            self._one_reply(slot, reply, accepted, rules)
            for slot, (reply, accepted) in enumerate(
                zip(consultation.replies, consultation.accepted, strict=True), start=1
            )
        ]
        if num_surplus:
            parts.append(self.surplus.format(queries_per_turn=rules.queries_per_turn))
        return Message("user", "".join(parts) + self._turns(turns_left))

    def notice(self, *, turns_left: int) -> Message:
        """Return the message that follows a malformed turn."""
        return Message("user", self.malformed.format() + self._turns(turns_left))

    def _one_reply(self, slot: int, reply: object, accepted: bool, rules: Rules) -> str:
        if not accepted or not isinstance(reply, Reply):
            return self.unavailable.format(slot=slot)
        text = neutralise(cut(reply.text, rules.max_reply_chars))
        expert = neutralise(cut(reply.expert, 80)).replace('"', "'").replace("\n", " ")
        return self.reply.format(slot=slot, expert=expert, text=text)

    def _turns(self, turns_left: int) -> str:
        if turns_left == 1:
            return self.last_turn.format()
        return self.turns_left.format(turns_left=turns_left)


_PROBLEM = "Problem: {statement}"
_TRAINING_EXAMPLE = (
    "An example:\n\nProblem: Tom has 17 red and 25 blue pens. He gives half of them away. How many"
    " are left?\n\nYour first turn:\nFirst I need the sum.\n<consult>\n<query>What is 17 + 25?"
    '</query>\n</consult>\n\nYou read:\n<reply query="1" expert="ada">\n17 + 25 = 42\n</reply>\n'
    "\nYour second turn:\nThe sum is 42, and half of it is 42 / 2 = 21. The answer is"
    " \\boxed{{21}}.\n\nNow solve this one.\n\n"
)
_ALONE_EXAMPLE = (
    "An example:\n\nProblem: Tom has 17 red and 25 blue pens. He gives half of them away. How many"
    " are left?\n\nYour turn:\nTom has 17 + 25 = 42 pens, and half of them is 42 / 2 = 21. The"
    " answer is \\boxed{{21}}.\n\nNow solve this one.\n\n"
)


def _with_example(template: str, example: str) -> str:
    return template.replace(_PROBLEM, example + _PROBLEM)


def neutralise(text: str) -> str:
    """Return text with the grammar's tags escaped, without null bytes and lone surrogates."""
    return _UNENCODABLE.sub("\ufffd", _TAG.sub("&lt;", text))


def encodable(text: str) -> str:
    """Return text with lone surrogates replaced by U+FFFD, so that UTF-8 can encode it."""
    if text.isascii():
        return text
    return LONE_SURROGATE.sub("\ufffd", text)


def cut(text: str, max_chars: int) -> str:
    """Return at most `max_chars` characters of the text, with a visible mark where it was cut."""
    return text if len(text) <= max_chars else text[:max_chars] + CUT_MARK
