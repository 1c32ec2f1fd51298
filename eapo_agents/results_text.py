"""What the report on the miniature reproduction says in words; `results.py` adds the numbers."""

INTRODUCTION = """\
# Results in miniature

The paper's comparisons on the embedded model, a Llama of a million parameters, and procedural
problems: sums of three brackets modulo 100. Every score is mean@32 (the paper's "Pass@32") on the
same 64 held-out problems, in percent; alone, except for self collaboration, the expert-assisted
workflow, LeaP and Appendix E, which are what a model does with help. The tables are written by a
command from the files in [results/](results).

A miniature tests orderings, not sizes: it says whether the method can do what the paper says it
does, and where it does not.
"""

AIM = """\
EAPO ahead of self-exploratory RL by at least 5 points of mean@32 after the same number of
training steps, with an interval above zero, from a base model that finds few rewards by itself.
Both start from the same weights, see the same problems with the same settings, and differ in the
turn budget alone: 2, falling to 1, or 1 from the start. The experts answer one bracket at a time.

Five seeds a method were planned. They left the matter open, so five more were added, once, and
nothing else was changed. All ten together were looked at twice, so their interval is one of 97.5%
and the verdict is drawn from it. The later five alone, decided on before they ran, point the same
way, but their interval of 95% holds zero, as does that of the first five.
"""

DISAGREEMENT = """\
**Distillation wins here, by far.** The expert's solutions are right, of the very form in which the
policy writes its own, and eighty tokens long: supervised learning has a signal for each token, and
a student of this size can copy all there is to know. The paper's experts write ten thousand tokens
in a manner of their own, and knowing the answer is not all there is to their reasoning. What the
miniature says is that EAPO is no rival to demonstrations where good ones can be had and imitated.

**The base with experts beats EAPO alone.** Experts that do the brackets leave two sums to the base,
which it can do. They know all that the task asks; the paper's experts do not.

**LeaP, and copies of oneself, do not help.** Their use rests on peers that are right more often
than chance and err in different ways. A base that is right once in eighty times has none, so its
copies are as good as experts that are meaningless.

**A constant rate does best, and the slow schedule learns next to nothing.** What a policy can do
alone at half-time goes with how much it was refused by then: in the mean over that half, `constant`
accepts 0.50 of the replies, `fast` 0.58, `linear` 0.75 and `slow` 0.92. Where a reply is accepted
the policy only adds up; it works out a bracket, and is rewarded for doing it right, where a reply
is refused. That work is all there is to learn here, so a schedule that refuses early teaches more,
and one that refuses late leaves the policy without skill when the help goes.

**One query a turn does no worse than three.** It is the same story: with three queries all brackets
are asked about at once; with one a turn some are left to the policy whenever fewer than four turns
are drawn, so it does more by itself and can do more at half-time. In the paper more queries bring
information that the policy lacks; here all can be worked out. That this makes the difference was
not measured. Both cells start from a base that was taught both ways (base *), for longer than the
tables' own, so they are to be compared with each other alone.
"""

CURVE = """\
The base models differ in one number: the rate at which the student slipped whom they imitate. A
guess is right once in a hundred times. Two of the five points are decided: at a slip of 0.35 all
seeds of self-exploratory RL succeed, and help costs points; at 0.5 most of its seeds fail, and help
pays. At 0.42 and 0.6 one method or both succeed in some seeds only, and three do not tell.
"""

CALLS = """\
The call rate must fall here, because the turn budget does: an episode of one turn cannot consult.
What can be read from the table is the accuracy of the training episodes, which are helped at
first: it falls as long as help goes faster than skill comes, and rises again in the end, when
nearly all are played alone. The paper's accuracy holds throughout.
"""

BEYOND = """\
**Experts of parts or of wholes.** With experts that work out whole problems the policy asks for
the whole, by the second quarter of the training in two seeds and by the third in the other, and
asks about parts no more. We had taken from single trials that it then learns nothing for itself;
two of the three seeds say otherwise, with a third of the problems solved alone, and three seeds do
not decide whether experts of parts are better. They are what the tables use, since a refused part
makes an easier problem out of a hard one: one bracket to work out instead of three. That is where a
policy that almost never solves three brackets finds its rewards, and the gate that closes is a
curriculum.

**Who draws the turn budget**, each member of a group or the group as a whole, makes no difference
that three seeds could show.

**It can fail.** Within a seed the outcome is mostly one of two, for both methods: either the steps
of arithmetic become reliable, and then success climbs to a third of all problems and more, or
rewards stay too rare, and it ends at about a tenth or below. EAPO makes the first likelier; it does
not make it certain.

Entropy tells the two outcomes apart long before success does, as the table below shows: it falls
where the training works. The failures of the two methods differ. Self-exploratory RL fails by
hunger: nine groups of ten hold no right answer, and the entropy stays about where it began. EAPO
begins with right answers in most groups and loses them: help is withdrawn faster than skill comes,
half of the groups are all wrong by the second quarter, and the entropy rises from then on. What we
take to happen, without having measured it: the few right answers that are reinforced are lucky
chains, and the many wrong ones take probability from what the policy was sure of, so that fewer
chains are right, and so on. A remedy would slow the withdrawal down while the entropy rises; it has
not been tried, since the schedule is the paper's.
"""

TUNING = """\
Learning rate, number of steps, and batch (3e-4, 80, 16 problems of 8 episodes) were chosen for
self-exploratory RL, on the embedded base model, where it learns well (preset `embedded`), and are
the same for all. Tried for EAPO alone: turn budgets drawn per member or per group, and the two
kinds of experts. The base of the tables was chosen in trials on another base of the same slip
(EAPO 49 to 57, self-exploratory RL 1 or 2), none of which is counted here; how the outcome
depends on it is shown above. LeaP's four paths stop after 42 tokens, with two of three brackets
done, and read each other's last value like experts' replies; other numbers (32, 64) were tried on
other problems and did not matter. The base that asks either way (base *) was taught three times:
after 200 and 800 steps it could not ask one by one, right in 1% and 2% of the episodes with all
replies accepted, so it was taught for 1600 (52%); the cells were run to the end from that alone.
"""

READING = """\
Intervals are for other seeds and other problems of the same kind
(`eapo_agents.comparison.seeds_difference`): Student's t, variance of the seeds plus variance of
the problems, problems paired. They are of 95%, but for EAPO against self-exploratory RL at the
tables' base, which is one of 97.5%, as said above. With a single seed an interval counts problems
alone and says nothing about other seeds; no verdict is given then. Seeds of an untrained policy are
seeds of its sampling.
"""

NOT_TESTED = """\
Real models and real mathematics: nothing here says that the paper's numbers would come out again.
Table 4 and Appendix D need models that know more than sums, Figure 3 a larger policy, Table 10
and Table 11 other models; their presets and commands are in [the map of the paper](paper-map.md).
"""
