"""What the report on the miniature reproduction says in words; `results.py` adds the numbers."""

INTRODUCTION = """\
# Results in miniature

The paper's comparisons on the embedded model, a Llama of a million parameters, and procedural
problems: sums of three brackets modulo 100. Every number is mean@32 alone (the paper's "Pass@32")
on the same 64 held-out problems, in percent. This file is written by a command from the files in
[results/](results); nothing in it is typed in by hand.

A miniature tests orderings, not sizes: it says whether the method can do what the paper says it
does, and where it does not.
"""

AIM = """\
EAPO ahead of self-exploratory RL by at least 5 points of mean@32 after the same number of
training steps, with an interval above zero, from a base model that finds few rewards by itself.
Both start from the same weights, see the same problems with the same settings, and differ in the
turn budget alone: 2, falling to 1, or 1 from the start. The experts answer one bracket at a time.

Five seeds a method were planned. They left the matter open, so five more were added, once, and
nothing else was changed. All ten together were looked at twice, which makes their p-value too
small by up to half; the later five alone are a test of its own, decided on before they ran.
"""

CURVE = """\
The base models differ in one number: the rate at which the student slipped whom they imitate. A
guess is right once in a hundred times.
"""

CALLS = """\
The call rate must fall here, because the turn budget does: an episode of one turn cannot consult.
What can be read from the table is the accuracy of the training episodes, which are helped at
first: it falls as long as help goes faster than skill comes, and rises again in the end, when
nearly all are played alone. The paper's accuracy holds throughout.
"""

BEYOND = """\
**Experts of parts, not of wholes.** In single trials with experts that work out whole problems,
the policy asks for the whole by a quarter of the training, copies the answer, and has learned
nothing that it could use alone. An expert of parts leaves it the rest, and a refused part makes
an easier problem out of a hard one: one bracket to work out instead of three. That is where a
policy that almost never solves three brackets finds its rewards, and the gate that closes is a
curriculum.

**It can fail.** Within a seed the outcome is nearly all or nothing, for both methods: either the
steps of arithmetic become reliable, and then success climbs to half of all problems and more, or
rewards stay too rare. EAPO makes the first likelier; it does not make it certain.

The table below shows why. Entropy tells the two outcomes apart long before success does: it falls
where the training works. Self-exploratory RL fails by hunger: nine groups of ten hold no right
answer, nothing is learned, and the entropy stays where it began. EAPO fails by another way: help
is withdrawn faster than skill comes, soon half of the groups are all wrong, and what is reinforced
in the others are lucky chains, one right answer against seven wrong ones. Each such update takes
probability from what the policy was sure of, so that entropy rises, the chains grow longer and less
of them is right, and more groups are all wrong: a circle that does not end. A remedy would slow the
withdrawal down while the entropy rises; it has not been tried, since the schedule is the paper's.
"""

TUNING = """\
Learning rate, number of steps, and batch (3e-4, 80, 16 problems of 8 episodes) were chosen for
self-exploratory RL, on the embedded base model, where it learns well (preset `embedded`), and are
the same for all. Tried for EAPO alone: turn budgets drawn per member or per group, and the two
kinds of experts. The base of the tables was chosen in trials on another base of the same slip
(EAPO 49 to 57, self-exploratory RL 1 or 2), none of which is counted here; how the outcome
depends on it is shown above. LeaP's four paths stop after 42 tokens, with two of three brackets
done, and read each other's last value like experts' replies; other numbers (32, 64) were tried on
other problems and did not matter.
"""

READING = """\
Intervals are for other seeds and other problems of the same kind
(`eapo_agents.comparison.seeds_difference`): Student's t, variance of the seeds plus variance of
the problems, problems paired. With a single seed an interval counts problems alone and says
nothing about other seeds; no verdict is given then. Seeds of an untrained policy are seeds of its
sampling.
"""

NOT_TESTED = """\
Real models and real mathematics: nothing here says that the paper's numbers would come out again.
Table 4 and Appendix D need models that know more than sums, Figure 3 a larger policy, Table 10
and Table 11 other models; their presets and commands are in [the map of the paper](paper-map.md).
"""
