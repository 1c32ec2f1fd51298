"""Rows of recorded episodes, as training writes them, with chosen content."""

from __future__ import annotations

from typing import Any

OPENING = {"role": "user", "content": "Problem: 3 + 4 = ?", "tokens": 12}
ANSWER = {"role": "assistant", "content": "\\boxed{7}", "tokens": 5, "action": "answer"}
CONSULT = {
    "role": "assistant",
    "content": "<consult>\n<query>3 + 4?</query>\n</consult>",
    "tokens": 9,
    "action": "consult",
}
RELAY = {"role": "user", "content": "<reply>7</reply>\nTurns left: 1.", "tokens": 6}
ASKED = {"query": "3 + 4?", "accepted": True, "expert": "ada", "reply": "7"}
REFUSED = {"query": "4 + 3?", "accepted": False, "unavailable": "refused by the gate"}


def alone(**changes: Any) -> dict[str, Any]:
    """Return an episode that answers at once."""
    return {
        "problem_id": "sum",
        "answer": "7",
        "given": "7",
        "status": "correct",
        "reward": 1.0,
        "stop_reason": "answered",
        "turn_budget": 2,
        "queries_per_turn": 3,
        "acceptance_rate": 0.5,
        "policy_tokens": 5,
        "environment_tokens": 12,
        "paradigm": "self_resolution",
        "messages": [OPENING, ANSWER],
        "consultations": [],
        "member": 0,
        "use": "learned",
        "advantage": 0.75,
        **changes,
    }


def consulting(*asked: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return an episode that consults once, then answers."""
    return alone(
        **{
            "paradigm": "direct_consultation",
            "messages": [OPENING, CONSULT, RELAY, ANSWER],
            "consultations": [list(asked or (ASKED, REFUSED))],
            "policy_tokens": 14,
            "environment_tokens": 18,
            **changes,
        }
    )
