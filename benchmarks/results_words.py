"""What `docs/results.md` says around its tables."""

from __future__ import annotations


def paragraph(text: str) -> str:
    """A paragraph written over several lines of code as one line."""
    return " ".join(text.split())


HEADING = [
    "# Heads on real clips",
    "",
    paragraph(
        """Made by `make results`; do not edit. First the table of streams and heads, by repeated
        folds; then the older boards of every head on one stream."""
    ),
]
STREAMS = [
    "## Streams × heads",
    "",
    paragraph(
        """Three folds by whole groups (clips of one source video never stand on both sides). Heads
        that are solved for (frame average, pyramid) were trained on three cuts into folds
        (`--repeats 3`), heads that are trained by gradients on the first of these. *top-1* is
        over all test clips (and repeats) pooled, in brackets its 95 % interval by a bootstrap
        over groups. Leads are paired, clip by clip, on the cuts that both heads have; in
        **bold** where the interval does not hold 0. Strengths, epochs and inner choices look at
        training and validation clips only. Which streams and heads stand in this table, and how
        they are defined, was decided with these clips in sight: a fresh set should confirm it."""
    ),
]
RECALL = paragraph(
    """The share of each class's test clips that is told, by the pyramid of each stream, beside the
    frame average of the first:"""
)
ORDER = paragraph(
    """Does the order of time matter? The pyramid, and the pyramid trained and tested on clips with
    their steps in random order (`--shuffle-steps`); what is lost:"""
)
LEARNING = paragraph(
    """Learning curves: top-1 by share of the training groups (`--train-groups`), and the training
    and validation clips in it:"""
)
ALL_HEADS = paragraph(
    """Made by `make results ONLY=all-heads`, before the frame average was solved for and before the
    pyramid: its row is that of `--options fit=gradient`, an under-regularised opponent. Three
    folds by whole groups, one cut, widths as named, else 512 for recurrent heads, seed 0, each
    head's own learning rate. *top-1* is the mean over the folds' test clips, ± its standard
    deviation over the folds. *against* is the difference to the frame average in top-1 over all
    test clips of the folds pooled, with its 95 % interval by a paired bootstrap over groups
    (none below five); it need not be the difference of the two means beside it. Early stopping
    and the choice of a head look at validation clips only."""
)
VIEWS = paragraph(
    """Training draws one of the two views for every clip and epoch. These figures are means over
    both views of a test clip, which a run calls `test_views` now (`test` is the first store
    alone, as `predict` reads it): {mean:+.3f} in top-1 on average over these {heads} heads,
    beyond chance for {sure} of them. It doubles stage one, once; an epoch sees no more clips,
    but there are more before it stops."""
)
READING = [
    "## Reading it",
    "",
    *(
        f"- {paragraph(text)}"
        for text in (
            """**A wide recurrent head learns a hundred clips by heart.** In the older boards no
            head of millions of parameters is ahead of even the under-regularised frame average
            beyond chance, and on tennis some are behind it: the frame average gets 40 labelled
            examples out of every clip, a recurrent head one.""",
            """**Where only the order of the steps decides, heads that ignore it cannot follow.**
            The demo clips are made in pairs that differ in nothing else: there the frame
            average, and attention without positions, are left with a choice between two; a GRU,
            an LSTM or an MLP over the flattened sequence is not.""",
            """**Look at the intervals.** With this few groups two heads a few points apart are not
            told apart by one split; the interval over groups says how far apart they must be.
            Repeats of the folds take out the chance of the cut, not that of the clips.""",
            """**Look at the leak check.** What one frame's border tells of the class, a head that
            sees the picture may have used: count what it scores above that. The tennis clips
            come from few scenes; a split that does not keep groups whole would give far higher
            figures, which mean nothing.""",
            """Weights that are not Keras' own file are named by their hash. Those used for the page
            in the repository are *recovered ImageNet weights*: close to Keras' official file,
            not equal to it.""",
        )
    ),
]
