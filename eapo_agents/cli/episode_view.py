"""An episode in the terminal: what the policy may do, each turn with its gate, and the outcome.

The same parts as in the page of a report. All text of models and experts is shown literally, with
what a terminal would execute written as escapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eapo_agents import evaluation

if TYPE_CHECKING:
    from rich.console import Console

    from eapo_env import EAPOMathEnv
    from eapo_env.experts import ExpertPool
    from eapo_env.types import Consultation, ExpertReply, Rules


def show_rules(console: Console, env: EAPOMathEnv) -> None:
    """Print what the policy may do in the episodes to come."""
    lines = "\n".join(f"- {line}" for line in permitted(env.rules, env.experts))
    _panel(console, "what the policy may do", lines, "cyan")


def permitted(rules: Rules, experts: ExpertPool) -> list[str]:
    """Return what an episode's rules allow, a sentence each."""
    if rules.is_alone:
        return ["write one turn, alone: answer with \\boxed{...}"]
    ask = f"ask up to {rules.queries_per_turn} questions a turn, of {_names(experts)}"
    return [
        f"write up to {rules.turn_budget} turns; a consultation in the last one is not sent",
        f"{ask}: <consult><query>...</query></consult>",
        f"read a reply with probability {rules.acceptance_rate:g}, for each question by itself"
        f" (the gate); up to {rules.max_reply_chars:,} characters of it",
        "answer with \\boxed{...}, which ends the episode",
    ]


def show_message(console: Console, speaker: str, text: str, *facts: str) -> None:
    """Print a message of an episode, under its speaker and what else is known of it."""
    colour = "blue" if speaker == "policy" else "yellow"
    _panel(console, " · ".join([speaker, *facts]), text, colour)


def show_consultation(console: Console, consultation: Consultation) -> None:
    """Print the gate's decision on each query of a turn, and what the experts replied."""
    answered = zip(consultation.queries, consultation.accepted, consultation.replies, strict=True)
    for number, (query, accepted, reply) in enumerate(answered, start=1):
        gate = "accepted" if accepted else "refused"
        title = " · ".join([f"query {number}", f"gate: {gate}", *_known(reply)])
        text = f"{query.text}\n\n{_came(reply)}"
        _panel(console, title, text, "green" if accepted else "red", indent=4)


def show_outcome(console: Console, env: EAPOMathEnv, reward: float, num_tokens: int | None) -> None:
    """Print how an episode ended: the answer beside the gold answer, and what it used.

    Args:
        num_tokens: how many tokens the policy wrote; None if it is a person.
    """
    from rich.table import Table
    from rich.text import Text

    from eapo_env.actions import Answer

    episode, info = env.episode, env.inform()
    last = episode.actions[-1]
    gold = episode.problem.answer
    verdict = "correct" if info["correct"] else f"not correct; the answer is {gold}"
    rows = {
        "answer": last.text if isinstance(last, Answer) else "none",
        "gold answer": gold,
        "verdict": str(info["verdict"]),
        "turns": f"{episode.turn} of {episode.rules.turn_budget}",
        "queries": f"{episode.num_queries}, of which {episode.num_accepted} had a reply to read",
    }
    if num_tokens is not None:
        rows["tokens"] = f"{num_tokens} written"
    drawn = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        drawn.add_row(Text(name, style="dim"), Text(evaluation.visible(value)))
    console.print(drawn)
    told = evaluation.visible(f": {verdict}, reward {reward:g}\n")
    console.print(Text.assemble((str(info["stop_reason"]), "bold"), told))


def _known(reply: ExpertReply) -> list[str]:
    """Return the expert's name and the latency of a reply, as far as they are known."""
    seconds = "" if reply.latency_s is None else f"{reply.latency_s:.2g} s"
    return [part for part in (reply.expert, seconds) if part]


def _came(reply: ExpertReply) -> str:
    from eapo_env.types import Reply, Unavailable

    match reply:
        case Reply(_, text):
            return text
        case Unavailable(reason):
            return f"no reply: {reason}"


def _names(experts: ExpertPool) -> str:
    from eapo_env.experts import ScriptedExperts, SilentExperts

    match experts:
        case SilentExperts():
            return "nobody: there is no expert for these problems"
        case ScriptedExperts(names=names):
            return ", ".join(names)
        case _:
            return type(experts).__name__


def _panel(console: Console, title: str, text: str, colour: str, *, indent: int = 0) -> None:
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.text import Text

    drawn = Panel(
        Text(evaluation.visible(text)),
        title=Text(evaluation.visible(title)),
        title_align="left",
        border_style=colour,
    )
    console.print(Padding(drawn, (0, 0, 0, indent)), highlight=False)
