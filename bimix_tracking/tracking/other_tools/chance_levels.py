"""What guessing gets in common benchmark tasks, by the number of answers that a question has."""

from __future__ import annotations

import re

_ANSWERS = {
    2: (
        "piqa winogrande wsc wsc273 boolq copa rte wic wnli qnli mrpc qqp sst2 multirc blimp xcopa xwinograd "
        "storycloze xstorycloze toxigen"
    ),
    3: "social_iqa socialiqa siqa anli cb mnli xnli pubmedqa",
    4: (
        "hellaswag swag mmlu hendrycksTest cmmlu ceval openbookqa arc_easy arc_challenge arc sciq race logiqa medmcqa "
        "medqa gpqa belebele"
    ),
    5: "commonsense_qa commonsenseqa csqa mathqa",
    10: "mmlu_pro leaderboard_mmlu_pro",
}
_WRITTEN = (
    "lambada gsm8k gsm_plus humaneval mbpp triviaqa nq_open naturalqs webqs coqa squad drop minerva_math math asdiv"
)
_CHANCE = {name: 1 / answers for answers, names in _ANSWERS.items() for name in names.split()}
_CHANCE |= dict.fromkeys(_WRITTEN.split(), 0.0)
_KNOWN = re.compile(rf"(?:{'|'.join(sorted(_CHANCE, key=len, reverse=True))})(?![A-Za-z0-9])")
_GENERATED = re.compile(
    r"exact_match.*|em|quasi_exact_match|contains|pass(?:@|_at_)\d+.*|.*_level_(?:strict|loose)_acc"
)


def chance_of(task: str, metric: str) -> float | None:
    """Return what guessing gets in a task, None where that isn't known.

    Args:
        task: As a tool names it: the name of a known task, and what follows it (`arc_easy_test_rc_5shot`).
        metric: What is measured: an answer that is written, not chosen, isn't guessed.

    >>> chance_of("hellaswag_0shot", "acc_norm"), chance_of("mmlu_pro", "acc"), chance_of("mmlu_stem", "acc")
    (0.25, 0.1, 0.25)
    >>> chance_of("mytask", "exact_match"), chance_of("mytask", "acc")
    (0.0, None)
    """
    known = _KNOWN.match(task.rpartition("/")[2])
    if known is not None:
        return _CHANCE[known[0]]
    return 0.0 if _GENERATED.fullmatch(metric) else None
